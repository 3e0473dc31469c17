//! Reads the topics from their first offset on, as any consumer would, and counts each record.
//! It reads along all the time, because the mock broker keeps only the newest few megabytes of a partition.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{anyhow, bail};
use rdkafka::{
    Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaResult,
    message::BorrowedMessage,
};

use super::{
    glimpse::glimpse,
    verdict::{Counts, Found},
};
use crate::{
    config::{Kafka, Settings},
    domain::{ContentType, RecordId},
    kafka::{Role, client_config},
    simulator::half_hash,
};

/// The newest records are shown; so many of them.
pub const SHOWN: usize = 5;

/// How long the ends of the topics may take to be reached, once nobody writes any more: a transaction that was left open
/// ends by its time-out within it.
const TO_THE_END: Duration = Duration::from_secs(60);
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(100);

/// A reader at work on a thread of its own. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Reader(Arc<Shared>);

struct Shared {
    seen: Mutex<Seen>,
    /// Nobody writes any more: read to the ends, then stop.
    finish: AtomicBool,
    /// How it ended.
    thread: Mutex<Option<thread::JoinHandle<anyhow::Result<()>>>>,
}

#[derive(Default)]
struct Seen {
    records: Counts,
    open_gaps: HashSet<(Vec<u8>, Option<String>)>,
    newest: VecDeque<String>,
    /// Of [`Self::newest`], how many came since the view last asked.
    fresh: usize,
}

impl Reader {
    /// Starts to read the output topics and the gaps.
    ///
    /// # Errors
    /// When librdkafka refuses its settings.
    pub fn start(settings: &Settings) -> anyhow::Result<Self> {
        let topics = Topics::of(settings);
        let mut config = client_config(&settings.kafka, Role::CommittedReader);
        // A partition whose queue was full rests for a second by default. Tried: a thousand records a second from the mock, which
        // gives them in small batches, are then read far too late.
        config.set("fetch.queue.backoff.ms", "10");
        let consumer: BaseConsumer = config.create()?;
        consumer.assign(&topics.assignment()?)?;
        let shared =
            Arc::new(Shared { seen: Mutex::default(), finish: AtomicBool::new(false), thread: Mutex::default() });
        let (reader, kafka) = (Self(Arc::clone(&shared)), settings.kafka.clone());
        let reading = move || reader.read(&consumer, &topics, &kafka);
        let thread = thread::Builder::new().name("demo-reader".to_owned()).spawn(reading)?;
        *lock(&shared.thread) = Some(thread);
        Ok(Self(shared))
    }

    /// The newest records in a line each, oldest first, and how many of them are new since the last call.
    pub fn newest(&self) -> (Vec<String>, usize) {
        let mut seen = lock(&self.0.seen);
        let fresh = std::mem::take(&mut seen.fresh);
        (seen.newest.iter().cloned().collect(), fresh)
    }

    /// Whether all of `due` was read.
    pub fn has_seen(&self, due: &Counts) -> bool {
        let seen = lock(&self.0.seen);
        due.iter().all(|(record, times)| seen.records.get(record).is_some_and(|found| times <= found))
    }

    /// Reads to the ends and gives what was found. Call it when nobody writes any more; it blocks.
    ///
    /// # Errors
    /// When the ends are not reached: the broker is gone, or a transaction stayed open.
    pub fn finish(&self) -> anyhow::Result<Found> {
        self.0.finish.store(true, Ordering::Release);
        let thread = lock(&self.0.thread).take();
        if let Some(thread) = thread {
            thread.join().map_err(|_| anyhow!("could not read the topics: the reader ended by a panic"))??;
        }
        let mut seen = lock(&self.0.seen);
        Ok(Found { records: std::mem::take(&mut seen.records), gaps: seen.open_gaps.len() as u64 })
    }

