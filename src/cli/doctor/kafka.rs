//! Probe 25: brokers, topics, transactions and our group.

use std::time::Duration;

use super::report::{Probe, Verdict, told};
use crate::{
    cli::config::counted,
    config::{Delivery, Settings},
    kafka::{self, BrokerVersion, Brokers, Group, Problem, Rehearsal, TopicError},
};

/// What was seen, each step only when the one before it went well.
pub(super) struct Seen {
    pub(super) brokers: Result<Brokers, String>,
    pub(super) topics: Option<Result<Vec<Problem>, String>>,
    pub(super) transaction: Option<Result<Rehearsal, String>>,
    pub(super) group: Option<Result<Group, String>>,
    /// Topics that --fix created.
    pub(super) created: Vec<String>,
}

/// Some questions to Kafka, each for `patience` at most. Changes nothing but, with `fix`, missing topics.
pub(super) async fn look(settings: &Settings, fix: bool, patience: Duration) -> Seen {
    let mut seen =
        Seen { brokers: Err(String::new()), topics: None, transaction: None, group: None, created: Vec::new() };
    let of = settings.kafka.clone();
    seen.brokers = blocking(move || kafka::brokers(&of, patience).map_err(|error| kafka::plain(&error))).await;
    if seen.brokers.is_err() {
        return seen;
    }
    let topics = kafka::inspect(settings).await;
    let missing = |topics: &Result<Vec<Problem>, TopicError>| -> Vec<String> {
        let problems = topics.iter().flatten();
        problems.filter(|problem| is_missing(problem)).map(|problem| problem.topic().to_owned()).collect()
    };
    seen.topics = Some(topics.as_ref().map(Clone::clone).map_err(|error| told(error)));
    let lacking = missing(&topics);
    if fix && !lacking.is_empty() {
        // What --fix is asked for is the operator's word, whatever kafka.create_topics says to the connector.
        let mut settings = settings.clone();
        settings.kafka.create_topics = true;
        let ensured = kafka::ensure(&settings).await;
        let after = kafka::inspect(&settings).await;
        let still = missing(&after);
        seen.created = lacking.into_iter().filter(|topic| !still.contains(topic)).collect();
        seen.topics = Some(match ensured {
            Ok(()) => Ok(Vec::new()),
            Err(TopicError::Unfit(problems)) => Ok(problems),
            Err(error) => Err(told(&error)),
        });
    }
    let of = settings.kafka.clone();
    let rehearsed = blocking(move || kafka::rehearse(&of, patience).map_err(|error| kafka::plain(&error))).await;
    seen.transaction = Some(rehearsed);
    let of = settings.kafka.clone();
    let group = blocking(move || kafka::group(&of, patience).map_err(|error| kafka::plain(&error))).await;
    seen.group = Some(group);
    seen
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, String> + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|lost| Err(lost.to_string()))
}

fn is_missing(problem: &Problem) -> bool {
    matches!(problem, Problem::Missing { .. })
}

pub(super) fn judge(seen: &Seen, settings: &Settings) -> Probe {
    let kafka = &settings.kafka;
    let brokers = match &seen.brokers {
        Ok(brokers) => brokers,
        Err(why) => {
            return Probe::of(25).find(
                Verdict::Failure,
                format!("no broker of {} answers: {why}", kafka.bootstrap_servers),
                "is Kafka running, and does kafka.bootstrap_servers reach it from here? TLS and SASL go into kafka.properties (security.protocol, sasl.mechanism, …)",
            );
        }
    };
    let mut probe = judge_brokers(Probe::of(25), brokers);
    probe = judge_topics(probe, seen, kafka.create_topics);
    probe = match &seen.transaction {
        Some(Ok(Rehearsal::Aborted { took })) => {
            probe.see(format!("an empty transaction was opened and aborted in {} ms", took.as_millis()))
        }
        Some(Ok(Rehearsal::Crossed)) => probe.find(
            Verdict::Note,
            "an empty transaction was cut short: another doctor on this slot opened one at the same moment",
            "",
        ),
        Some(Ok(Rehearsal::NotNeeded)) => probe.see("delivery is at_least_once: no transactions"),
        Some(Err(why)) => probe.find(
            Verdict::Failure,
            format!("an empty transaction failed: {why}"),
            format!(
                "the connector's user needs Write and Describe on transactional ids with the prefix {}/ (docs/kafka.md, Rights); a single broker needs transaction.state.log.replication.factor=1 and transaction.state.log.min.isr=1",
                kafka.group
            ),
        ),
        None => probe,
    };
    judge_group(probe, seen, &kafka.group, kafka.delivery)
}

