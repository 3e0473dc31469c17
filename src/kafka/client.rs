//! One place that says how every Kafka client is configured, and which properties an operator may not touch.

use std::cmp::min;

use rdkafka::{
    ClientConfig,
    error::{KafkaError, RDKafkaErrorCode},
};

use crate::config::{Delivery, Kafka};

/// What a client is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Records, ledger entries and gaps; transactional unless the delivery is at-least-once.
    Publisher,
    /// Listings: idempotent, outside of any transaction (docs/exactly-once.md, rule 18).
    ListingsProducer,
    /// The group member that owns partitions and reads listings.
    GroupConsumer,
    /// Reads by `assign`: the ledger, and what the operator's tools look at. Never joins the group, sees committed records only.
    CommittedReader,
    /// Asks for high watermarks that count open transactions (rule 7): watermarks follow the isolation level.
    Watermarks,
    /// Creates and describes topics.
    Admin,
}

/// Properties that the commit protocol or a setting of ours decides; an operator's value for one is refused.
pub const OWNED_PROPERTIES: &[&str] = &[
    "acks",
    "allow.auto.create.topics",
    "auto.commit.enable",
    "auto.offset.reset",
    "batch.size",
    "bootstrap.servers",
    "client.id",
    "delivery.report.only.error",
    "delivery.timeout.ms",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.gapless.guarantee",
    "enable.idempotence",
    "enable.partition.eof",
    "group.id",
    "group.instance.id",
    "group.protocol",
    "group.remote.assignor",
    "isolation.level",
    "message.max.bytes",
    "message.timeout.ms",
    "metadata.broker.list",
    "offset.store.method",
    "partition.assignment.strategy",
    "partitioner",
    "queue.buffering.max.kbytes",
    "request.required.acks",
    "session.timeout.ms",
    "statistics.interval.ms",
    "transaction.timeout.ms",
    "transactional.id",
];

/// Names of one property: an operator who sets one of a row has decided the row. `ClientConfig` has no order, so
/// two names of one property in it would leave to chance which of them wins.
const SAME_PROPERTY: &[&[&str]] = &[
    &["compression.type", "compression.codec"],
    &["linger.ms", "queue.buffering.max.ms"],
    &["ssl.ca.location", "ssl.ca.pem", "ssl.ca.certificate.stores"],
    &["https.ca.location", "https.ca.pem"],
];

/// Bytes that a record batch and the record's own framing may add to key, value and headers of a record sent alone.
const FRAMING_BYTES: usize = 4 * 1024;

/// What a producer puts into one batch at most, unless a single record is larger. Brokers hold a batch, not a record,
/// against `max.message.bytes`, and take this by default.
const BATCH_BYTES: usize = 1_000_000;

/// Memory of a producer's queue; the reason why a slow broker cannot fill ours.
const QUEUE_KBYTES: usize = 64 * 1024;

/// How often a member tells how far it has read, in milliseconds.
const STATISTICS_MS: u32 = 5_000;

/// What `max.message.bytes` of an internal topic must be at least.
pub(super) const SMALLEST_MESSAGE_LIMIT: usize = BATCH_BYTES + FRAMING_BYTES;

/// The largest batch that is sent, and so what `max.message.bytes` of an output topic must be at least.
pub(super) fn largest_batch(settings: &Kafka) -> usize {
    settings.max_record_bytes.max(BATCH_BYTES) + FRAMING_BYTES
}

/// The configuration of a client: our defaults, then the operator's properties, then what we own.
pub fn client_config(settings: &Kafka, role: Role) -> ClientConfig {
    let mut config = ClientConfig::new();
    for (name, value) in &settings.properties {
        if !OWNED_PROPERTIES.contains(&name.as_str()) {
            config.set(name, value);
        }
    }
    // The TLS library is linked statically and knows no directory of authorities of its own.
    default(&mut config, "ssl.ca.location", "probe");
    default(&mut config, "https.ca.location", "probe");
    default(&mut config, "socket.keepalive.enable", "true");
    // Ten seconds by default: a broker that was restarted would be noticed that late.
    default(&mut config, "reconnect.backoff.max.ms", "1000");
    config
        .set("bootstrap.servers", &settings.bootstrap_servers)
        .set("client.id", format!("o365feed-{}-{}", env!("CARGO_PKG_VERSION"), settings.slot));
    match role {
        Role::Publisher => publisher(&mut config, settings),
        Role::ListingsProducer => listings_producer(&mut config, settings),
        Role::GroupConsumer => group_consumer(&mut config, settings),
        Role::CommittedReader => reader(&mut config, settings, "read_committed"),
        Role::Watermarks => reader(&mut config, settings, "read_uncommitted"),
        Role::Admin => {}
    }
    config
}