    fn read(&self, consumer: &BaseConsumer, topics: &Topics, kafka: &Kafka) -> anyhow::Result<()> {
        while !self.0.finish.load(Ordering::Acquire) {
            self.take_next(consumer, topics);
        }
        let (ends, deadline) = (topics.ends(kafka)?, Instant::now() + TO_THE_END);
        while !are_reached(&ends, &consumer.position()?) {
            if Instant::now() > deadline {
                bail!("could not read the topics to their ends within {} s", TO_THE_END.as_secs());
            }
            self.take_next(consumer, topics);
        }
        Ok(())
    }

    /// Ends of partitions and faults that librdkafka mends itself come here too, and mean nothing.
    fn take_next(&self, consumer: &BaseConsumer, topics: &Topics) {
        if let Some(Ok(message)) = consumer.poll(POLL) {
            match topics.outputs.get(message.topic()) {
                Some(kind) => lock(&self.0.seen).record(*kind, &message),
                None => lock(&self.0.seen).gap(&message),
            }
        }
    }
}

impl Seen {
    fn record(&mut self, kind: ContentType, message: &BorrowedMessage<'_>) {
        let value = message.payload().unwrap_or_default();
        let key = message.key().and_then(|key| std::str::from_utf8(key).ok()).filter(|key| !key.is_empty());
        let identity = key.map_or_else(|| RecordId(half_hash(value)), RecordId::of_text);
        *self.records.entry((kind, identity)).or_default() += 1;
        if self.newest.len() == SHOWN {
            self.newest.pop_front();
        }
        self.newest.push_back(glimpse(value));
        self.fresh = (self.fresh + 1).min(self.newest.len());
    }

    /// A gap that closes is told a second time.
    fn gap(&mut self, message: &BorrowedMessage<'_>) {
        let told: serde_json::Value = serde_json::from_slice(message.payload().unwrap_or_default()).unwrap_or_default();
        let content = message.key().unwrap_or_default().to_vec();
        if told["closed"] == true {
            self.open_gaps.retain(|(other, _)| *other != content);
        } else {
            self.open_gaps.insert((content, told["record_id"].as_str().map(str::to_owned)));
        }
    }
}

/// What is read.
struct Topics {
    outputs: HashMap<String, ContentType>,
    partitions: Vec<(String, i32)>,
}

impl Topics {
    fn of(settings: &Settings) -> Self {
        let kafka = &settings.kafka;
        let of_tenant = |tenant: &crate::config::Tenant| {
            let kinds = tenant.content_types.iter();
            kinds.map(|kind| (kafka.output_topic(tenant.id, *kind), *kind)).collect::<Vec<_>>()
        };
        let outputs: HashMap<_, _> = settings.tenants.iter().flat_map(of_tenant).collect();
        let every = outputs.keys().flat_map(|topic| (0..kafka.output_partitions).map(|at| (topic.clone(), at)));
        let partitions = every.chain([(kafka.gaps_topic(), 0)]).collect();
        Self { outputs, partitions }
    }

    fn assignment(&self) -> KafkaResult<TopicPartitionList> {
        let mut list = TopicPartitionList::new();
        for (topic, partition) in &self.partitions {
            list.add_partition_offset(topic, *partition, Offset::Beginning)?;
        }
        Ok(list)
    }

    /// Where each partition that holds something ends now. Asked by a consumer that counts undecided transactions: the
    /// last one's marks may still be on their way.
    fn ends(&self, kafka: &Kafka) -> KafkaResult<HashMap<(String, i32), i64>> {
        let asking: BaseConsumer = client_config(kafka, Role::Watermarks).create()?;
        let mut ends = HashMap::new();
        for (topic, partition) in &self.partitions {
            let (low, high) = asking.fetch_watermarks(topic, *partition, ANSWER_WITHIN)?;
            if low < high {
                ends.insert((topic.clone(), *partition), high);
            }
        }
        Ok(ends)
    }
}

fn are_reached(ends: &HashMap<(String, i32), i64>, positions: &TopicPartitionList) -> bool {
    ends.iter().all(|((topic, partition), end)| {
        let at = positions.find_partition(topic, *partition).map(|position| position.offset());
        matches!(at, Some(Offset::Offset(at)) if *end <= at)
    })
}

/// Counts are changed in single steps, so a panic elsewhere leaves them whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
