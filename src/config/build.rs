//! From what was written to [`Settings`]: every key read, then the rules between keys.

use std::{collections::BTreeMap, time::Duration};

use super::{
    kind::{self, Kind, Value},
    reader::Reader,
    settings::{
        Dedupe, Delivery, Fetch, Headers, Http, Kafka, ListingSettings, Log, LogFormat, Quota, Recheck, Redact,
        Settings, Subscriptions, Tenant, TimestampSource, Traces,
    },
    units::{show_size, show_span},
    webhook,
};
use crate::{
    domain::{ContentType, Filter, PlanSettings, Route, TenantId},
    kafka::OWNED_PROPERTIES,
};

/// All settings. Faults are with the reader; the result counts only when there are none.
pub(super) fn settings(reader: &mut Reader, tenants: Vec<Tenant>, host_name: &str) -> Settings {
    let kafka = kafka(reader, host_name);
    let settings = Settings {
        tenants,
        subscriptions: match reader.value("subscriptions").text().as_str() {
            "leave" => Subscriptions::Leave,
            _ => Subscriptions::Manage,
        },
        quota: Quota { requests_per_minute: reader.value("quota.requests_per_minute").whole() },
        listing: listing(reader),
        fetch: Fetch {
            concurrency: reader.value("fetch.concurrency").whole(),
            memory_bytes: reader.value("fetch.memory").size(),
            recheck: match reader.value("fetch.recheck").text().as_str() {
                "all" => Recheck::All,
                "off" => Recheck::Off,
                _ => Recheck::Sampled,
            },
        },
        dedupe: Dedupe { window: reader.value("dedupe.window").span() },
        filter: filter(reader, &kafka),
        redact: Redact {
            sensitive_information_detections: reader.value("redact.sensitive_information_detections").flag(),
        },
        kafka,
        http: Http { listen: reader.value("http.listen").address() },
        webhook: webhook::webhook(reader),
        log: Log {
            format: match reader.value("log.format").text().as_str() {
                "json" => LogFormat::Json,
                _ => LogFormat::Text,
            },
            level: reader.value("log.level").text(),
        },
        traces: Traces { otlp_endpoint: reader.option("traces.otlp_endpoint").map(Value::origin) },
    };
    check(reader, &settings);
    settings
}

fn listing(reader: &mut Reader) -> ListingSettings {
    ListingSettings {
        plan: PlanSettings {
            window: reader.value("listing.window").span(),
            poll_interval: reader.value("listing.poll_interval").span(),
            overlap: reader.value("listing.overlap").span(),
            overlap_interval: reader.value("listing.overlap_interval").span(),
            sweep_interval: reader.value("listing.sweep_interval").span(),
            max_pending: reader.value("listing.max_pending").whole(),
        },
        start_from: reader.value("listing.start_from").start(),
    }
}

fn kafka(reader: &mut Reader, host_name: &str) -> Kafka {
    let brokers: Vec<String> = reader.list("kafka.bootstrap_servers").into_iter().map(Value::text).collect();
    Kafka {
        bootstrap_servers: brokers.join(","),
        topic_prefix: reader.value("kafka.topic_prefix").text(),
        topic_template: reader.value("kafka.topic_template").text(),
        group: reader.value("kafka.group").text(),
        slot: reader.option("kafka.slot").map_or_else(|| slot_of(host_name), Value::text),
        delivery: match reader.value("kafka.delivery").text().as_str() {
            "at_least_once" => Delivery::AtLeastOnce,
            _ => Delivery::ExactlyOnce,
        },
        commit_interval: reader.value("kafka.commit_interval").span(),
        transaction_timeout: reader.value("kafka.transaction_timeout").span(),
        session_timeout: reader.value("kafka.session_timeout").span(),
        partitions: reader.value("kafka.partitions").whole(),
        output_partitions: reader.value("kafka.output_partitions").whole(),
        replication_factor: reader.value("kafka.replication_factor").whole(),
        create_topics: reader.value("kafka.create_topics").flag(),
        max_record_bytes: reader.value("kafka.max_record_bytes").size(),
        headers: Headers {
            tenant_id: reader.value("kafka.headers.tenant_id").flag(),
            content_id: reader.value("kafka.headers.content_id").flag(),
            record_type: reader.value("kafka.headers.record_type").flag(),
            workload: reader.value("kafka.headers.workload").flag(),
            operation: reader.value("kafka.headers.operation").flag(),
        },
        timestamp: match reader.value("kafka.timestamp").text().as_str() {
            "created" => TimestampSource::Created,
            _ => TimestampSource::Published,
        },
        properties: properties(reader),
    }
}