fn judge_brokers(probe: Probe, brokers: &Brokers) -> Probe {
    let count = brokers.addresses.len();
    let text = format!("{}: {}", counted(count, "broker"), brokers.addresses.join(", "));
    // Fewer cannot lose one and still acknowledge writes by two.
    let probe = if count < 3 {
        probe.find(Verdict::Note, format!("{text}; production wants three or more"), "")
    } else {
        probe.see(text)
    };
    let probe = match &brokers.version {
        BrokerVersion::Protocol(version) if is_old(version) => probe.find(
            Verdict::Warning,
            format!("inter.broker.protocol.version is {version}"),
            "upgrade the brokers to 3.6 or later: older ones may leave a transaction open for ever, and readers wait at it",
        ),
        BrokerVersion::Protocol(version) => probe.see(format!("inter.broker.protocol.version is {version}")),
        BrokerVersion::FourOrLater => probe.see("the brokers are of version 4 or later"),
        BrokerVersion::Unknown => {
            probe.see("the brokers' version may not be read (DescribeConfigs on the cluster); it must be 3.6 or later")
        }
    };
    let unsafe_election = brokers
        .settings
        .iter()
        .any(|(name, value)| *name == "unclean.leader.election.enable" && value.eq_ignore_ascii_case("true"));
    let settings: Vec<String> = brokers.settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
    if unsafe_election {
        return probe.find(
            Verdict::Warning,
            settings.join(", "),
            "set unclean.leader.election.enable=false: with it a failing broker can take back what was committed",
        );
    }
    if settings.is_empty() { probe } else { probe.see(settings.join(", ")) }
}

/// `3.5-IV2`: older than 3.6 (docs/semantics.md, assumptions).
fn is_old(version: &str) -> bool {
    let mut parts = version.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) < (3, 6)
}

fn judge_topics(probe: Probe, seen: &Seen, creates: bool) -> Probe {
    let probe = seen.created.iter().fold(probe, |probe, topic| probe.see(format!("topic {topic} was created")));
    match &seen.topics {
        Some(Ok(problems)) if problems.is_empty() => probe.see("all topics are there, with settings that fit"),
        Some(Ok(problems)) => problems.iter().fold(probe, |probe, problem| {
            if is_missing(problem) && creates {
                let text = format!("topic {} is missing", problem.topic());
                return probe.find(
                    Verdict::Note,
                    text,
                    "`o365feed run` creates missing topics at its start; to create them now: `o365feed doctor --fix`",
                );
            }
            let text = problem.to_string();
            let (what, mend) = text.split_once("; ").unwrap_or((&text, ""));
            probe.find(Verdict::Failure, what, mend)
        }),
        Some(Err(why)) => probe.find(Verdict::Failure, why, "the rights of docs/kafka.md, Rights: Describe on topics"),
        None => probe,
    }
}

