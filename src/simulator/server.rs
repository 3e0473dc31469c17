//! Two ports and what they share: the API with its token endpoint, and the control port beside it.

use std::{
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::Context;
use axum::{
    Router,
    body::Body,
    extract::{DefaultBodyLimit, Path, State},
    http::{HeaderMap, Method, Response, Uri, header},
    routing::{any, post},
};
use bytes::Bytes;
use jiff::Timestamp;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;
use url::Url;
use uuid::Uuid;

use super::{
    answer::{Answer, Ending, Wire, accepts_gzip, skewed},
    clock::Running,
    control::{self, Control},
    counts::{Counter, Counts, Operation},
    fault::{Failure, FaultBook},
    feed::{self, Call},
    notifier,
    random::mix,
    scenario::{History, Live, Scenario, SourceScenario, TenantScenario},
    source::SimSource,
    token::{self, Tokens, Version},
    truth::Truth,
    webhook::Notifier,
};
use crate::domain::{ContentType, Source, TenantId};

/// A running simulator. Dropping it stops it.
#[derive(Debug)]
pub struct Simulator {
    shared: Arc<Shared>,
    control_root: Url,
    servers: JoinSet<std::io::Result<()>>,
}

/// One tenant, running.
#[derive(Debug)]
pub(super) struct SimTenant {
    pub(super) scenario: TenantScenario,
    /// One for each of [`ContentType::ALL`], in that order.
    pub(super) sources: Vec<Arc<SimSource>>,
}

/// What every request sees.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) seed: u64,
    pub(super) clock: Running,
    pub(super) root: Url,
    pub(super) tenants: Vec<Arc<SimTenant>>,
    pub(super) faults: FaultBook,
    pub(super) counter: Counter,
    pub(super) tokens: Tokens,
    pub(super) notifier: Notifier,
    /// Made when the first webhook is called: most runs have none.
    pub(super) webhook_client: OnceLock<Result<reqwest::Client, String>>,
    date_skew: jiff::SignedDuration,
    gzip: bool,
    correlations: AtomicU64,
    pub(super) stop: CancellationToken,
}

impl Simulator {
    /// Binds both ports and serves until [`Self::shutdown`] or drop. Needs a tokio runtime.
    ///
    /// # Errors
    /// When a port cannot be bound.
    pub async fn start(scenario: Scenario) -> anyhow::Result<Self> {
        let bind = async |address: SocketAddr| {
            let listener =
                TcpListener::bind(address).await.with_context(|| format!("could not listen on {address}"))?;
            let root: Url = format!("http://{}", listener.local_addr()?).parse()?;
            anyhow::Ok((listener, root))
        };
        let (api, api_root) = bind(scenario.listen).await?;
        let (side, control_root) = bind(scenario.control).await?;
        let shared = Arc::new(Shared::new(scenario, api_root));
        let mut servers = JoinSet::new();
        for (listener, router) in [(api, router(&shared)), (side, control::router(&shared))] {
            let stop = shared.stop.clone();
            let server = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
            servers.spawn(server.into_future());
        }
        servers.spawn(notifier::run(Arc::clone(&shared)));
        Ok(Self { shared, control_root, servers })
    }

    /// The root of API and token endpoint: `http://127.0.0.1:8365/`.
    pub fn api_root(&self) -> Url {
        self.shared.root.clone()
    }

    /// The root of the control port.
    pub fn control_root(&self) -> Url {
        self.control_root.clone()
    }

    pub fn truth(&self) -> Truth {
        Truth(Arc::clone(&self.shared))
    }

    pub fn counts(&self) -> Counts {
        self.shared.counter.counts()
    }

    pub fn control(&self) -> Control {
        Control(Arc::clone(&self.shared))
    }

