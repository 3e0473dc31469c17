//! Where the service sends its notifications. This part knows HTTP and who may send; what a body means is for the [`Take`]
//! that it is handed to. Rules of the service: docs/api/contract.md 3.2 and 3.7.

mod connections; // how many, for how long, with TLS or without
mod serve; // their HTTP, with limits of its heads
mod tls; // the certificate, read again when its files change

use std::{fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, Method, Request, Response, StatusCode, header},
};
use bytes::BytesMut;
use futures_util::StreamExt;
use secrecy::{ExposeSecret, SecretString};
use serde::{
    Deserializer,
    de::{IgnoredAny, SeqAccess, Visitor},
};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::{net::TcpListener, sync::Semaphore, time::timeout};
use tokio_util::sync::CancellationToken;

use self::{connections::Connections, serve::Known, tls::Tls};
use super::Serving;
use crate::{config, telemetry::Metrics};

/// Where notifications go.
pub trait Take: Send + Sync + 'static {
    /// Called with a whole body of somebody who knows the secret.
    fn take(&self, body: Bytes) -> impl Future<Output = Taken> + Send;
}

/// What became of a notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// All of it that is ours is where it cannot be lost.
    Safe,
    /// It is none.
    Unreadable,
    /// Not now; the service is to send it again.
    NotNow,
}

/// More than any notification: an entry takes some 700 bytes.
const BODY_MAX: usize = 1 << 20;
/// Entries of one notification. Small ones that mean nothing take much more memory than they have bytes.
const ENTRIES_MAX: usize = 5_000;
/// How long a body may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(10);
/// Bodies in memory at once.
const BODIES: usize = 8;

const AUTH_ID: &str = "webhook-authid";
const VALIDATION_CODE: &str = "webhook-validationcode";

/// The receiver as one connection has it.
struct At<T> {
    receiver: Arc<Receiver<T>>,
    known: Known,
}

impl<T> Clone for At<T> {
    fn clone(&self) -> Self {
        Self { receiver: Arc::clone(&self.receiver), known: self.known.clone() }
    }
}

struct Receiver<T> {
    /// Of the secret: hashes are of one length, so comparing them tells nothing of it.
    auth_id: [u8; 32],
    bodies: Semaphore,
    metrics: Metrics,
    take: T,
}

/// How a request was answered. The words are the metrics' label `outcome`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Validated,
    Taken,
    NotNow,
    Unauthorised,
    Unreadable,
    TooLarge,
    TooMany,
    TooSlow,
    NotAPost,
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Validated => "validated",
            Self::Taken => "taken",
            Self::NotNow => "not_now",
            Self::Unauthorised => "unauthorised",
            Self::Unreadable => "unreadable",
            Self::TooLarge => "too_large",
            Self::TooMany => "too_many",
            Self::TooSlow => "too_slow",
            Self::NotAPost => "not_a_post",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::Validated | Self::Taken => StatusCode::OK,
            Self::NotNow => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unauthorised => StatusCode::FORBIDDEN,
            Self::Unreadable => StatusCode::BAD_REQUEST,
            Self::TooLarge | Self::TooMany => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::NotAPost => StatusCode::METHOD_NOT_ALLOWED,
        }
    }
}

/// Receives on `settings.listen` until `stop`, then answers what is open and ends.
///
/// # Errors
/// [`WebhookError`] when the address or the certificate cannot be had. Nothing that happens later ends the receiver.
pub async fn receive<T: Take>(
    settings: &config::Webhook,
    auth_id: &SecretString,
    metrics: Metrics,
    take: T,
    stop: CancellationToken,
) -> Result<Serving, WebhookError> {
    let listen = settings.listen;
    let tls = settings
        .tls
        .as_ref()
        .map(|files| Tls::read(files, metrics.clone()))
        .transpose()
        .map_err(WebhookError::Certificate)?;
    let refused = |source| WebhookError::Address { listen, source };
    let listener = TcpListener::bind(listen).await.map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    let auth_id = hash(auth_id.expose_secret().as_bytes());
    let receiver = Arc::new(Receiver { auth_id, bodies: Semaphore::new(BODIES), metrics, take });
    // Any path: an ingress may have cut it, and who knows the secret may come by all of them.
    let router = move |known| {
        let at = At { receiver: Arc::clone(&receiver), known };
        Router::new().fallback(answer::<T>).with_state(at)
    };
    let served = serve::run(Connections::new(listener, tls), router, stop);
    let ended = tokio::spawn(async move {
        served.await;
        Ok(())
    });
    Ok(Serving { address, ended })
}

