//! The HTTP of a connection: heads are small and come soon, and whoever does not show the secret keeps no place.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Router, serve::Listener};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use tokio::{task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

use super::connections::{Connection, Connections};

/// More than any head: the service sends some ten short headers, and proxies add theirs. Each connection may hold as much.
pub const HEAD_MAX: usize = 32 << 10;
/// How long a head may take, and how long the first one with the secret may be waited for.
pub const HEAD_TIME: Duration = Duration::from_secs(10);
/// Headers of one request.
pub const HEADERS: usize = 64;
/// Requests at once on one connection of HTTP/2.
const STREAMS: u32 = 8;
/// What of bodies an HTTP/2 connection may hold before it is read.
const WINDOW: u32 = 64 << 10;

/// Whether a connection has carried a request with the secret.
#[derive(Clone, Default)]
pub struct Known(Arc<AtomicBool>);

impl Known {
    pub fn mark(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_marked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Serves what comes until `stop`, then ends when what is open was answered. Dropped, it drops every connection.
pub async fn run(mut connections: Connections, router: impl Fn(Known) -> Router, stop: CancellationToken) {
    let (builder, mut open) = (builder(), JoinSet::new());
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            (connection, _) = connections.accept() => {
                let known = Known::default();
                open.spawn(one(builder.clone(), connection, router(known.clone()), known, stop.clone()));
            }
            Some(_) = open.join_next() => {}
        }
    }
    // Closes the port: what still knocks is told at once, and finds another process.
    drop(connections);
    while open.join_next().await.is_some() {}
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).max_buf_size(HEAD_MAX).max_headers(HEADERS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(HEAD_MAX as u32)
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_send_buf_size(WINDOW as usize);
    builder
}

async fn one(
    builder: Builder<TokioExecutor>,
    connection: Connection,
    router: Router,
    known: Known,
    stop: CancellationToken,
) {
    let mut served = pin!(builder.serve_connection(TokioIo::new(connection), TowerToHyperService::new(router)));
    // The limit of HTTP/1 heads does not see the first bytes, which tell the version, nor HTTP/2.
    let mut introduction = pin!(sleep(HEAD_TIME));
    let (mut is_introduced, mut is_stopping) = (false, false);
    loop {
        tokio::select! {
            // How a connection ends, well or badly, concerns nobody but its client.
            _ = served.as_mut() => return,
            () = introduction.as_mut(), if !is_introduced => match known.is_marked() {
                true => is_introduced = true,
                false => return,
            },
            () = stop.cancelled(), if !is_stopping => {
                is_stopping = true;
                served.as_mut().graceful_shutdown();
            }
        }
    }
}
