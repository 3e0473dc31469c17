//! The second port: truth and counts for whoever compares, faults and clock for whoever breaks things.

use std::{fmt, fmt::Write, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{Response, StatusCode, Uri, header},
    routing::{get, post},
};
use bytes::Bytes;
use futures_util::stream;
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::{
    fault::Faults,
    feed::Call,
    server::Shared,
    truth::{SourceTruth, Truth, TruthRecord},
};
use crate::domain::ContentType;

/// The levers of a running simulator. Cheap to clone.
#[derive(Clone)]
pub struct Control(pub(super) Arc<Shared>);

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Control")
    }
}

impl Control {
    /// Puts these faults in force instead of the present ones. Every request counts as not yet tried.
    pub fn set_faults(&self, faults: Faults) {
        self.0.faults.replace(faults);
    }

    pub fn faults(&self) -> Faults {
        self.0.faults.faults()
    }

    /// Disables the subscription to `kind` in every tenant, as an administrator does. A start enables it again.
    pub fn disable(&self, kind: ContentType) {
        let now = self.0.clock.now();
        self.0.tenants.iter().for_each(|tenant| tenant.source(kind).disable(now));
    }

    /// Has the contents that come late appear ([`super::SourceScenario::late`]), with the creation times that they always had.
    pub fn insert_late(&self) {
        let now = self.0.clock.now();
        self.0.tenants.iter().flat_map(|tenant| &tenant.sources).for_each(|source| source.insert_late(now));
    }

    /// Moves the simulated clock, real or virtual.
    pub fn advance(&self, span: SignedDuration) {
        self.0.clock.advance(span);
    }
}

/// The control port's answers are plain JSON, ndjson for records:
/// `GET /health /truth /truth/records?type=&offset=&limit= /counts`, `POST /late /faults /clock` (`{"advance_seconds":60}`).
pub(super) fn router(shared: &Arc<Shared>) -> Router {
    Router::new()
        .route("/health", get(async || reply(200, &json!({"status": "ok"}))))
        .route("/truth", get(truth))
        .route("/truth/records", get(records))
        .route("/counts", get(counts))
        .route("/late", post(late))
        .route("/faults", post(faults))
        .route("/clock", post(clock))
        .with_state(Arc::clone(shared))
}

type Sim = State<Arc<Shared>>;

async fn truth(State(shared): Sim) -> Response<Body> {
    let now = shared.clock.now();
    let sources = Truth(shared).records(now);
    let rows = sources.iter().map(|truth| {
        json!({
            "tenant": truth.source.tenant.to_string(),
            "contentType": truth.source.content_type.as_str(),
            "due": truth.due.len(),
            "excused": truth.excused.len(),
            "digest": hex(&truth.digest()),
        })
    });
    reply(200, &json!({"now": now.to_string(), "sources": rows.collect::<Value>()}))
}

/// One line a due record: its identity, its `Id` text, and the half SHA-256 of each form of its bytes.
async fn records(State(shared): Sim, uri: Uri) -> Response<Body> {
    let query = Call::query(uri.query().unwrap_or(""));
    let parameter = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let number = |name: &str, default: usize| parameter(name).map_or(Ok(default), str::parse);
    let (Ok(offset), Ok(limit)) = (number("offset", 0), number("limit", usize::MAX)) else {
        return reply(400, &json!({"error": "offset and limit are numbers"}));
    };
    let Some(Ok(kind)) = parameter("type").map(str::parse::<ContentType>) else {
        return reply(400, &json!({"error": "type is one of the five content types"}));
    };
    let tenant = parameter("tenant").map(str::to_lowercase);
    let is_asked = |truth: &SourceTruth| {
        truth.source.content_type == kind && tenant.as_ref().is_none_or(|id| truth.source.tenant.to_string() == *id)
    };
    let sources = Truth(shared).now().into_iter().filter(is_asked);
    let rows: Vec<TruthRecord> = sources.flat_map(|truth| truth.due).skip(offset).take(limit).collect();
    // A batch a chunk: hashing a million records takes its time, and none of it needs to wait in memory.
    let batches = (0..rows.len().div_ceil(BATCH)).map(move |batch| {
        let from = batch * BATCH;
        Ok::<_, std::io::Error>(lines(&rows[from..rows.len().min(from + BATCH)]))
    });
    let mut response = Response::new(Body::from_stream(stream::iter(batches)));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/x-ndjson"));
    response
}

const BATCH: usize = 200;

fn lines(records: &[TruthRecord]) -> Bytes {
    let mut text = String::new();
    for record in records {
        let hashes: Vec<String> = record.hashes().iter().map(|hash| hex(hash)).collect();
        let line = json!({"identity": hex(&record.identity.0), "key": record.key(), "sha256_half": hashes});
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{line}");
    }
    text.into()
}

async fn counts(State(shared): Sim) -> Response<Body> {
    let counts = shared.counter.counts();
    let requests = counts
        .requests
        .iter()
        .map(|((operation, status), count)| json!({"operation": operation.as_str(), "status": status, "count": count}));
    let minutes = counts.sliding_minute_max.iter().map(|((publisher, tenant), max)| {
        json!({"publisher": publisher.to_string(), "tenant": tenant.to_string(), "max": max})
    });
    let json = json!({
        "requests": requests.collect::<Value>(),
        "tokens": counts.tokens,
        "starts": counts.starts,
        "stops": counts.stops,
        "concurrentMax": counts.concurrent_max,
        "slidingMinuteMax": minutes.collect::<Value>(),
        "missingPublisher": counts.missing_publisher,
        "impatient": counts.impatient,
        "blobGets": counts.blob_gets,
        "validations": counts.validations,
        "notifications": counts.notifications,
        "announced": counts.announced.len(),
        "webhooksDisabled": counts.webhooks_disabled,
        "tokensOnUnknownPaths": counts.tokens_on_unknown_paths,
    });
    reply(200, &json)
}

async fn late(State(shared): Sim) -> Response<Body> {
    Control(shared).insert_late();
    reply(200, &json!({"status": "ok"}))
}

async fn faults(State(shared): Sim, body: Bytes) -> Response<Body> {
    match serde_json::from_slice::<Faults>(&body) {
        Ok(faults) => {
            shared.faults.replace(faults);
            reply(200, &json!({"status": "ok"}))
        }
        Err(why) => reply(400, &json!({"error": why.to_string()})),
    }
}

async fn clock(State(shared): Sim, body: Bytes) -> Response<Body> {
    let asked = serde_json::from_slice::<Value>(&body).ok();
    match asked.as_ref().and_then(|json| json.get("advance_seconds")).and_then(Value::as_i64) {
        Some(seconds) => {
            shared.clock.advance(SignedDuration::from_secs(seconds));
            reply(200, &json!({"now": shared.clock.now().to_string()}))
        }
        None => reply(400, &json!({"error": "advance_seconds is a whole number of seconds"})),
    }
}

fn reply(status: u16, json: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(json.to_string()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