fn judge_group(probe: Probe, seen: &Seen, name: &str, delivery: Delivery) -> Probe {
    match &seen.group {
        Some(Ok(group)) if group.members > 0 => probe.see(format!(
            "group {name}: {}, {}, {} offsets behind on {} partitions{}",
            group.state,
            counted(group.members, "member"),
            group.lag,
            group.partitions,
            if delivery == Delivery::ExactlyOnce { " (each transaction leaves one, so it is never 0)" } else { "" }
        )),
        Some(Ok(group)) => probe.find(
            Verdict::Note,
            format!(
                "group {name}: no process runs; {} of {} partitions have an offset",
                group.committed, group.partitions
            ),
            "",
        ),
        Some(Err(why)) => probe.find(
            Verdict::Failure,
            format!("group {name} could not be read: {why}"),
            format!("the connector's user needs Read on the group {name} (docs/kafka.md, Rights)"),
        ),
        None => probe,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn brokers(count: usize) -> Brokers {
        let addresses = (0..count).map(|id| format!("kafka-{id}:9092")).collect();
        Brokers { addresses, version: BrokerVersion::FourOrLater, settings: Vec::new() }
    }

    fn judge(change: impl Fn(&mut Seen)) -> Probe {
        let mut seen = Seen {
            brokers: Ok(brokers(3)),
            topics: Some(Ok(Vec::new())),
            transaction: Some(Ok(Rehearsal::Aborted { took: Duration::from_millis(12) })),
            group: Some(Ok(Group { state: "Stable".to_owned(), members: 2, lag: 3, committed: 12, partitions: 12 })),
            created: Vec::new(),
        };
        change(&mut seen);
        super::judge(&seen, &Settings::with_defaults(Vec::new(), "feed-0"))
    }

    #[test]
    fn each_part_has_its_verdict() {
        let of = |change: fn(&mut Seen)| judge(change).verdict;
        assert_eq!(of(|_| ()), Verdict::Ok);
        assert_eq!(of(|seen| seen.brokers = Err("refused".to_owned())), Verdict::Failure);
        assert_eq!(of(|seen| seen.brokers = Ok(brokers(1))), Verdict::Note);
        let old = |version: &str| Ok(Brokers { version: BrokerVersion::Protocol(version.to_owned()), ..brokers(3) });
        assert_eq!(judge(|seen| seen.brokers = old("3.5-IV2")).verdict, Verdict::Warning);
        assert_eq!(judge(|seen| seen.brokers = old("3.6-IV2")).verdict, Verdict::Ok);
        assert_eq!(judge(|seen| seen.brokers = old("2.8")).verdict, Verdict::Warning);
        let elects = vec![("unclean.leader.election.enable", "true".to_owned())];
        assert_eq!(
            judge(|seen| seen.brokers = Ok(Brokers { settings: elects.clone(), ..brokers(3) })).verdict,
            Verdict::Warning
        );
        assert_eq!(of(|seen| seen.topics = Some(Err("not allowed".to_owned()))), Verdict::Failure);
        assert_eq!(of(|seen| seen.transaction = Some(Err("not allowed".to_owned()))), Verdict::Failure);
        assert_eq!(of(|seen| seen.transaction = Some(Ok(Rehearsal::NotNeeded))), Verdict::Ok);
        assert_eq!(of(|seen| seen.transaction = Some(Ok(Rehearsal::Crossed))), Verdict::Note);
        assert_eq!(of(|seen| seen.group = Some(Err("not allowed".to_owned()))), Verdict::Failure);
        assert_eq!(of(|seen| seen.group = Some(Ok(Group::default()))), Verdict::Note);
    }

    #[test]
    fn a_topic_that_is_missing_is_a_note_and_one_that_is_unfit_a_failure_with_its_line() {
        let missing = Problem::Missing { topic: "t".to_owned(), mend: "kafka-topics.sh --create".to_owned() };
        assert_eq!(judge(|seen| seen.topics = Some(Ok(vec![missing.clone()]))).verdict, Verdict::Note);
        let unfit = Problem::Setting {
            topic: "t".to_owned(),
            key: "cleanup.policy",
            found: "compact".to_owned(),
            needs: "it must be delete: why".to_owned(),
            mend: "kafka-configs.sh --alter".to_owned(),
        };
        let probe = judge(|seen| seen.topics = Some(Ok(vec![unfit.clone()])));
        assert_eq!(probe.verdict, Verdict::Failure);
        assert!(probe.advice[0].contains("kafka-configs.sh --alter"), "{:?}", probe.advice);
    }
}
