//! Found against planned: what is wrong with the topics, and the line that mends it.

use std::collections::{BTreeMap, HashMap};

use rdkafka::error::RDKafkaErrorCode;

use super::plan::{DAY, Planned, Role};
use crate::config::Kafka;

/// Topics by name.
pub(super) type Topics = BTreeMap<String, Found>;

/// A topic that exists.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    pub partitions: usize,
    /// Every setting in effect, defaults included. Empty when they may not be read.
    pub config: HashMap<String, String>,
}

/// Something about a topic that a person must mend.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("topic {topic} is missing; create it with\n      {mend}")]
    Missing { topic: String, mend: String },
    #[error("topic {topic} is missing, and its creation was refused: {reason}")]
    NotCreated { topic: String, reason: RDKafkaErrorCode },
    #[error(
        "topic {topic} has {found} partitions, and kafka.partitions is {wanted}; a tenant's partition follows from that \
         number, so set kafka.partitions to that of listings and ledger, or choose another kafka.topic_prefix"
    )]
    Partitions { topic: String, found: usize, wanted: i32 },
    #[error("the settings of topic {topic} cannot be read; the connector's user needs DescribeConfigs on it")]
    Unreadable { topic: String },
    #[error("topic {topic} has {key}={found}, but {needs}; mend it with\n      {mend}")]
    Setting { topic: String, key: &'static str, found: String, needs: String, mend: String },
}

impl Problem {
    pub fn topic(&self) -> &str {
        match self {
            Self::Missing { topic, .. }
            | Self::NotCreated { topic, .. }
            | Self::Partitions { topic, .. }
            | Self::Unreadable { topic }
            | Self::Setting { topic, .. } => topic,
        }
    }
}

/// Everything that is wrong, in the order of the plan.
pub(super) fn check(settings: &Kafka, planned: &[Planned], found: &Topics) -> Vec<Problem> {
    let retention_needed = ledger_retention(planned, found);
    let mut problems = Vec::new();
    for plan in planned {
        let topic = plan.name.clone();
        match found.get(&plan.name) {
            None => problems.push(Problem::Missing { topic, mend: creation(settings, plan) }),
            Some(there) => {
                problems.extend(partitions(plan, there));
                if there.config.is_empty() {
                    problems.push(Problem::Unreadable { topic });
                } else {
                    let topic = Topic { settings, plan, there };
                    problems.extend(topic.unfit_settings(retention_needed));
                }
            }
        }
    }
    problems
}

/// Only listings and ledger have a number that matters (docs/exactly-once.md, rule 17).
fn partitions(plan: &Planned, there: &Found) -> Option<Problem> {
    let matters = matches!(plan.role, Role::Listings | Role::Ledger);
    let right = usize::try_from(plan.partitions) == Ok(there.partitions);
    (matters && !right).then(|| Problem::Partitions {
        topic: plan.name.clone(),
        found: there.partitions,
        wanted: plan.partitions,
    })
}

/// What the ledger must keep, given how long the listings live: theirs, one of their segments and a day (rule 14).
fn ledger_retention(planned: &[Planned], found: &Topics) -> Option<Span> {
    let listings = planned.iter().find(|plan| plan.role == Role::Listings)?;
    let listings = found.get(&listings.name)?;
    let number = |key: &str| listings.config.get(key)?.parse::<i64>().ok();
    Some(match (Span::of(number("retention.ms")?), Span::of(number("segment.ms")?)) {
        (Span::Milliseconds(retention), Span::Milliseconds(segment)) => {
            Span::Milliseconds(retention.saturating_add(segment).saturating_add(DAY))
        }
        _ => Span::Forever,
    })
}

/// A retention; the broker's -1 is longer than any number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Span {
    Milliseconds(i64),
    Forever,
}

impl Span {
    fn of(setting: i64) -> Self {
        if setting < 0 { Self::Forever } else { Self::Milliseconds(setting) }
    }

    fn as_setting(self) -> String {
        match self {
            Self::Milliseconds(span) => span.to_string(),
            Self::Forever => "-1".to_owned(),
        }
    }
}

/// An existing topic beside its plan.
struct Topic<'a> {
    settings: &'a Kafka,
    plan: &'a Planned,
    there: &'a Found,
}

impl Topic<'_> {
    fn unfit_settings(&self, retention_needed: Option<Span>) -> Vec<Problem> {
        let mut problems = Vec::new();
        if matches!(self.plan.role, Role::Listings | Role::Ledger) {
            let kept = "the connector's state must be kept whole until its time has passed";
            let clock = "its age must not depend on the clock of who wrote to it";
            problems.extend(self.must_be("cleanup.policy", "delete", kept));
            problems.extend(self.must_be("retention.bytes", "-1", kept));
            problems.extend(self.must_be("message.timestamp.type", "LogAppendTime", clock));
        }
        if let (Role::Ledger, Some(needed)) = (self.plan.role, retention_needed) {
            problems.extend(self.must_keep(needed));
        }
        problems.extend(self.must_take(self.plan.message_bytes));
        problems
    }

    fn must_be(&self, key: &'static str, wanted: &str, because: &str) -> Option<Problem> {
        (self.value(key) != wanted).then(|| self.problem(key, wanted, format!("it must be {wanted}: {because}")))
    }

    fn must_keep(&self, needed: Span) -> Option<Problem> {
        let kept = self.value("retention.ms").parse().map(Span::of);
        let enough = kept.is_ok_and(|kept| kept >= needed);
        let needed = needed.as_setting();
        (!enough).then(|| {
            let needs = format!("{needed} is needed: retention.ms and segment.ms of the listings and one day");
            self.problem("retention.ms", &needed, needs)
        })
    }

    fn must_take(&self, bytes: usize) -> Option<Problem> {
        let enough = self.value("max.message.bytes").parse().is_ok_and(|limit: usize| limit >= bytes);
        let needs = || match self.plan.role {
            Role::Output => format!("a batch may have {bytes} bytes (or lower kafka.max_record_bytes)"),
            Role::Listings | Role::Ledger | Role::Gaps => format!("a batch may have {bytes} bytes"),
        };
        (!enough).then(|| self.problem("max.message.bytes", &bytes.to_string(), needs()))
    }

    fn value(&self, key: &str) -> &str {
        self.there.config.get(key).map_or("", String::as_str)
    }

    fn problem(&self, key: &'static str, wanted: &str, needs: String) -> Problem {
        let (topic, servers) = (&self.plan.name, &self.settings.bootstrap_servers);
        let mend = format!(
            "kafka-configs.sh --bootstrap-server {servers} --alter --entity-type topics --entity-name {topic} \
             --add-config {key}={wanted}"
        );
        Problem::Setting { topic: topic.clone(), key, found: self.value(key).to_owned(), needs, mend }
    }
}

