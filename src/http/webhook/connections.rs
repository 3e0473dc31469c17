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
    time::{Instant, Sleep, sleep, sleep_until, timeout},
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

pub struct Connections {
    tcp: TcpListener,
    tls: Option<Tls>,
    places: Arc<Semaphore>,
    handshakes: JoinSet<Option<(Connection, SocketAddr)>>,
}

impl Connections {
    pub fn new(tcp: TcpListener, tls: Option<Tls>) -> Self {
        Self { tcp, tls, places: Arc::new(Semaphore::new(CONNECTIONS)), handshakes: JoinSet::new() }
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

/// A connection that ends when nothing comes for [`SILENCE`], and after [`LIFE`].
pub struct Connection {
    io: Box<dyn Io>,
    ends: Instant,
    patience: Pin<Box<Sleep>>,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    fn new(io: Box<dyn Io>, place: OwnedSemaphorePermit) -> Self {
        let now = Instant::now();
        Self { io, ends: now + LIFE, patience: Box::pin(sleep_until(now + SILENCE)), _place: place }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.io).poll_read(context, buffer) {
            Poll::Pending => match self.patience.as_mut().poll(context) {
                Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
                Poll::Pending => Poll::Pending,
            },
            ready => {
                let until = self.ends.min(Instant::now() + SILENCE);
                self.patience.as_mut().reset(until);
                ready
            }
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
