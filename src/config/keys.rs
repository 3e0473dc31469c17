//! Every key, once: reading, the environment's names, the example, the settings table and the refusal of unknown keys follow from here.

use std::time::Duration;

use super::kind::Kind::{self, *};

/// One key of the settings.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    /// Parts with dots between; `tenants[]` stands for each tenant.
    pub(super) path: &'static str,
    pub(super) kind: Kind,
    pub(super) otherwise: Otherwise,
    /// One line, for the example and the table.
    pub(super) doc: &'static str,
}

/// What holds when the key is not written.
#[derive(Clone, Copy, Debug)]
pub(super) enum Otherwise {
    /// This value, as it would be written.
    Default(&'static str),
    /// Something that depends on other things, in words; then a value for the example.
    Follows(&'static str, &'static str),
    /// Nothing: it must be written; a value for the example.
    Required(&'static str),
    /// One of the keys of its group must be written; a value for the example.
    OneOf(&'static str),
}

use Otherwise::{Default, Follows, OneOf, Required};

/// What a group of keys is about.
pub(super) const GROUPS: &[(&str, &str)] = &[
    (
        "tenants",
        "The Microsoft 365 tenants to read. Without this, AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET make one.",
    ),
    ("tenants[].credential", "How the connector proves who it is: exactly one of these."),
    ("quota", "The budget of requests. Listing, fetching and retries all draw from it."),
    ("listing", "How the API is asked what there is."),
    ("fetch", "How contents are fetched."),
    ("dedupe", "How repeated records are recognised."),
    ("filter", "Which records are dropped, and which have a topic of their own (docs/filters.md)."),
    ("redact", "What is taken out of records."),
    ("kafka", "Where records go, and where all state is kept."),
    ("kafka.headers", "The headers that a record carries."),
    ("http", "Health and metrics: /livez, /readyz, /metrics."),
    (
        "webhook",
        "A receiver for the notifications of the service: faster news. Polling goes on beside it and needs none.",
    ),
    ("log", "Log lines, on standard error (docs/logs.md)."),
    ("traces", "Spans of listing, fetching and committing, for an OpenTelemetry collector (docs/logs.md)."),
];

const fn key(path: &'static str, kind: Kind, otherwise: Otherwise, doc: &'static str) -> Key {
    Key { path, kind, otherwise, doc }
}

const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

const fn s(count: u64) -> Duration {
    Duration::from_secs(count)
}

const MINUTE: u64 = 60;
const HOUR: u64 = 3_600;
const DAY: u64 = 86_400;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

#[rustfmt::skip]
pub(super) const KEYS: &[Key] = &[
    key("tenants[].id", Guid, Required("7f3c1f6e-5a0b-4d5e-9c7a-0c0a17e50001"), "The tenant's GUID (directory id)."),
    key("tenants[].name", Text, Follows("the id", "contoso"), "Label in metrics and logs."),
    key("tenants[].cloud", Choice(&["worldwide", "gcc", "gcc_high", "dod", "china"]), Default("worldwide"), "Which Microsoft cloud; sets the three addresses below."),
    key("tenants[].api_root", Origin, Follows("the cloud's", "https://manage.office.com"), "Address of the Management Activity API."),
    key("tenants[].authority", Origin, Follows("the cloud's", "https://login.microsoftonline.com"), "Address of the login service."),
    key("tenants[].audience", Text, Follows("the cloud's", "https://manage.office.com"), "What the token is asked for."),
    key("tenants[].allow_http", Flag, Default("false"), "Allow plain http to other machines: tokens and records then travel unencrypted. To this machine it is always allowed."),
    key("tenants[].client_id", Guid, Required("0c0a17e5-5a0b-4d5e-9c7a-7f3c1f6e0002"), "The application's GUID (client id)."),
    key("tenants[].credential.secret_file", File, OneOf("/run/secrets/o365feed/secret"), "File that holds the client secret; read again when it changes."),
    key("tenants[].credential.secret_env", Variable, Follows("none", "CONTOSO_CLIENT_SECRET"), "Or: the environment variable that holds the client secret."),
    key("tenants[].credential.certificate_file", File, Follows("none", "/run/secrets/o365feed/client.pem"), "Or: a file with a certificate that the application knows and its RSA key (PEM); read anew for every request."),
    key("tenants[].credential.password_file", File, Follows("none", "/run/secrets/o365feed/client.password"), "File that holds the password of the certificate's key, if it is encrypted."),
    key("tenants[].credential.federated_token_file", File, Follows("none", "/var/run/secrets/azure/tokens/azure-identity-token"), "Or: the file of a token that the application trusts (workload identity federation); read anew for every request."),
    key("tenants[].credential.managed_identity", Later, Follows("none", ""), "Managed identity: not supported yet."),
    key("tenants[].content_types", ContentTypes, Default("Audit.AzureActiveDirectory, Audit.Exchange, Audit.SharePoint, Audit.General, DLP.All"), "What to read. DLP.All needs the permission ActivityFeed.ReadDlp as well."),
    key("publisher_identifier", Guid, Follows("the tenant's id", "5b6d6a8e-2f0c-4a7e-8d52-1c9e4f7b0003"), "GUID that Microsoft counts the requests under."),
    key("subscriptions", Choice(&["manage", "leave"]), Default("manage"), "manage: start subscriptions that are missing or disabled. leave: never change any."),
    key("quota.requests_per_minute", Whole(60, 1_000_000), Default("2000"), "Requests a minute to one tenant; never exceeded in any 60 s."),
    key("listing.window", Span(s(MINUTE), s(23 * HOUR)), Default("1h"), "Span of time that one listing call asks for."),
    key("listing.poll_interval", Span(s(1), s(HOUR)), Default("60s"), "How often the newest part is listed."),
    key("listing.overlap", Span(s(10 * MINUTE), s(6 * DAY)), Default("3h"), "How far back the overlap pass lists again, for what appeared late."),
    key("listing.overlap_interval", Span(s(MINUTE), s(DAY)), Default("10m"), "How often it does."),
    key("listing.sweep_interval", Span(s(HOUR), s(6 * DAY)), Default("24h"), "How often all seven days are listed again."),
    key("listing.max_pending", Whole(1, 1_000_000), Default("1000"), "Contents of one source that may wait before all passes but the newest hold."),
    key("listing.start_from", Start, Default("earliest"), "Where a new source begins: earliest (seven days back), now, or a time."),
    key("fetch.concurrency", Whole(1, 1_024), Default("32"), "Contents fetched at once."),
    key("fetch.memory", Size(8 * MIB, 64 * GIB), Default("128MiB"), "Fetched bytes held in memory at once."),
    key("fetch.recheck", Choice(&["all", "sampled", "off"]), Default("sampled"), "Whether a content fetched soon after its creation is fetched once more, as it may have grown."),
    key("dedupe.window", Span(s(DAY), s(21 * DAY)), Default("8d"), "How long a record's id is remembered after it was last seen. Memory grows with it."),
    key("filter.drop", Expression, Follows("none", "operation in (FilePreviewed, \"Page Viewed\")"), "Records that are not published. They are known as filtered, so a later change does not bring them back; a replay does."),
    key("filter.route", Routes, Follows("none", "\"{prefix}.sharing\": operation = SharingSet"), "Topics, each with the records that go there and not into the topic of their content type; the first that matches has the record. Only in the file; {prefix} is filled in."),
    key("redact.sensitive_information_detections", Flag, Default("false"), "Replace the values of SensitiveInformationDetections, the clear text that DLP rules matched, by {}."),
    key("kafka.bootstrap_servers", Brokers, Default("localhost:9092"), "Brokers to begin with."),
    key("kafka.topic_prefix", Name, Default("o365"), "What the names of all topics begin with."),
    key("kafka.topic_template", Template, Default("{prefix}.{content_type}"), "Name of a record's topic; {tenant} is filled in too."),
    key("kafka.group", Name, Default("o365feed"), "Consumer group: processes of one group share the work."),
    key("kafka.slot", Name, Follows("the host name", "o365feed-0"), "This process's place in the group: no other process may have it, and the same one should have it again after a restart."),
    key("kafka.delivery", Choice(&["exactly_once", "at_least_once"]), Default("exactly_once"), "at_least_once is for brokers without transactions; records may repeat after a crash."),
    key("kafka.commit_interval", Span(ms(10), s(5 * MINUTE)), Default("1s"), "Longest time that published records wait for their commit."),
    key("kafka.transaction_timeout", Span(s(1), s(15 * MINUTE)), Default("15s"), "When the broker gives up a transaction whose process is gone."),
    key("kafka.session_timeout", Span(s(6), s(30 * MINUTE)), Default("30s"), "When the group gives up a process that is gone."),
    key("kafka.partitions", Whole(1, 10_000), Default("12"), "Partitions of the listings and the ledger, so the most processes that can share the work. Fixed for good."),
    key("kafka.output_partitions", Whole(1, 10_000), Default("6"), "Partitions of record topics that are created."),
    key("kafka.replication_factor", Whole(-1, 100), Default("-1"), "Replicas of topics that are created; -1 leaves it to the broker."),
    key("kafka.create_topics", Flag, Default("true"), "Create topics that are missing."),
    key("kafka.max_record_bytes", Size(64 * KIB, 900 * MIB), Default("8128KiB"), "Largest record (key, value and headers) that is sent; larger ones become a gap. Fits topics of 8 MiB."),
    key("kafka.headers.tenant_id", Flag, Default("true"), "The tenant's id."),
    key("kafka.headers.content_id", Flag, Default("true"), "The content it came in."),
    key("kafka.headers.record_type", Flag, Default("true"), "Its RecordType."),
    key("kafka.headers.workload", Flag, Default("true"), "Its Workload."),
    key("kafka.headers.operation", Flag, Default("true"), "Its Operation."),
    key("kafka.timestamp", Choice(&["published", "created"]), Default("published"), "created: the record's CreationTime; the topic's retention then counts from the event."),
    key("kafka.properties", Properties, Follows("none", "security.protocol: SASL_SSL"), "Any other librdkafka property, for example security.protocol or sasl.mechanism."),
    key("http.listen", Address, Default("127.0.0.1:9365"), "Where it is served; 0.0.0.0:9365 in a container."),
    key("webhook.enabled", Flag, Default("false"), "Receive notifications while `run` runs."),
    key("webhook.listen", Address, Default("127.0.0.1:9443"), "Where they come in; 0.0.0.0:9443 in a container."),
    key("webhook.public_url", Receiver, Follows("none", "https://feed.example.com/webhook"), "The address under which the service reaches it; what `subscriptions start --webhook` registers."),
    key("webhook.auth_id_file", File, Follows("none", "/run/secrets/o365feed/webhook-auth-id"), "File that holds the secret by which the service shows who it is (Webhook-AuthID). Needed when enabled, at least 16 characters."),
    key("webhook.auth_id_env", Variable, Follows("none", "WEBHOOK_AUTH_ID"), "Or: the environment variable that holds it."),
    key("webhook.certificate_file", File, Follows("none", "/run/secrets/o365feed/tls.crt"), "Certificate and chain (PEM), read again when it changes. Without: plain http, for an ingress that ends TLS."),
    key("webhook.key_file", File, Follows("none", "/run/secrets/o365feed/tls.key"), "Its private key (PEM, PKCS #8)."),
    key("webhook.missed_after", Span(s(1), s(DAY)), Default("1h"), "A content that polling found counts as missed when no notification named it within this."),
    key("log.format", Choice(&["text", "json"]), Default("text"), "text for people, json for machines."),
    key("log.level", Filter, Default("info"), "error, warn, info, debug or trace; by module: o365feed::api=debug,info; of Kafka: librdkafka=warn,info."),
    key("traces.otlp_endpoint", Collector, Follows("none", "http://localhost:4318"), "Where `run` sends spans: OTLP as protobuf over http; /v1/traces is added. Without: nowhere."),
];

/// The key of a path, be it of the table (`tenants[].id`) or of one tenant (`tenants[3].id`).
pub(super) fn find(path: &str) -> Option<&'static Key> {
    let general = generalised(path);
    KEYS.iter().find(|key| key.path == general)
}

/// Whether keys stand below `path`.
pub(super) fn is_group(path: &str) -> bool {
    let general = generalised(path);
    KEYS.iter().any(|key| key.path.strip_prefix(&general).is_some_and(|rest| rest.starts_with(['.', '['])))
}

/// `O365FEED_KAFKA__GROUP` for `kafka.group`; the first tenant stands for all.
pub(super) fn variable(path: &str) -> String {
    let path = path.replace("[]", "__0").replace('[', "__").replace(']', "");
    format!("{}{}", super::environment::PREFIX, path.replace('.', "__").to_uppercase())
}

/// `tenants[].id` for `tenants[3].id`.
fn generalised(path: &str) -> String {
    match (path.find('['), path.find(']')) {
        (Some(open), Some(close)) if open < close => format!("{}[]{}", &path[..open], &path[close + 1..]),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_and_every_example_is_a_good_value() {
        for key in KEYS.iter().filter(|key| !matches!(key.kind, Later | Properties | Routes)) {
            let (Default(text) | Follows(_, text) | Required(text) | OneOf(text)) = key.otherwise;
            let values = if key.kind.is_list() { text.split(',').collect() } else { vec![text] };
            for value in values {
                assert!(key.kind.read(value.trim()).is_ok(), "{}: {value}", key.path);
            }
        }
    }

    #[test]
    fn every_key_has_one_path_one_variable_and_a_group_that_is_explained() {
        for (at, key) in KEYS.iter().enumerate() {
            assert!(
                KEYS[..at].iter().all(|other| other.path != key.path && variable(other.path) != variable(key.path))
            );
            assert!(key.doc.ends_with('.') && !key.doc.contains('\n'), "{}", key.path);
            if let Some((group, _)) = key.path.rsplit_once('.') {
                assert!(GROUPS.iter().any(|(path, _)| *path == group.trim_end_matches("[]")), "{group}");
                assert!(is_group(group), "{group}");
            }
        }
        assert_eq!(variable("tenants[2].credential.secret_env"), "O365FEED_TENANTS__2__CREDENTIAL__SECRET_ENV");
    }
}
