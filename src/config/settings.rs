//! The settings as the program uses them. Every value is valid by the time it is here.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::SocketAddr,
    path::PathBuf,
    time::Duration,
};

use jiff::Timestamp;
use secrecy::SecretString;
use url::Url;
use uuid::Uuid;

use crate::domain::{ContentType, Filter, PlanSettings, Source, TenantId};

/// Everything a process is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// At least one; ids differ.
    pub tenants: Vec<Tenant>,
    pub subscriptions: Subscriptions,
    pub quota: Quota,
    pub listing: ListingSettings,
    pub fetch: Fetch,
    pub dedupe: Dedupe,
    pub filter: Filter,
    pub redact: Redact,
    pub kafka: Kafka,
    pub http: Http,
    pub webhook: Webhook,
    pub log: Log,
    pub traces: Traces,
}

impl Settings {
    /// Each content type of each tenant, in the order of the settings.
    pub fn sources(&self) -> impl Iterator<Item = Source> + '_ {
        let of = |tenant: &Tenant, content_type| Source { tenant: tenant.id, content_type };
        self.tenants.iter().flat_map(move |tenant| tenant.content_types.iter().map(move |kind| of(tenant, *kind)))
    }

    /// Every topic that records may go to: those of the content types, and those of routes.
    pub fn record_topics(&self) -> BTreeSet<String> {
        let usual = self
            .tenants
            .iter()
            .flat_map(|tenant| tenant.content_types.iter().map(|kind| self.kafka.output_topic(tenant.id, *kind)));
        usual.chain(self.filter.routes.iter().map(|route| route.topic.clone())).collect()
    }
}

#[derive(Clone, Debug)]
pub struct Tenant {
    pub id: TenantId,
    /// Label in metrics. Default: the id.
    pub name: String,
    pub cloud: Cloud,
    /// `https://manage.office.com`: scheme, host and port, no path.
    pub api_root: Url,
    /// `https://login.microsoftonline.com`
    pub authority: Url,
    /// `https://manage.office.com`
    pub audience: String,
    pub client_id: String,
    pub credential: Credential,
    /// Not empty, no repeats, in the order of [`ContentType::ALL`].
    pub content_types: Vec<ContentType>,
    /// Sent with every call. Default: the tenant's id.
    pub publisher_identifier: Uuid,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cloud {
    Worldwide,
    Gcc,
    GccHigh,
    Dod,
    China,
}

/// How the connector proves who it is.
#[derive(Clone, Debug)]
pub enum Credential {
    /// Read again when a token is refused and when the file changes.
    SecretFile(PathBuf),
    /// Taken from an environment variable at start.
    Secret(SecretString),
    /// A token of another issuer that the application trusts. Others renew it, so it is read for every request.
    FederatedTokenFile(PathBuf),
    /// A certificate and its RSA key (PEM), and the file with the password of the key if it is encrypted. Read again
    /// for every request.
    Certificate { file: PathBuf, password: Option<PathBuf> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subscriptions {
    /// Start what is missing or disabled.
    Manage,
    Leave,
}

#[derive(Clone, Debug)]
pub struct Quota {
    /// Per publisher and tenant; at least 60. Never exceeded in any sliding minute.
    pub requests_per_minute: u32,
}

#[derive(Clone, Debug)]
pub struct ListingSettings {
    /// Its `window` is 1 min to 23 h.
    pub plan: PlanSettings,
    pub start_from: StartFrom,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartFrom {
    Earliest,
    Now,
    At(Timestamp),
}

#[derive(Clone, Debug)]
pub struct Fetch {
    /// Blobs fetched at once; at least 1.
    pub concurrency: usize,
    /// Bytes of blobs held in memory before they are handed to the producer.
    pub memory_bytes: usize,
    pub recheck: Recheck,
}

/// Whether a content fetched soon after its creation is fetched once more, because it may have grown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recheck {
    All,
    /// All, until 1,000 rechecks of a source found nothing; then 1 in 50 until one does.
    Sampled,
    Off,
}

#[derive(Clone, Debug)]
pub struct Dedupe {
    /// How long the id of a record is remembered after it was last seen; at least 1 d.
    pub window: Duration,
}

/// What is taken out of records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Redact {
    /// The clear text that DLP rules matched.
    pub sensitive_information_detections: bool,
}

#[derive(Clone)]
pub struct Kafka {
    pub bootstrap_servers: String,
    pub topic_prefix: String,
    /// `{prefix}.{content_type}` by default; `{tenant}` allowed.
    pub topic_template: String,
    pub group: String,
    /// `group.instance.id` and the tail of the `transactional.id`.
    pub slot: String,
    pub delivery: Delivery,
    pub commit_interval: Duration,
    pub transaction_timeout: Duration,
    pub session_timeout: Duration,
    /// Partitions of listings and ledger. Fixed for good.
    pub partitions: i32,
    /// Of topics that are created.
    pub output_partitions: i32,
    /// Of topics that are created; -1 leaves it to the broker.
    pub replication_factor: i32,
    pub create_topics: bool,
    /// The largest record (key, value and headers) that is sent.
    pub max_record_bytes: usize,
    pub headers: Headers,
    pub timestamp: TimestampSource,
    /// Any other librdkafka property; those that the commit protocol owns are refused.
    pub properties: BTreeMap<String, String>,
}

impl Kafka {
    pub fn listings_topic(&self) -> String {
        format!("{}.feed.listings", self.topic_prefix)
    }

