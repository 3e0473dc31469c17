//! What goes back to the caller: the envelopes of docs/api/contract.md 5, the headers of 3, and bodies that break.

use std::{io, iter, time::Duration};

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, Response, StatusCode, header},
};
use bytes::Bytes;
use futures_util::{StreamExt, future, stream};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{
    blob::{Blob, Cut},
    counts::Open,
    gzip::Gzip,
};

/// An answer before it is put on the wire.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    headers: Vec<(String, String)>,
    payload: Payload,
    ending: Ending,
    has_byte_order_mark: bool,
    /// Waited before it is sent.
    pub(super) delay: Duration,
}

#[derive(Debug)]
enum Payload {
    Text(String),
    Blob(Box<Blob>),
}

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Whole,
    /// Half of it, then the connection goes away.
    Reset,
    /// Half of it, then nothing.
    Stall,
}

impl Answer {
    pub(super) fn new(status: u16, content_type: &str, text: impl Into<String>) -> Self {
        Self {
            status,
            headers: vec![("content-type".to_owned(), content_type.to_owned())],
            payload: Payload::Text(text.into()),
            ending: Ending::Whole,
            has_byte_order_mark: false,
            delay: Duration::ZERO,
        }
    }

    pub(super) fn json(status: u16, json: &serde_json::Value) -> Self {
        Self::new(status, "application/json; charset=utf-8", json.to_string())
    }

    /// The error envelope.
    pub(super) fn error(status: u16, code: &str, message: impl AsRef<str>) -> Self {
        Self::json(status, &json!({"error": {"code": code, "message": message.as_ref()}}))
    }

    /// No token, or one that is not good for this API.
    pub(super) fn denied() -> Self {
        Self::json(401, &json!({"Message": "Authorization has been denied for this request."}))
            .header("WWW-Authenticate", "Bearer")
    }

    /// What a proxy in front says when the service is down.
    pub(super) fn page(status: u16) -> Self {
        Self::new(
            status,
            "text/html",
            format!("<html><body><h1>{status}</h1>The service is unavailable.</body></html>"),
        )
    }

    pub(super) fn blob(blob: Blob) -> Self {
        let mut answer = Self::new(200, "application/json; charset=utf-8", "");
        answer.payload = Payload::Blob(Box::new(blob));
        answer
    }

    pub(super) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub(super) fn ending(self, ending: Ending) -> Self {
        Self { ending, ..self }
    }

    pub(super) fn after(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    pub(super) fn byte_order_mark(self) -> Self {
        Self { has_byte_order_mark: true, ..self }
    }

    /// The answer on the wire. `open` is held until the body is out; `stop` ends what would never end.
    pub(super) fn respond(self, wire: Wire, open: Open, stop: CancellationToken) -> Response<Body> {
        let is_gzip = wire.gzip && self.ending == Ending::Whole;
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let common = [
            ("cache-control", "no-cache".to_owned()),
            ("pragma", "no-cache".to_owned()),
            ("expires", "-1".to_owned()),
            ("server", "Microsoft-IIS/10.0".to_owned()),
            ("x-aspnet-version", "4.0.30319".to_owned()),
            ("x-powered-by", "ASP.NET".to_owned()),
            ("mise-correlation-id", wire.correlation),
            ("date", http_date(wire.now)),
        ];
        let gzip = is_gzip.then(|| ("content-encoding".to_owned(), "gzip".to_owned()));
        let common = common.into_iter().map(|(name, value)| (name.to_owned(), value));
        for (name, value) in common.chain(self.headers).chain(gzip) {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                response.headers_mut().insert(name, value);
            }
        }
        if self.status == 204 {
            return response;
        }
        let chunks = chunks(self.payload, self.ending, self.has_byte_order_mark);
        let chunks: Box<dyn Iterator<Item = Bytes> + Send> = if is_gzip { Box::new(Gzip::new(chunks)) } else { chunks };
        *response.body_mut() = body(chunks, self.ending, open, stop);
        response
    }
}

/// What the server knows when it sends.
#[derive(Debug)]
pub(super) struct Wire {
    /// For the `Date` header.
    pub(super) now: Timestamp,
    pub(super) correlation: String,
    /// The caller accepts gzip and the scenario sends it.
    pub(super) gzip: bool,
}

/// As `Date` and `Retry-After` write it.
pub(super) fn http_date(at: Timestamp) -> String {
    at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// `now` shifted, for a skewed `Date`.
pub(super) fn skewed(now: Timestamp, skew: SignedDuration) -> Timestamp {
    now.checked_add(skew).unwrap_or(now)
}

type Chunks = Box<dyn Iterator<Item = Bytes> + Send>;

fn chunks(payload: Payload, ending: Ending, has_byte_order_mark: bool) -> Chunks {
    let mark = has_byte_order_mark.then(|| Bytes::from_static(b"\xEF\xBB\xBF"));
    let rest: Chunks = match (payload, ending) {
        (Payload::Text(text), Ending::Whole) => Box::new(iter::once(Bytes::from(text))),
        (Payload::Text(text), _) => {
            let half = Bytes::from(text);
            Box::new(iter::once(half.slice(..half.len() / 2)))
        }
        (Payload::Blob(blob), Ending::Whole) => Box::new(blob),
        (Payload::Blob(blob), _) => {
            let half = blob.records() / 2;
            Box::new(blob.cut(Cut::Inside(half)))
        }
    };
    Box::new(mark.into_iter().chain(rest))
}

fn body(chunks: Chunks, ending: Ending, open: Open, stop: CancellationToken) -> Body {
    let sent = stream::iter(chunks.map(Ok::<_, io::Error>));
    let last = stream::once(async move {
        match ending {
            Ending::Whole => return None,
            // Once to the scheduler and back, so that what was sent so far leaves before the connection does.
            Ending::Reset => tokio::task::yield_now().await,
            Ending::Stall => stop.cancelled().await,
        }
        Some(Err(io::Error::from(io::ErrorKind::ConnectionReset)))
    });
    let whole = sent.chain(last.filter_map(future::ready));
    Body::from_stream(whole.map(move |chunk| {
        let _open = &open;
        chunk
    }))
}

/// Whether the caller takes gzip.
pub(super) fn accepts_gzip(headers: &axum::http::HeaderMap) -> bool {
    headers.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).is_some_and(|text| text.contains("gzip"))
}