/// The `transactional.id` of a member. The separator keeps group `feed` on slot `eu-0` apart from group `feed-eu` on
/// slot `0`: with one id they would fence each other.
pub fn transactional_id(settings: &Kafka) -> String {
    format!("{}/{}", settings.group, settings.slot)
}

/// Sets a property that the operator left alone under any of its names.
fn default(config: &mut ClientConfig, name: &str, value: &str) {
    let names = SAME_PROPERTY.iter().find(|row| row.contains(&name)).copied().unwrap_or(&[]);
    if config.get(name).is_none() && names.iter().all(|other| config.get(other).is_none()) {
        config.set(name, value);
    }
}

fn publisher(config: &mut ClientConfig, settings: &Kafka) {
    producer(config, settings);
    default(config, "linger.ms", "20");
    // One blob can be thousands of records: bytes bound the memory, not this.
    default(config, "queue.buffering.max.messages", "500000");
    // The largest record must fit, and the next one beside it.
    let queue = QUEUE_KBYTES.max(2 * largest_batch(settings) / 1024);
    config
        .set("queue.buffering.max.kbytes", queue.to_string())
        .set("statistics.interval.ms", "15000")
        // One report a message costs as much as splitting it; what is in flight is counted without them.
        .set("delivery.report.only.error", "true");
    if settings.delivery == Delivery::ExactlyOnce {
        let timeout = settings.transaction_timeout.as_millis().to_string();
        config
            .set("transactional.id", transactional_id(settings))
            // A message that outlives its transaction is of no use, and librdkafka refuses a longer time.
            .set("message.timeout.ms", &timeout)
            .set("transaction.timeout.ms", &timeout);
    }
}

fn listings_producer(config: &mut ClientConfig, settings: &Kafka) {
    producer(config, settings);
    default(config, "linger.ms", "5");
    // An append that did not arrive leaves its window unread, so nothing is gained by waiting for long: less than the
    // webhook's receiver does, which would otherwise go before it hears that a producer is of no use any more.
    config
        .set("delivery.report.only.error", "false")
        .set("message.timeout.ms", "15000")
        .set("queue.buffering.max.kbytes", "16384");
}

fn producer(config: &mut ClientConfig, settings: &Kafka) {
    default(config, "compression.type", "lz4");
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        // Where a key goes is where Java's producer would put it.
        .set("partitioner", "murmur2_random")
        .set("batch.size", BATCH_BYTES.to_string())
        .set("message.max.bytes", largest_batch(settings).to_string());
}

fn group_consumer(config: &mut ClientConfig, settings: &Kafka) {
    consumer(config, "read_committed");
    let session = settings.session_timeout.as_millis();
    default(config, "heartbeat.interval.ms", &min(3_000, session / 3).to_string());
    config
        .set("group.id", &settings.group)
        // Static members close the hole of rule 3: the coordinator checks their id even at generation -1.
        .set("group.instance.id", &settings.slot)
        // The newer protocol turns a missed poll into a fatal error in this librdkafka.
        .set("group.protocol", "classic")
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("session.timeout.ms", session.to_string())
        .set("statistics.interval.ms", STATISTICS_MS.to_string());
}

/// Carries the group's name, because a consumer needs one and the operator's ACLs know this one, but no instance id:
/// it only ever uses `assign`, so it neither joins nor disturbs the group.
fn reader(config: &mut ClientConfig, settings: &Kafka, isolation: &str) {
    consumer(config, isolation);
    config
        .set("group.id", &settings.group)
        // No proof of the end (rule 7), but it wakes the reader to compare its position.
        .set("enable.partition.eof", "true");
}

fn consumer(config: &mut ClientConfig, isolation: &str) {
    // librdkafka's own values prefetch 100,000 messages and 64 MiB a partition.
    default(config, "queued.min.messages", "500");
    default(config, "queued.max.messages.kbytes", "4096");
    // A full queue is looked at again after a second by default, which makes a small one crawl.
    default(config, "fetch.queue.backoff.ms", "10");
    config
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "earliest")
        .set("allow.auto.create.topics", "false")
        .set("isolation.level", isolation);
}