fn filter(reader: &mut Reader, kafka: &Kafka) -> Filter {
    let drop = reader.option("filter.drop").map(Value::expression);
    let mut routes: Vec<Route> = Vec::new();
    for (written, (text, place)) in reader.written.routes.clone() {
        let path = format!("filter.route.{}", written.escape_debug());
        let topic = written.replace("{prefix}", &kafka.topic_prefix);
        let is_ours = [kafka.listings_topic(), kafka.ledger_topic(), kafka.gaps_topic()].contains(&topic);
        let fault = if !kind::is_name(&topic) {
            Some("is not a name that a topic can have; only `{prefix}` is filled in")
        } else if is_ours {
            Some("is where o365feed keeps its own state")
        } else if routes.iter().any(|route| route.topic == topic) {
            Some("stands here twice; join what goes there by `or`")
        } else {
            None
        };
        if let Some(fault) = fault {
            reader.faults.add(&place, &path, fault);
        }
        match Kind::Expression.read(&text) {
            Ok(records) => routes.push(Route { topic, records: records.expression() }),
            Err(fault) => reader.faults.add(&place, &path, fault),
        }
    }
    Filter { drop, routes }
}

/// A host name as Kafka takes it for a member's id.
fn slot_of(host_name: &str) -> String {
    let kept = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '-' };
    let slot: String = host_name.chars().map(kept).take(200).collect();
    if slot.chars().all(|c| c == '.') { "local".to_owned() } else { slot }
}

/// The key to use instead of a property that is ours. The others are left out.
const INSTEAD: &[(&str, &str)] = &[
    ("acks", "kafka.delivery"),
    ("bootstrap.servers", "kafka.bootstrap_servers"),
    ("enable.idempotence", "kafka.delivery"),
    ("group.id", "kafka.group"),
    ("group.instance.id", "kafka.slot"),
    ("message.max.bytes", "kafka.max_record_bytes"),
    ("metadata.broker.list", "kafka.bootstrap_servers"),
    ("queue.buffering.max.kbytes", "fetch.memory"),
    ("request.required.acks", "kafka.delivery"),
    ("session.timeout.ms", "kafka.session_timeout"),
    ("transaction.timeout.ms", "kafka.transaction_timeout"),
    ("transactional.id", "kafka.group and kafka.slot"),
];

/// The operator's properties; those that the Kafka room owns are refused here rather than passed over there.
fn properties(reader: &mut Reader) -> BTreeMap<String, String> {
    let written = reader.written.properties.clone();
    for (name, (_, place)) in written.iter().filter(|(name, _)| OWNED_PROPERTIES.contains(&name.as_str())) {
        let instead = INSTEAD.iter().find(|(owned, _)| owned == name);
        let hint = instead.map_or("leave it out".to_owned(), |(_, key)| format!("use {key}"));
        reader.faults.add(
            place,
            &format!("kafka.properties.{name}"),
            format!("is set by o365feed itself, because exactly-once depends on it; {hint}"),
        );
    }
    written.into_iter().map(|(name, (text, _))| (name, text)).collect()
}

