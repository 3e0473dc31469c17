//! The port that the cluster and Prometheus look at.

use std::{io, net::SocketAddr};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::Health;
use crate::telemetry::Metrics;

const INDEX: &str = "o365feed\n\n/metrics  Prometheus, text format\n/livez    200 unless only a restart helps\n\
                     /readyz   200 once started and well, else what is not, line by line\n";

/// A server at work. It ends when its token is cancelled and the last answer is out.
#[derive(Debug)]
pub struct Serving {
    /// Where it listens: the port the system chose when port 0 was asked for.
    pub address: SocketAddr,
    pub ended: JoinHandle<io::Result<()>>,
}

/// Serves `/metrics`, `/livez`, `/readyz` and an index on `listen` until `stop`.
///
/// # Errors
/// [`HttpError`] when the address cannot be had. Nothing that happens later ends the server.
pub async fn serve(
    listen: SocketAddr,
    metrics: Metrics,
    health: Health,
    stop: CancellationToken,
) -> Result<Serving, HttpError> {
    let refused = |source| HttpError { listen, source };
    let listener = TcpListener::bind(listen).await.map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    let server = axum::serve(listener, routes(metrics, health)).with_graceful_shutdown(stop.cancelled_owned());
    Ok(Serving { address, ended: tokio::spawn(async move { server.await }) })
}

/// The address cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("could not listen on {listen}: choose another address with http.listen, or stop what holds this one")]
pub struct HttpError {
    pub listen: SocketAddr,
    #[source]
    pub source: io::Error,
}

fn routes(metrics: Metrics, health: Health) -> Router {
    let metrics = get(|State(metrics): State<Metrics>| async move {
        ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics.render())
    })
    .with_state(metrics);
    let alive = get(|State(health): State<Health>| async move { verdict(health.alive(), "alive") });
    let ready = get(|State(health): State<Health>| async move { verdict(health.ready(), "ready") });
    Router::new()
        .route("/", get(|| async { INDEX }))
        .route("/metrics", metrics)
        .route("/livez", alive.with_state(health.clone()))
        .route("/readyz", ready.with_state(health))
}

fn verdict(found: Result<(), String>, well: &'static str) -> impl IntoResponse {
    match found {
        Ok(()) => (StatusCode::OK, format!("{well}\n")),
        Err(faults) => (StatusCode::SERVICE_UNAVAILABLE, format!("{faults}\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_paths_answer_from_metrics_and_health_until_stopped() {
        let (metrics, health, stop) = (Metrics::new(), Health::new(), CancellationToken::new());
        let serving = serve(any_port(), metrics.clone(), health.clone(), stop.clone()).await.unwrap();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let ask = async |path: &str| {
            let answer = client.get(format!("http://{}{path}", serving.address)).send().await.unwrap();
            (answer.status().as_u16(), answer.text().await.unwrap())
        };

        assert_eq!(ask("/readyz").await, (503, "start: not finished yet\n".to_owned()));
        health.begun();
        assert_eq!(ask("/readyz").await, (200, "ready\n".to_owned()));
        health.not_ok("kafka", "no answer");
        assert_eq!(ask("/readyz").await, (503, "kafka: no answer\n".to_owned()));
        assert_eq!(ask("/livez").await, (200, "alive\n".to_owned()));
        health.dead("fenced");
        assert_eq!(ask("/livez").await, (503, "dead: fenced\n".to_owned()));

        metrics.rebalances_total.inc_by(7);
        let (status, text) = ask("/metrics").await;
        assert_eq!(status, 200);
        assert!(text.contains("\no365feed_rebalances_total 7\n"));
        assert!(ask("/").await.1.contains("/readyz"));
        assert_eq!(ask("/secrets").await.0, 404);

        stop.cancel();
        serving.ended.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_taken_port_is_named_with_its_key() {
        let taken = std::net::TcpListener::bind(any_port()).unwrap();
        let listen = taken.local_addr().unwrap();
        let refused = serve(listen, Metrics::new(), Health::new(), CancellationToken::new()).await.unwrap_err();
        assert!(refused.to_string().starts_with(&format!("could not listen on {listen}: ")));
        assert!(refused.to_string().contains("http.listen"));
    }

    fn any_port() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }
}
