//! The connections of the receiver: so many at once, each for so long, with TLS or without.
//! It stands at the edge of the network, so nothing that a stranger does may hold a place for ever.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::serve::Listener;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{Instant, Interval, Sleep, interval, sleep, sleep_until, timeout},
};

use super::tls::Tls;

/// Connections at once; more wait in the system's queue.
const CONNECTIONS: usize = 256;
/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long nothing may come.
const SILENCE: Duration = Duration::from_secs(30);
/// How long a connection may live, however busy it is.
const LIFE: Duration = Duration::from_secs(600);
/// The system lacks something, such as file descriptors: it may come back.
const REST: Duration = Duration::from_secs(1);
/// The certificate is looked at so often when nobody connects, so that what is shown of it is not old.
const LOOK: Duration = Duration::from_secs(60);

pub struct Connections {
    tcp: TcpListener,
    tls: Option<Tls>,
    look: Interval,
    places: Arc<Semaphore>,
    handshakes: JoinSet<Option<(Connection, SocketAddr)>>,
}

impl Connections {
    pub fn new(tcp: TcpListener, tls: Option<Tls>) -> Self {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        Self { tcp, tls, look: interval(LOOK), places, handshakes: JoinSet::new() }
    }

    /// Goes on with a connection in a task of its own, so that a slow one keeps nobody waiting.
    fn shake_hands(&mut self, stream: TcpStream, from: SocketAddr, place: OwnedSemaphorePermit) {
        let acceptor = self.tls.as_mut().map(Tls::acceptor);
        self.handshakes.spawn(async move {
            let io: Box<dyn Io> = match acceptor {
                None => Box::new(stream),
                Some(acceptor) => Box::new(timeout(HANDSHAKE, acceptor.accept(stream)).await.ok()?.ok()?),
            };
            Some((Connection::new(io, place), from))
        });
    }
}

impl Listener for Connections {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            let next = async {
                let place = Arc::clone(&self.places).acquire_owned().await.map_err(io::Error::other)?;
                let (stream, from) = self.tcp.accept().await?;
                io::Result::Ok((place, stream, from))
            };
            tokio::select! {
                _ = self.look.tick() => drop(self.tls.as_mut().map(Tls::acceptor)),
                Some(ended) = self.handshakes.join_next() => {
                    if let Ok(Some(connection)) = ended {
                        return connection;
                    }
                }
                next = next => match next {
                    Ok((place, stream, from)) => self.shake_hands(stream, from, place),
                    Err(_) => sleep(REST).await,
                },
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection that ends when nothing comes for [`SILENCE`], or nothing that we say is taken, and after [`LIFE`].
pub struct Connection {
    io: Box<dyn Io>,
    ends: Instant,
    patience: Pin<Box<Sleep>>,
    /// Something that we say waits for the other side to read. What it sends meanwhile is no reason to wait longer.
    is_stuck: bool,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    fn new(io: Box<dyn Io>, place: OwnedSemaphorePermit) -> Self {
        let now = Instant::now();
        let patience = Box::pin(sleep_until(now + SILENCE));
        Self { io, ends: now + LIFE, patience, is_stuck: false, _place: place }
    }

    /// Whatever is to be done, and be it possible at once for ever, is not done past the end.
    fn is_alive(&self) -> io::Result<()> {
        if self.ends <= Instant::now() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) }
    }

    /// What cannot be done now is waited for, but not for ever.
    fn wait<T>(&mut self, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        self.patience.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Begins anew to be patient.
    fn take_heart(&mut self) {
        let until = self.ends.min(Instant::now() + SILENCE);
        self.patience.as_mut().reset(until);
    }

    fn said<T>(&mut self, said: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        match said {
            Poll::Pending => {
                self.is_stuck = true;
                self.wait(context)
            }
            ready => {
                if std::mem::take(&mut self.is_stuck) {
                    self.take_heart();
                }
                ready
            }
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.is_alive()?;
        match Pin::new(&mut self.io).poll_read(context, buffer) {
            Poll::Pending => self.wait(context),
            ready => {
                if !self.is_stuck {
                    self.take_heart();
                }
                ready
            }
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.is_alive()?;
        let said = Pin::new(&mut self.io).poll_write(context, bytes);
        self.said(said, context)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_alive()?;
        let said = Pin::new(&mut self.io).poll_flush(context);
        self.said(said, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_alive()?;
        let said = Pin::new(&mut self.io).poll_shutdown(context);
        self.said(said, context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex, join, repeat, sink};

    use super::*;

    fn at_a_place(io: impl Io + 'static) -> (Connection, Arc<Semaphore>) {
        let places = Arc::new(Semaphore::new(1));
        let place = Arc::clone(&places).try_acquire_owned().unwrap();
        (Connection::new(Box::new(io), place), places)
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_does_not_read_is_let_go_although_it_sends() {
        let (ours, theirs) = duplex(16);
        let (connection, places) = at_a_place(ours);
        let (mut hears, mut says) = tokio::io::split(connection);
        let (_ignored, mut sends) = tokio::io::split(theirs);
        let sending = tokio::spawn(async move { while sends.write_all(b"x").await.is_ok() {} });
        let hearing = tokio::spawn(async move {
            let mut one = [0; 1];
            while hears.read_exact(&mut one).await.is_ok() {
                sleep(Duration::from_secs(1)).await;
            }
        });
        let begun = Instant::now();
        let stuck = timeout(LIFE, says.write_all(&[0; 17])).await.expect("it is let go").unwrap_err();
        assert_eq!(stuck.kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() < 2 * SILENCE);
        assert_eq!(says.shutdown().await.map_err(|e| e.kind()), Ok(()), "the pipe can be shut at once");
        hearing.await.unwrap();
        drop(says);
        sending.await.unwrap();
        assert_eq!(places.available_permits(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_busy_all_the_time_has_an_end_too() {
        let (mut connection, _places) = at_a_place(join(repeat(0), sink()));
        let mut one = [0; 1];
        for _ in 1..LIFE.as_secs() {
            sleep(Duration::from_secs(1)).await;
            connection.read_exact(&mut one).await.unwrap();
            connection.write_all(&one).await.unwrap();
        }
        sleep(Duration::from_secs(1)).await;
        assert_eq!(connection.read(&mut one).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(connection.write(&one).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(connection.flush().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(connection.shutdown().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
