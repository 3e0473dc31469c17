//! What each topic must be.

use crate::{
    config::{Kafka, Settings},
    kafka::client::{SMALLEST_MESSAGE_LIMIT, largest_batch},
};

/// A topic as we would create it, and the limit that an existing one must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Planned {
    pub name: String,
    pub role: Role,
    pub partitions: i32,
    /// Settings of a topic that is created.
    pub config: Vec<(&'static str, String)>,
    /// `max.message.bytes` must be at least this.
    pub message_bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Listings,
    Ledger,
    Gaps,
    Output,
}

/// One day in milliseconds.
pub(super) const DAY: i64 = 24 * 60 * 60 * 1_000;

/// Longer than any content can be fetched, so that no listing vanishes before it is settled.
const LISTINGS_RETENTION: i64 = 21 * DAY;
/// The listings', a segment and a day: a listing never outlives the mark that settled it (docs/exactly-once.md, rule 14).
const LEDGER_RETENTION: i64 = LISTINGS_RETENTION + SEGMENT + DAY;
const GAPS_RETENTION: i64 = 90 * DAY;
const SEGMENT: i64 = DAY;

/// `max.message.bytes` of a topic that is created, unless records may be larger still.
const MESSAGE_BYTES: usize = 8 * 1024 * 1024;

/// All topics of these settings, each once: listings, ledger, gaps, then the outputs by name.
pub(super) fn topics(settings: &Settings) -> Vec<Planned> {
    let kafka = &settings.kafka;
    let internal = |name, role, partitions, retention: i64| {
        let mut config = vec![("cleanup.policy", "delete".to_owned()), ("retention.ms", retention.to_string())];
        if role != Role::Gaps {
            config.push(("message.timestamp.type", "LogAppendTime".to_owned()));
            config.push(("retention.bytes", "-1".to_owned()));
            config.push(("segment.ms", SEGMENT.to_string()));
        }
        planned(name, role, partitions, config, SMALLEST_MESSAGE_LIMIT)
    };
    let mut topics = vec![
        internal(kafka.listings_topic(), Role::Listings, kafka.partitions, LISTINGS_RETENTION),
        internal(kafka.ledger_topic(), Role::Ledger, kafka.partitions, LEDGER_RETENTION),
        internal(kafka.gaps_topic(), Role::Gaps, 1, GAPS_RETENTION),
    ];
    topics.extend(settings.record_topics().into_iter().map(|name| output(kafka, name)));
    topics
}

/// A topic for records.
pub(super) fn output(kafka: &Kafka, name: String) -> Planned {
    // Retention of the outputs is the operator's: the broker's default until somebody decides.
    planned(name, Role::Output, kafka.output_partitions, Vec::new(), largest_batch(kafka))
}