    /// The simulated present.
    pub fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    /// Stops listening, ends open requests and waits until both servers are gone.
    ///
    /// # Errors
    /// When a server had failed.
    pub async fn shutdown(mut self) -> anyhow::Result<()> {
        self.shared.stop.cancel();
        while let Some(ended) = self.servers.join_next().await {
            ended??;
        }
        Ok(())
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

impl Shared {
    fn new(scenario: Scenario, api_root: Url) -> Self {
        let clock = Running::new(scenario.clock);
        let start = clock.now();
        let tenants = scenario.tenants.into_iter().map(|tenant| Arc::new(SimTenant::new(scenario.seed, start, tenant)));
        Self {
            seed: scenario.seed,
            root: scenario.public_url.unwrap_or(api_root),
            tenants: tenants.collect(),
            faults: FaultBook::new(scenario.seed, scenario.faults),
            counter: Counter::default(),
            tokens: Tokens::default(),
            notifier: scenario.notifier,
            webhook_client: OnceLock::new(),
            date_skew: scenario.date_skew,
            gzip: scenario.gzip,
            correlations: AtomicU64::new(0),
            stop: CancellationToken::new(),
            clock,
        }
    }

    /// The tenant that a URL names: by its id, or by the client id where that is let through.
    pub(super) fn tenant(&self, text: &str) -> Option<&Arc<SimTenant>> {
        self.tenants.iter().find(|tenant| {
            let scenario = &tenant.scenario;
            scenario.id.to_string().eq_ignore_ascii_case(text)
                || (scenario.client_id_as_tenant && scenario.client_id.eq_ignore_ascii_case(text))
        })
    }

    pub(super) fn feed_url(&self, tenant: &SimTenant) -> String {
        self.feed_url_of(tenant.scenario.id)
    }

    pub(super) fn feed_url_of(&self, tenant: TenantId) -> String {
        format!("{}/api/v1.0/{tenant}/activity/feed", self.root.as_str().trim_end_matches('/'))
    }

    /// What the `Date` header says.
    pub(super) fn date(&self) -> Timestamp {
        skewed(self.clock.now(), self.date_skew)
    }

    /// A GUID that no other answer has.
    pub(super) fn correlation(&self) -> Uuid {
        let serial = self.correlations.fetch_add(1, Ordering::Relaxed);
        Uuid::from_u64_pair(mix(self.seed, &[12, serial]), mix(self.seed, &[13, serial]))
    }

    /// Counts the answer and puts it on the wire, or waits for the end when there is none.
    async fn send(
        &self,
        operation: Operation,
        answer: Option<Answer>,
        headers: &HeaderMap,
        open: super::counts::Open,
    ) -> Response<Body> {
        let Some(answer) = answer else {
            self.stop.cancelled().await;
            return Response::new(Body::empty());
        };
        tokio::time::sleep(answer.delay).await;
        let status = answer.status;
        self.counter.note(|counts| *counts.requests.entry((operation, status)).or_default() += 1);
        let wire = Wire {
            now: self.date(),
            correlation: self.correlation().to_string(),
            gzip: self.gzip && accepts_gzip(headers),
        };
        answer.respond(wire, open, self.stop.clone())
    }
}

impl SimTenant {
    fn new(seed: u64, start: Timestamp, scenario: TenantScenario) -> Self {
        let of = |kind: ContentType| {
            let named = scenario.sources.iter().find(|(named, _)| *named == kind);
            let source = named.map_or_else(nothing, |(_, source)| source.clone());
            Arc::new(SimSource::new(seed, start, Source { tenant: scenario.id, content_type: kind }, source))
        };
        Self { sources: ContentType::ALL.map(of).into(), scenario }
    }

    pub(super) fn source(&self, kind: ContentType) -> &Arc<SimSource> {
        self.sources.iter().find(|source| source.source.content_type == kind).expect("there is one for every type")
    }
}

/// A content type that is known and has no contents.
fn nothing() -> SourceScenario {
    let defaults = SourceScenario::default();
    SourceScenario {
        history: History { arrivals: 0, ..defaults.history },
        live: Live { arrivals_per_minute: 0.0, records: 0 },
        subscribed: false,
        ..defaults
    }
}

fn router(shared: &Arc<Shared>) -> Router {
    Router::new()
        .route("/{tenant}/oauth2/token", post(token_v1))
        .route("/{tenant}/oauth2/v2.0/token", post(token_v2))
        .route("/api/v1.0/{tenant}/activity/feed/subscriptions/{verb}", any(subscription))
        .route("/api/v1.0/{tenant}/activity/feed/audit/{content_id}", any(audit))
        .fallback(stranger)
        .layer(DefaultBodyLimit::max(64 * 1024))
        .with_state(Arc::clone(shared))
}

type Sim = State<Arc<Shared>>;

async fn token_v1(state: Sim, path: Path<String>, headers: HeaderMap, body: Bytes) -> Response<Body> {
    token(state.0, Version::V1, path.0, headers, body).await
}

async fn token_v2(state: Sim, path: Path<String>, headers: HeaderMap, body: Bytes) -> Response<Body> {
    token(state.0, Version::V2, path.0, headers, body).await
}

async fn token(
    shared: Arc<Shared>,
    version: Version,
    tenant: String,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let open = shared.counter.open();
    let issue = || token::answer(&shared, version, &tenant, &body);
    let answer = match shared.faults.failure(Operation::Token, &tenant) {
        None | Some((Failure::AuditOff | Failure::StrayLink, _)) => Some(issue()),
        Some((Failure::Code(number), _)) => Some(token::refused(&shared, number)),
        Some((Failure::Slow(ms), _)) => Some(issue().after(std::time::Duration::from_millis(ms.into()))),
        Some((Failure::Silence, _)) => None,
        Some((Failure::Status(status), _)) => Some(Answer::page(status)),
        Some((Failure::Denied, _)) => Some(Answer::page(401)),
        Some((Failure::Throttled(_), _)) => Some(Answer::page(429).header("retry-after", "1")),
        Some((Failure::Reset, _)) => Some(issue().ending(Ending::Reset)),
        Some((Failure::Stall, _)) => Some(issue().ending(Ending::Stall)),
        Some((Failure::ByteOrderMark, _)) => Some(issue().byte_order_mark()),
        Some((Failure::Close, _)) => Some(issue().header("connection", "close")),
    };
    shared.send(Operation::Token, answer, &headers, open).await
}

async fn subscription(
    State(shared): Sim,
    Path((tenant, verb)): Path<(String, String)>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let operation = match (method, verb.as_str()) {
        (Method::POST, "start") => Operation::Start,
        (Method::POST, "stop") => Operation::Stop,
        (Method::GET, "list") => Operation::Subscriptions,
        (Method::GET, "content") => Operation::Content,
        (Method::GET, "notifications") => Operation::Notifications,
        _ => Operation::Unknown,
    };
    shared.counter.note(|counts| match operation {
        Operation::Start => counts.starts += 1,
        Operation::Stop => counts.stops += 1,
        _ => {}
    });
    let query = Call::query(uri.query().unwrap_or(""));
    let call = Call { operation, tenant, content_id: String::new(), query, token: bearer(&headers), body };
    answer(shared, call, &headers).await
}

async fn audit(
    State(shared): Sim,
    Path((tenant, content_id)): Path<(String, String)>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response<Body> {
    let operation = if method == Method::GET { Operation::Blob } else { Operation::Unknown };
    let query = Call::query(uri.query().unwrap_or(""));
    let call = Call { operation, tenant, content_id, query, token: bearer(&headers), body: Bytes::new() };
    answer(shared, call, &headers).await
}

async fn answer(shared: Arc<Shared>, call: Call, headers: &HeaderMap) -> Response<Body> {
    let open = shared.counter.open();
    if let Some(tenant) = shared.tenant(&call.tenant).filter(|tenant| !tenant.scenario.latency.is_zero()) {
        tokio::time::sleep(tenant.scenario.latency).await;
    }
    let answer = feed::answer(&shared, &call).await;
    shared.send(call.operation, answer, headers, open).await
}

/// A path that this API does not have. A token that comes here went to the wrong place.
async fn stranger(State(shared): Sim, headers: HeaderMap) -> Response<Body> {
    let open = shared.counter.open();
    if bearer(&headers).is_some() {
        shared.counter.note(|counts| counts.tokens_on_unknown_paths += 1);
    }
    shared.send(Operation::Unknown, Some(Answer::page(404)), &headers, open).await
}

fn bearer(headers: &HeaderMap) -> Option<String> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
}