    pub fn ledger_topic(&self) -> String {
        format!("{}.feed.ledger", self.topic_prefix)
    }

    pub fn gaps_topic(&self) -> String {
        format!("{}.feed.gaps", self.topic_prefix)
    }

    /// The topic that records of `content_type` go to.
    pub fn output_topic(&self, tenant: TenantId, content_type: ContentType) -> String {
        self.topic_template
            .replace("{prefix}", &self.topic_prefix)
            .replace("{content_type}", &content_type.as_str().to_lowercase())
            .replace("{tenant}", &tenant.to_string())
    }
}

/// Leaves out what the properties hold, because passwords are among them.
impl fmt::Debug for Kafka {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bootstrap_servers, topic_prefix, topic_template, group, slot, delivery, .. } = self;
        let Self { commit_interval, transaction_timeout, session_timeout, .. } = self;
        let Self { partitions, output_partitions, replication_factor, create_topics, .. } = self;
        let Self { max_record_bytes, headers, timestamp, properties, .. } = self;
        f.debug_struct("Kafka")
            .field("bootstrap_servers", bootstrap_servers)
            .field("topic_prefix", topic_prefix)
            .field("topic_template", topic_template)
            .field("group", group)
            .field("slot", slot)
            .field("delivery", delivery)
            .field("commit_interval", commit_interval)
            .field("transaction_timeout", transaction_timeout)
            .field("session_timeout", session_timeout)
            .field("partitions", partitions)
            .field("output_partitions", output_partitions)
            .field("replication_factor", replication_factor)
            .field("create_topics", create_topics)
            .field("max_record_bytes", max_record_bytes)
            .field("headers", headers)
            .field("timestamp", timestamp)
            .field("properties", &properties.keys())
            .finish()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    ExactlyOnce,
    AtLeastOnce,
}

/// Which headers a record carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    pub tenant_id: bool,
    pub content_id: bool,
    pub record_type: bool,
    pub workload: bool,
    pub operation: bool,
}

/// What a record's Kafka timestamp is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampSource {
    Published,
    /// The record's `CreationTime`: topic retention then counts from the event.
    Created,
}

#[derive(Clone, Debug)]
pub struct Http {
    pub listen: SocketAddr,
}

/// Where notifications come in, and under which name the service knows that place.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// Whether `run` receives them.
    pub enabled: bool,
    pub listen: SocketAddr,
    pub public_url: Option<Url>,
    /// There when `enabled`.
    pub auth_id: Option<AuthId>,
    /// None: plain http.
    pub tls: Option<Tls>,
    /// After which a content that polling found and no notification named counts as missed.
    pub missed_after: Duration,
}

/// The secret that the service sends with everything, so that we know it.
#[derive(Clone, Debug)]
pub enum AuthId {
    /// Read when it is needed.
    File(PathBuf),
    /// Taken from an environment variable at start.
    Text(SecretString),
}

/// PEM files; read again when they change.
#[derive(Clone, Debug)]
pub struct Tls {
    pub certificate_file: PathBuf,
    pub key_file: PathBuf,
}

#[derive(Clone, Debug)]
pub struct Log {
    pub format: LogFormat,
    /// A tracing filter: `info`, or `o365feed=debug,warn`.
    pub level: String,
}

/// Where spans go.
#[derive(Clone, Debug)]
pub struct Traces {
    /// Of an OpenTelemetry collector; `/v1/traces` comes behind it. None: nowhere.
    pub otlp_endpoint: Option<Url>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}