/// Whether the broker's authorizer said no, which it will until a person gives the right.
pub fn refuses(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::TransactionalIdAuthorizationFailed
                | RDKafkaErrorCode::GroupAuthorizationFailed
                | RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::ClusterAuthorizationFailed
        )
    )
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use rdkafka::{
        admin::AdminClient,
        client::DefaultClientContext,
        consumer::BaseConsumer,
        producer::{DefaultProducerContext, ThreadedProducer},
    };

    use super::*;
    use crate::config::{Headers, TimestampSource};

    #[test]
    fn librdkafka_accepts_the_configuration_of_every_role() {
        for delivery in [Delivery::ExactlyOnce, Delivery::AtLeastOnce] {
            let settings = Kafka { delivery, ..settings() };
            for role in [Role::Publisher, Role::ListingsProducer] {
                drop(client_config(&settings, role).create::<ThreadedProducer<DefaultProducerContext>>().unwrap());
            }
            for role in [Role::GroupConsumer, Role::CommittedReader, Role::Watermarks] {
                client_config(&settings, role).create::<BaseConsumer>().unwrap();
            }
            client_config(&settings, Role::Admin).create::<AdminClient<DefaultClientContext>>().unwrap();
        }
    }

    #[test]
    fn librdkafka_knows_every_owned_property() {
        for name in OWNED_PROPERTIES {
            let outcome = ClientConfig::new().set(*name, "\u{1}").create_native_config();
            let text = outcome.err().map(|error| error.to_string()).unwrap_or_default();
            assert!(!text.contains("No such"), "{name}: {text}");
        }
    }

    #[test]
    fn the_operator_wins_over_a_default_under_either_name_and_never_over_the_protocol() {
        let mut settings = settings();
        for (name, value) in [("compression.codec", "zstd"), ("linger.ms", "50"), ("acks", "1"), ("ssl.ca.pem", "…")]
        {
            settings.properties.insert(name.into(), value.into());
        }
        let config = client_config(&settings, Role::Publisher);
        assert_eq!(config.get("compression.codec"), Some("zstd"));
        assert_eq!(config.get("compression.type"), None);
        assert_eq!(config.get("linger.ms"), Some("50"));
        assert_eq!(config.get("acks"), Some("all"));
        assert_eq!(config.get("ssl.ca.location"), None);
        assert_eq!(config.get("https.ca.location"), Some("probe"));
    }

    #[test]
    fn only_exactly_once_has_a_transactional_id() {
        let id = |delivery| {
            let settings = Kafka { delivery, ..settings() };
            client_config(&settings, Role::Publisher).get("transactional.id").map(str::to_owned)
        };
        assert_eq!(id(Delivery::ExactlyOnce).as_deref(), Some("o365feed/feed-0"));
        assert_eq!(id(Delivery::AtLeastOnce), None);
    }

    #[test]
    fn the_smallest_and_the_largest_record_limit_work_and_leave_room_for_a_ledger_entry() {
        for max_record_bytes in [64 << 10, 900 << 20] {
            let config = client_config(&Kafka { max_record_bytes, ..settings() }, Role::Publisher);
            let limit = |name| config.get(name).unwrap().parse::<usize>().unwrap();
            assert!(limit("message.max.bytes") >= max_record_bytes.max(20 * crate::kafka::Entry::MAX_IDS));
            assert!(limit("queue.buffering.max.kbytes") * 1024 > max_record_bytes);
            drop(config.create::<ThreadedProducer<DefaultProducerContext>>().unwrap());
        }
    }

    pub(in crate::kafka) fn settings() -> Kafka {
        Kafka {
            bootstrap_servers: "127.0.0.1:1".into(),
            topic_prefix: "o365".into(),
            topic_template: "{prefix}.{content_type}".into(),
            group: "o365feed".into(),
            slot: "feed-0".into(),
            delivery: Delivery::ExactlyOnce,
            commit_interval: Duration::from_secs(1),
            transaction_timeout: Duration::from_secs(15),
            session_timeout: Duration::from_secs(30),
            partitions: 12,
            output_partitions: 6,
            replication_factor: -1,
            create_topics: true,
            max_record_bytes: 8 << 20,
            headers: Headers { tenant_id: true, content_id: true, record_type: true, workload: true, operation: true },
            timestamp: TimestampSource::Published,
            properties: Default::default(),
        }
    }
}
