//! Sees that a partition is read no more although there is more in it. librdkafka (2.12) can lose a partition's leader for
//! good, without a word, when the brokers name none for a moment; another client finds it (docs/exactly-once.md, rule 26).

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    Statistics,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
};
use tracing::debug;

use super::client::{Role, client_config};
use crate::config::Kafka;

/// How far a member has read, as its statistics tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Reach {
    /// The offset that is to be fetched next; control records count. Negative while there is none.
    next: i64,
    /// Messages that were fetched and not taken yet.
    queued: i64,
}

/// What a member reads; its watch looks at it from another thread.
#[derive(Clone, Default)]
pub(super) struct Reading(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Partitions that are to be read: ours, and not paused.
    wanted: HashSet<i32>,
    reached: HashMap<i32, Reach>,
}

impl Reading {
    pub(super) fn wants(&self, partition: i32) {
        self.state().wanted.insert(partition);
    }

    pub(super) fn wants_not(&self, partition: i32) {
        self.state().wanted.remove(&partition);
    }

    pub(super) fn tell(&self, topic: &str, statistics: &Statistics) {
        let Some(of) = statistics.topics.get(topic) else { return };
        let reach = |partition: &rdkafka::statistics::Partition| Reach {
            next: partition.next_offset,
            queued: partition.fetchq_cnt,
        };
        self.state().reached = of.partitions.iter().map(|(number, partition)| (*number, reach(partition))).collect();
    }

    /// Partitions that are to be read and of which something is known.
    fn known(&self) -> HashMap<i32, Reach> {
        let state = self.state();
        state.wanted.iter().filter_map(|partition| Some((*partition, *state.reached.get(partition)?))).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How often is looked.
const LOOK: Duration = Duration::from_secs(10);

/// Longest wait for one answer of a broker.
const ANSWER: Duration = Duration::from_secs(10);

/// A partition that stands for less is not stuck, however short the session is.
const SHORTEST: Duration = Duration::from_secs(30);

/// Tells `stuck` of a partition whose reading stands for two sessions although another client sees more in it. Goes on in
/// a thread of its own until `stop`.
///
/// # Errors
/// When the other client cannot be made.
pub(super) fn watch(
    settings: &Kafka,
    reading: Reading,
    stop: Arc<AtomicBool>,
    stuck: impl Fn(i32) + Send + 'static,
) -> Result<(), KafkaError> {
    // Sees what the member may: its end is the last stable offset.
    let other: BaseConsumer = client_config(settings, Role::CommittedReader).create()?;
    let (topic, patience) = (settings.listings_topic(), SHORTEST.max(2 * settings.session_timeout));
    let end = move |partition| match other.fetch_watermarks(&topic, partition, ANSWER) {
        Ok((_, end)) => Some(end),
        Err(fault) => {
            debug!(partition, "could not ask where the listings end: {fault}");
            None
        }
    };
    let look = move || {
        let mut stands = HashMap::new();
        loop {
            for _ in 0..LOOK.as_secs() {
                if stop.load(Ordering::Acquire) {
                    return;
                }
                thread::sleep(Duration::from_secs(1));
            }
            let known = reading.known();
            stands.retain(|partition, _| known.contains_key(partition));
            for (partition, reach) in known {
                let stand: &mut Stand = stands.entry(partition).or_default();
                if stand.look(reach, Instant::now(), || end(partition)).is_some_and(|since| patience <= since) {
                    stuck(partition);
                    return;
                }
            }
        }
    };
    let started = thread::Builder::new().name("kafka-watch".to_owned()).spawn(look);
    started.map(drop).map_err(|error| KafkaError::ClientCreation(error.to_string()))
}

/// Where a partition stood at the last looks.
#[derive(Default)]
struct Stand {
    reach: Reach,
    /// When it was first seen that there is more.
    behind: Option<Instant>,
}

impl Stand {
    /// For how long it has stood still with more in it. Asks for the `end` of the partition only when it stands.
    fn look(&mut self, reach: Reach, now: Instant, end: impl FnOnce() -> Option<i64>) -> Option<Duration> {
        let stands = reach == self.reach && reach.queued == 0;
        self.reach = reach;
        if !stands {
            self.behind = None;
        } else if self.behind.is_none() {
            let more = end().is_some_and(|end| reach.next.max(0) < end);
            self.behind = more.then_some(now);
        }
        self.behind.map(|since| now.duration_since(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Reach = Reach { next: 7, queued: 0 };

    fn seconds(stand: &mut Stand, reach: Reach, now: Instant, end: Option<i64>) -> Option<u64> {
        stand.look(reach, now, || end).map(|stood| stood.as_secs())
    }

    #[test]
    fn it_stands_from_when_more_was_seen_until_it_moves() {
        let (mut stand, start) = (Stand::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(seconds(&mut stand, AT, at(0), Some(9)), None, "nothing to compare with");
        assert_eq!(seconds(&mut stand, AT, at(10), Some(7)), None, "all is read");
        assert_eq!(seconds(&mut stand, AT, at(20), None), None, "nobody answers");
        assert_eq!(seconds(&mut stand, AT, at(30), Some(8)), Some(0));
        assert_eq!(seconds(&mut stand, AT, at(40), None), Some(10), "it was seen once");
        let moved = Reach { next: 8, ..AT };
        assert_eq!(seconds(&mut stand, moved, at(50), Some(9)), None);
        assert_eq!(seconds(&mut stand, moved, at(60), Some(9)), Some(0));
        assert_eq!(seconds(&mut stand, moved, at(70), None), Some(10));
    }

    #[test]
    fn who_has_enough_in_the_queue_does_not_stand() {
        let (mut stand, now) = (Stand::default(), Instant::now());
        let full = Reach { next: 7, queued: 500 };
        for _ in 0..3 {
            assert_eq!(stand.look(full, now, || panic!("no need to ask")), None);
        }
    }

    #[test]
    fn a_partition_that_was_never_fetched_stands_when_there_is_something() {
        let (mut stand, now) = (Stand::default(), Instant::now());
        let none = Reach { next: -1001, queued: 0 };
        assert_eq!(seconds(&mut stand, none, now, Some(0)), None);
        assert_eq!(seconds(&mut stand, none, now, Some(0)), None, "an empty one");
        assert_eq!(seconds(&mut stand, none, now, Some(1)), Some(0));
    }

    #[test]
    fn only_what_is_wanted_and_told_of_is_known() {
        let reading = Reading::default();
        let mut statistics = Statistics::default();
        let mut topic = rdkafka::statistics::Topic::default();
        for number in [1, 2] {
            let partition = rdkafka::statistics::Partition { next_offset: 7, ..Default::default() };
            topic.partitions.insert(number, partition);
        }
        statistics.topics.insert("listings".to_owned(), topic);
        reading.tell("another", &statistics);
        [1, 3].into_iter().for_each(|partition| reading.wants(partition));
        assert!(reading.known().is_empty());
        reading.tell("listings", &statistics);
        assert_eq!(reading.known(), HashMap::from([(1, AT)]));
        reading.wants_not(1);
        assert!(reading.known().is_empty());
    }
}