/// The receiver cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    #[error("could not listen on {listen}: choose another address with webhook.listen, or stop what holds this one")]
    Address {
        listen: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("could not use webhook.certificate_file and webhook.key_file")]
    Certificate(#[source] io::Error),
    #[error("could not read webhook.auth_id_file")]
    AuthId(#[source] io::Error),
}

async fn answer<T: Take>(State(at): State<At<T>>, request: Request<Body>) -> Response<Body> {
    let outcome = at.receiver.handle(request, &at.known).await;
    at.receiver.metrics.webhook_requests_total.with_label_values(&[outcome.as_str()]).inc();
    let mut response = Response::new(Body::empty());
    *response.status_mut() = outcome.status();
    response
}

impl<T: Take> Receiver<T> {
    /// Nothing is read of a body before its sender has shown the secret.
    async fn handle(&self, request: Request<Body>, known: &Known) -> Outcome {
        let headers = request.headers();
        if request.method() != Method::POST {
            return Outcome::NotAPost;
        }
        if !self.knows_the_secret(headers) {
            return Outcome::Unauthorised;
        }
        known.mark();
        // The service waits for this one, and not for long: answered before anything else is done.
        if headers.contains_key(VALIDATION_CODE) {
            return Outcome::Validated;
        }
        if declared_length(headers).is_some_and(|length| (BODY_MAX as u64) < length) {
            return Outcome::TooLarge;
        }
        let Ok(Ok(_place)) = timeout(BODY_TIME, self.bodies.acquire()).await else { return Outcome::NotNow };
        let body = match timeout(BODY_TIME, whole(request.into_body())).await {
            Err(_) => return Outcome::TooSlow,
            Ok(Err(outcome)) => return outcome,
            Ok(Ok(body)) => body,
        };
        if is_validation(&body) {
            return Outcome::Validated;
        }
        if has_too_many(&body) {
            return Outcome::TooMany;
        }
        match self.take.take(body).await {
            Taken::Safe => Outcome::Taken,
            Taken::Unreadable => Outcome::Unreadable,
            Taken::NotNow => Outcome::NotNow,
        }
    }

    fn knows_the_secret(&self, headers: &HeaderMap) -> bool {
        let shown = headers.get(AUTH_ID).map_or(&b""[..], |value| value.as_bytes());
        hash(shown).ct_eq(&self.auth_id).into()
    }
}

fn hash(text: &[u8]) -> [u8; 32] {
    Sha256::digest(text).into()
}

fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

async fn whole(body: Body) -> Result<Bytes, Outcome> {
    let (mut pieces, mut whole) = (body.into_data_stream(), BytesMut::new());
    while let Some(piece) = pieces.next().await {
        // The connection broke off; nobody will read the answer.
        let piece = piece.map_err(|_| Outcome::Unreadable)?;
        if BODY_MAX < whole.len() + piece.len() {
            return Err(Outcome::TooLarge);
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole.freeze())
}

/// `{"validationCode":"…"}`: a validation whose header got lost on the way.
fn is_validation(body: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Validation {
        #[serde(rename = "validationCode")]
        _code: String,
    }
    serde_json::from_slice::<Validation>(body).is_ok()
}

/// Counted without keeping any of them. What is no array is for the [`Take`] to refuse.
fn has_too_many(body: &[u8]) -> bool {
    struct Count<'a>(&'a mut usize);
    impl<'de> Visitor<'de> for Count<'_> {
        type Value = ();

        fn expecting(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
            text.write_str("an array")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
            while *self.0 <= ENTRIES_MAX && entries.next_element::<IgnoredAny>()?.is_some() {
                *self.0 += 1;
            }
            Ok(())
        }
    }
    let mut entries = 0;
    // Ends in a fault where the body is none or was left early; what counts is how many there were until then.
    let _ = serde_json::Deserializer::from_slice(body).deserialize_seq(Count(&mut entries));
    ENTRIES_MAX < entries
}

#[cfg(test)]
mod tests;