fn planned(
    name: String,
    role: Role,
    partitions: i32,
    mut config: Vec<(&'static str, String)>,
    message_bytes: usize,
) -> Planned {
    config.push(("max.message.bytes", MESSAGE_BYTES.max(message_bytes).to_string()));
    Planned { name, role, partitions, config, message_bytes }
}

#[cfg(test)]
pub(super) mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use saphyr::{LoadableYamlNode, YamlOwned};
    use uuid::Uuid;

    use super::*;
    use crate::{
        config::{
            Cloud, Credential, Dedupe, Fetch, Http, ListingSettings, Log, LogFormat, Quota, Recheck, Redact, StartFrom,
            Subscriptions, Tenant,
        },
        domain::{ContentType, Expression, Filter, PlanSettings, Route, TenantId},
        kafka::client,
    };

    #[test]
    fn tenants_share_the_outputs_unless_the_template_names_them() {
        let mut settings = settings();
        settings.tenants.push(tenant(2));
        let names = |settings: &Settings| topics(settings).into_iter().map(|topic| topic.name).collect::<Vec<_>>();
        assert_eq!(
            names(&settings),
            [
                "o365.feed.listings",
                "o365.feed.ledger",
                "o365.feed.gaps",
                "o365.audit.azureactivedirectory",
                "o365.audit.exchange",
                "o365.audit.general",
                "o365.audit.sharepoint",
                "o365.dlp.all",
            ]
        );
        settings.kafka.topic_template = "{prefix}.{tenant}.{content_type}".into();
        assert_eq!(names(&settings).len(), 3 + 2 * 5);
        let route = |topic: &str| Route { topic: topic.into(), records: Expression::parse("user = a").unwrap() };
        settings.filter.routes = vec![route("hot"), route("o365.cold")];
        assert_eq!(names(&settings).len(), 3 + 2 * 5 + 2);
        assert!(names(&settings).contains(&"hot".to_owned()));
    }

    #[test]
    fn a_topic_that_is_created_takes_the_largest_batch() {
        let mut settings = settings();
        for max_record_bytes in [64 << 10, 8 << 20, 900 << 20] {
            settings.kafka.max_record_bytes = max_record_bytes;
            for topic in topics(&settings) {
                let (_, limit) = topic.config.iter().find(|(key, _)| *key == "max.message.bytes").unwrap();
                assert!(limit.parse::<usize>().unwrap() >= topic.message_bytes.max(8 << 20), "{topic:?}");
            }
        }
    }

    #[test]
    fn the_topics_for_strimzi_are_those_that_would_be_created() {
        let text = include_str!("../../../deploy/strimzi/topics.yaml");
        let shipped = YamlOwned::load_from_str(text).unwrap().into_iter().map(|topic| {
            let (name, spec) = (&topic["metadata"]["name"], &topic["spec"]);
            let config = spec["config"].as_mapping().unwrap().iter().map(|(key, value)| (plain(key), plain(value)));
            (plain(name), plain(&spec["partitions"]), plain(&spec["replicas"]), config.collect())
        });
        // Three replicas, of which two must have a message before it counts.
        let planned = topics(&Settings::with_defaults(vec![tenant(1)], "here")).into_iter().map(|topic| {
            let config = topic.config.into_iter().map(|(key, value)| (key.to_owned(), value));
            let config = config.chain([("min.insync.replicas".to_owned(), "2".to_owned())]);
            (topic.name, topic.partitions.to_string(), "3".to_owned(), config.collect())
        });
        let planned: Vec<(_, _, _, BTreeMap<_, _>)> = planned.collect();
        assert_eq!(shipped.collect::<Vec<_>>(), planned);
    }

    fn plain(node: &YamlOwned) -> String {
        node.as_integer().map_or_else(|| node.as_str().unwrap().to_owned(), |number| number.to_string())
    }

    pub(in crate::kafka::topics) fn settings() -> Settings {
        let second = Duration::from_secs(1);
        Settings {
            tenants: vec![tenant(1)],
            subscriptions: Subscriptions::Manage,
            quota: Quota { requests_per_minute: 2_000 },
            listing: ListingSettings {
                plan: PlanSettings {
                    window: second,
                    poll_interval: second,
                    overlap: second,
                    overlap_interval: second,
                    sweep_interval: second,
                    max_pending: 1,
                },
                start_from: StartFrom::Now,
            },
            fetch: Fetch { concurrency: 1, memory_bytes: 1, recheck: Recheck::Off },
            dedupe: Dedupe { window: second },
            filter: Filter::default(),
            redact: Redact::default(),
            kafka: client::tests::settings(),
            http: Http { listen: ([127, 0, 0, 1], 0).into() },
            webhook: crate::config::Webhook {
                enabled: false,
                listen: ([127, 0, 0, 1], 0).into(),
                public_url: None,
                auth_id: None,
                tls: None,
                missed_after: second,
            },
            log: Log { format: LogFormat::Text, level: "info".into() },
            traces: crate::config::Traces { otlp_endpoint: None },
        }
    }

    fn tenant(n: u128) -> Tenant {
        Tenant {
            id: TenantId(Uuid::from_u128(n)),
            name: n.to_string(),
            cloud: Cloud::Worldwide,
            api_root: "http://127.0.0.1".parse().unwrap(),
            authority: "http://127.0.0.1".parse().unwrap(),
            audience: String::new(),
            client_id: String::new(),
            credential: Credential::SecretFile("/nowhere".into()),
            content_types: ContentType::ALL.to_vec(),
            publisher_identifier: Uuid::from_u128(n),
        }
    }
}