/// The line that creates a topic as we would.
fn creation(settings: &Kafka, plan: &Planned) -> String {
    let mut line = format!(
        "kafka-topics.sh --bootstrap-server {} --create --topic {} --partitions {}",
        settings.bootstrap_servers, plan.name, plan.partitions
    );
    if settings.replication_factor > 0 {
        line += &format!(" --replication-factor {}", settings.replication_factor);
    }
    for (key, value) in &plan.config {
        line += &format!(" --config {key}={value}");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::topics::plan::{self, tests::settings};

    #[test]
    fn topics_as_we_create_them_are_fit() {
        assert_eq!(problems(|_| ()), []);
    }

    #[test]
    fn everything_is_reported_at_once_with_the_line_that_mends_it() {
        let found = problems(|topics| {
            topics.remove("o365.dlp.all");
            topics.get_mut("o365.feed.listings").unwrap().partitions = 24;
            topics.get_mut("o365.feed.gaps").unwrap().config.clear();
            set(topics, "o365.feed.ledger", "message.timestamp.type", "CreateTime");
            set(topics, "o365.audit.exchange", "max.message.bytes", "1048588");
        });
        let texts: Vec<_> = found.iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), 5, "{texts:#?}");
        for (text, part) in texts.iter().zip([
            "has 24 partitions, and kafka.partitions is 12",
            "--entity-name o365.feed.ledger --add-config message.timestamp.type=LogAppendTime",
            "needs DescribeConfigs",
            "--entity-name o365.audit.exchange --add-config max.message.bytes=8392704",
            "kafka-topics.sh --bootstrap-server 127.0.0.1:1 --create --topic o365.dlp.all --partitions 6",
        ]) {
            assert!(text.contains(part), "{text}");
        }
    }

    /// Rule 14, whatever the operator keeps the listings for.
    #[test]
    fn the_ledger_outlives_the_listings_by_a_segment_and_a_day() {
        let fits = |listings: i64, segment: i64, ledger: i64| {
            problems(|topics| {
                set(topics, "o365.feed.listings", "retention.ms", &listings.to_string());
                set(topics, "o365.feed.listings", "segment.ms", &segment.to_string());
                set(topics, "o365.feed.ledger", "retention.ms", &ledger.to_string());
            })
            .is_empty()
        };
        assert!(fits(21 * DAY, DAY, 23 * DAY));
        assert!(!fits(21 * DAY, DAY, 23 * DAY - 1));
        assert!(!fits(21 * DAY, 7 * DAY, 23 * DAY));
        assert!(fits(10 * DAY, DAY, 12 * DAY));
        assert!(fits(i64::MAX, i64::MAX, -1));
        assert!(!fits(-1, DAY, 100_000 * DAY));
        assert!(fits(-1, DAY, -1));
    }

    #[test]
    fn each_setting_that_the_state_leans_on_is_looked_at() {
        for topic in ["o365.feed.listings", "o365.feed.ledger"] {
            for (key, value) in [
                ("cleanup.policy", "compact"),
                ("cleanup.policy", "compact,delete"),
                ("retention.bytes", "1073741824"),
                ("message.timestamp.type", "CreateTime"),
                ("max.message.bytes", "1000000"),
            ] {
                let found = problems(|topics| set(topics, topic, key, value));
                assert!(matches!(&found[..], [Problem::Setting { key: named, .. }] if *named == key), "{found:?}");
            }
        }
        assert_eq!(problems(|topics| set(topics, "o365.audit.exchange", "cleanup.policy", "compact")), []);
    }

    /// What is wrong after `change` was done to topics that are as we create them.
    fn problems(change: impl Fn(&mut Topics)) -> Vec<Problem> {
        let settings = settings();
        let planned = plan::topics(&settings);
        let mut topics: Topics = planned.iter().map(|plan| (plan.name.clone(), created(plan))).collect();
        change(&mut topics);
        check(&settings.kafka, &planned, &topics)
    }

    fn created(plan: &Planned) -> Found {
        let config = plan.config.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
        Found { partitions: plan.partitions as usize, config }
    }

    fn set(topics: &mut Topics, topic: &str, key: &str, value: &str) {
        topics.get_mut(topic).unwrap().config.insert(key.to_owned(), value.to_owned());
    }
}
