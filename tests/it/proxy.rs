//! A proxy between the connector and a broker of its own: counts what a transaction is made of, and can swallow answers.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI16, AtomicU64, Ordering},
    },
    thread,
};

use crate::{
    broker::{Broker, Options},
    scratch::free_port,
};

/// A broker that its clients reach through the proxy only. Ends with the test process.
pub struct Proxied {
    _broker: Broker,
    pub bootstrap: String,
    pub seen: Arc<Seen>,
}

/// What went by, and what is to become of it.
pub struct Seen {
    /// TxnOffsetCommit requests.
    pub offsets: AtomicU64,
    /// EndTxn requests that commit.
    pub commits: AtomicU64,
    armed: AtomicBool,
    swallowed: AtomicBool,
    /// Whoever sends such a request hears no more on its connection.
    silenced: AtomicI16,
}

impl Seen {
    fn new() -> Self {
        let (offsets, commits) = Default::default();
        let (armed, swallowed) = Default::default();
        Self { offsets, commits, armed, swallowed, silenced: AtomicI16::new(NONE) }
    }

    /// The answer to the next commit is swallowed, with all that follows on its connection.
    pub fn swallow_next(&self) {
        self.swallowed.store(false, Ordering::SeqCst);
        self.armed.store(true, Ordering::SeqCst);
    }

    /// From now on a connection with such a request, named by its API key, gets no answers any more.
    pub fn silence(&self, key: i16) {
        self.silenced.store(key, Ordering::SeqCst);
    }

    /// Connections are answered again, but for those that were silenced.
    pub fn answer_again(&self) {
        self.silence(NONE);
    }

    pub fn has_swallowed(&self) -> bool {
        self.swallowed.load(Ordering::SeqCst)
    }
}

pub const PRODUCE: i16 = 0;
pub const FETCH: i16 = 1;
const NONE: i16 = -1;
const END_TXN: i16 = 26;
const TXN_OFFSET_COMMIT: i16 = 28;

impl Proxied {
    pub fn new() -> Self {
        let (inner, seen) = (free_port(), Arc::new(Seen::new()));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let outer = listener.local_addr().expect("it is bound").port();
        let counting = Arc::clone(&seen);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // Refused while the broker starts or stops: the client tries again.
                let Ok(server) = TcpStream::connect(("127.0.0.1", inner)) else { continue };
                pump(client, server, &counting).expect("sockets can be cloned");
            }
        });
        let broker = Broker::own(Options { proxied: Some((inner, outer)), ..Options::default() });
        Self { _broker: broker, bootstrap: format!("127.0.0.1:{outer}"), seen }
    }
}

fn pump(client: TcpStream, server: TcpStream, seen: &Arc<Seen>) -> io::Result<()> {
    let silent = Arc::new(AtomicBool::new(false));
    let (mut from_client, mut to_server) = (client.try_clone()?, server.try_clone()?);
    let (seen, silence) = (Arc::clone(seen), Arc::clone(&silent));
    thread::spawn(move || {
        while let Ok(frame) = request(&mut from_client) {
            if seen.look_at(&frame) {
                silence.store(true, Ordering::SeqCst);
            }
            if to_server.write_all(&frame).is_err() {
                break;
            }
        }
        let _ = to_server.shutdown(Shutdown::Both);
    });
    let (mut from_server, mut to_client) = (server, client);
    thread::spawn(move || {
        let mut bytes = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from_server.read(&mut bytes) {
            if !silent.load(Ordering::SeqCst) && to_client.write_all(&bytes[..length]).is_err() {
                break;
            }
        }
        let _ = to_client.shutdown(Shutdown::Both);
    });
    Ok(())
}

/// A request with its length before it.
fn request(from: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let mut frame = length.to_vec();
    frame.resize(4 + usize::try_from(i32::from_be_bytes(length)).map_err(io::Error::other)?, 0);
    from.read_exact(&mut frame[4..])?;
    Ok(frame)
}

impl Seen {
    /// Counts a request; true when its answer is to be swallowed.
    fn look_at(&self, frame: &[u8]) -> bool {
        let key = frame.get(4..6).map(|key| i16::from_be_bytes([key[0], key[1]]));
        match key {
            Some(TXN_OFFSET_COMMIT) => _ = self.offsets.fetch_add(1, Ordering::SeqCst),
            // EndTxn up to version 2 ends with whether it commits.
            Some(END_TXN) if frame.last() == Some(&1) => {
                self.commits.fetch_add(1, Ordering::SeqCst);
                let swallow = self.armed.swap(false, Ordering::SeqCst);
                self.swallowed.fetch_or(swallow, Ordering::SeqCst);
                return swallow;
            }
            _ => {}
        }
        key == Some(self.silenced.load(Ordering::SeqCst))
    }
}