fn check(reader: &mut Reader, settings: &Settings) {
    let Settings { listing, fetch, kafka, .. } = settings;
    if kafka.transaction_timeout <= kafka.commit_interval * 3 {
        let limit = show_span(kafka.transaction_timeout);
        reader.refuse(
            &["kafka.commit_interval", "kafka.transaction_timeout"],
            format!(
                "commit_interval must be less than a third of transaction_timeout ({limit}), or slow commits time out"
            ),
        );
    }
    let poll_limit = kafka.properties.get("max.poll.interval.ms").and_then(|text| text.parse().ok());
    let poll_limit = Duration::from_millis(poll_limit.unwrap_or(300_000)); // librdkafka's default
    if poll_limit < kafka.session_timeout {
        let limit = show_span(poll_limit);
        reader.refuse(&["kafka.session_timeout"], format!("must be at most max.poll.interval.ms ({limit})"));
    }
    if kafka.replication_factor == 0 {
        reader.refuse(&["kafka.replication_factor"], "`0` is no number of replicas; -1 leaves it to the broker");
    }
    if fetch.memory_bytes < kafka.max_record_bytes {
        let memory = show_size(fetch.memory_bytes as u64);
        reader.refuse(
            &["fetch.memory", "kafka.max_record_bytes"],
            format!("the largest record (kafka.max_record_bytes) must fit into fetch.memory ({memory})"),
        );
    }
    if listing.plan.overlap < listing.plan.overlap_interval {
        reader.refuse(
            &["listing.overlap", "listing.overlap_interval"],
            "overlap must be at least overlap_interval, or its passes leave holes",
        );
    }
    check_topics(reader, settings);
}

/// Every record topic must have a name that Kafka takes, and none may be a topic of ours.
fn check_topics(reader: &mut Reader, settings: &Settings) {
    let kafka = &settings.kafka;
    let longest = TenantId(uuid::Uuid::nil());
    for content_type in ContentType::ALL {
        let topic = kafka.output_topic(longest, content_type);
        if [kafka.listings_topic(), kafka.ledger_topic(), kafka.gaps_topic()].contains(&topic) {
            reader.refuse(
                &["kafka.topic_template", "kafka.topic_prefix"],
                format!("records would go into {topic}, where o365feed keeps its own state"),
            );
        }
        if 249 < topic.len() {
            let text = "the names of topics would be longer than the 249 characters that Kafka takes";
            reader.refuse(&["kafka.topic_template", "kafka.topic_prefix"], text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;

    #[test]
    fn every_property_that_the_kafka_room_owns_is_refused_and_no_other() {
        let faults = |name: &str| {
            let guid = "7f3c1f6e-5a0b-4d5e-9c7a-0c0a17e50001";
            let property = format!("O365FEED_KAFKA__PROPERTIES__{}", name.replace('.', "_").to_uppercase());
            let env = [
                ("AZURE_TENANT_ID", guid),
                ("AZURE_CLIENT_ID", guid),
                ("AZURE_CLIENT_SECRET", "s3cr3t"),
                (&property, "1"),
            ];
            load(None, env.map(|(name, text)| (name.to_owned(), text.to_owned())), "host").err()
        };
        for name in OWNED_PROPERTIES {
            let told = faults(name).expect(name).to_string();
            assert!(told.contains("is set by o365feed itself"), "{told}");
        }
        assert!(faults("linger.ms").is_none());
        assert!(INSTEAD.iter().all(|(name, _)| OWNED_PROPERTIES.contains(name)));
    }

    #[test]
    fn a_host_name_becomes_a_slot_that_kafka_takes() {
        assert_eq!(slot_of("feed-0.example.com"), "feed-0.example.com");
        assert_eq!(slot_of("Jos\u{e9}'s laptop"), "Jos--s-laptop");
        assert_eq!((slot_of(""), slot_of("..")), ("local".to_owned(), "local".to_owned()));
        assert_eq!(slot_of(&"x".repeat(999)).len(), 200);
    }
}
