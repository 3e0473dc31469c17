//! What a consumer of the topics sees, from their first offset to their last.
//! All functions block; in a `#[tokio::test]` call them from `spawn_blocking` when something else must go on meanwhile.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use rdkafka::{
    Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, KafkaResult},
    message::{BorrowedMessage, Headers},
};

use crate::broker::client;

/// Longer than the time-out of a transaction that a killed producer left open.
const STUCK_AFTER: Duration = Duration::from_secs(60);
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// A record as it lies in Kafka. Sorts by where it lies.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Message {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Milliseconds since 1970, whoever set it.
    pub timestamp_ms: Option<i64>,
}

/// Everything that a `read_committed` consumer sees in `topics`, by topic, partition and offset.
///
/// Reads up to the high watermark of the moment of the call. A transaction that is open below it is waited
/// for, so that the answer is final.
///
/// # Panics
/// When a topic does not exist, or when nothing moves for a minute because a transaction stays open.
pub fn read_committed(bootstrap: &str, topics: &[String]) -> Vec<Message> {
    collect(bootstrap, topics, "read_committed")
}

/// Everything in `topics`, aborted and undecided records too: the proof that a test could have failed.
pub fn read_uncommitted(bootstrap: &str, topics: &[String]) -> Vec<Message> {
    collect(bootstrap, topics, "read_uncommitted")
}

/// Like [`read_committed`], for topics too large to keep: `take` sees each record once.
pub fn for_each_committed(bootstrap: &str, topics: &[String], take: impl FnMut(&BorrowedMessage<'_>)) {
    Unread::ask(bootstrap, topics).read("read_committed", take);
}

fn collect(bootstrap: &str, topics: &[String], isolation: &str) -> Vec<Message> {
    let mut all: Vec<Message> = Vec::new();
    Unread::ask(bootstrap, topics).read(isolation, |message| all.push(message.into()));
    all.sort_unstable();
    all
}

/// Where reading ends in each partition that it has not yet read to its end.
pub struct Unread {
    bootstrap: String,
    /// By topic, then by partition; `None` where the end was reached.
    ends: HashMap<String, Vec<Option<i64>>>,
    partitions: usize,
}

impl Unread {
    /// The ends as they are now, those of undecided transactions included.
    pub fn ask(bootstrap: &str, topics: &[String]) -> Self {
        // The watermark that read_committed is told stops below the first open transaction.
        let consumer = consumer(bootstrap, "read_uncommitted");
        let ends = |topic: &String| Ok((topic.clone(), ends(&consumer, topic)?));
        let ends: KafkaResult<HashMap<_, Vec<_>>> = topics.iter().map(ends).collect();
        let ends = ends.unwrap_or_else(|e| panic!("could not ask for the ends of {topics:?}: {e}"));
        let partitions = ends.values().flatten().flatten().count();
        Self { bootstrap: bootstrap.to_owned(), ends, partitions }
    }

    /// Reads to the ends.
    pub fn read(mut self, isolation: &str, mut take: impl FnMut(&BorrowedMessage<'_>)) {
        let consumer = consumer(&self.bootstrap, isolation);
        consumer.assign(&self.assignment()).expect("every partition exists");
        let mut moved = Instant::now();
        while self.partitions > 0 {
            assert!(
                moved.elapsed() < STUCK_AFTER,
                "an open transaction, or no broker, keeps from reading {:?}",
                self.ends
            );
            match consumer.poll(Duration::from_millis(200)) {
                Some(Ok(message)) => {
                    if self.holds(&message) {
                        take(&message);
                    }
                    self.reached(message.topic(), message.partition(), message.offset() + 1);
                    moved = Instant::now();
                }
                // The end of a partition, a pause, or a fault that librdkafka mends itself. Here the position
                // also tells of aborted records and of the marks that end transactions, which nobody is shown.
                Some(Err(_)) | None => {
                    self.reached_all(&consumer.position().expect("there is an assignment"));
                }
            }
        }
    }

    fn assignment(&self) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for (topic, ends) in &self.ends {
            for (partition, _) in ends.iter().enumerate().filter(|(_, end)| end.is_some()) {
                list.add_partition_offset(topic, partition as i32, Offset::Beginning).expect("beginning is an offset");
            }
        }
        list
    }

    fn holds(&self, message: &BorrowedMessage<'_>) -> bool {
        let end = self.ends.get(message.topic()).and_then(|ends| ends[message.partition() as usize]);
        end.is_some_and(|end| message.offset() < end)
    }

    fn reached(&mut self, topic: &str, partition: i32, position: i64) {
        let end = self.ends.get_mut(topic).and_then(|ends| ends.get_mut(partition as usize));
        if let Some(end) = end
            && end.take_if(|end| *end <= position).is_some()
        {
            self.partitions -= 1;
        }
    }

    fn reached_all(&mut self, positions: &TopicPartitionList) {
        for at in positions.elements() {
            if let Offset::Offset(position) = at.offset() {
                self.reached(at.topic(), at.partition(), position);
            }
        }
    }
}

/// The high watermark of every partition of `topic`; `None` where there is nothing to read.
fn ends(consumer: &BaseConsumer, topic: &str) -> KafkaResult<Vec<Option<i64>>> {
    let metadata = consumer.fetch_metadata(Some(topic), ANSWER_WITHIN)?;
    let described = &metadata.topics()[0];
    if let Some(error) = described.error() {
        return Err(KafkaError::MetadataFetch(error.into()));
    }
    let end = |partition| {
        let (low, high) = consumer.fetch_watermarks(topic, partition, ANSWER_WITHIN)?;
        Ok((low < high).then_some(high))
    };
    (0..described.partitions().len() as i32).map(end).collect()
}

fn consumer(bootstrap: &str, isolation: &str) -> BaseConsumer {
    let mut config = client(bootstrap);
    config.set("isolation.level", isolation).set("enable.partition.eof", "true");
    // An assignment needs the name of a group; none is joined and nothing is committed.
    config.set("group.id", "o365it-reader").set("enable.auto.commit", "false");
    // Passing over records in silence would look like a loss.
    config.set("auto.offset.reset", "error");
    // The broker keeps a question about new records for as long; the end of a partition is told no sooner.
    config.set("fetch.wait.max.ms", "20");
    config.create().expect("the settings are sound")
}

impl From<&BorrowedMessage<'_>> for Message {
    fn from(message: &BorrowedMessage<'_>) -> Self {
        let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
        Self {
            topic: message.topic().to_owned(),
            partition: message.partition(),
            offset: message.offset(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers: headers.map(|h| (h.key.to_owned(), h.value.map(<[u8]>::to_vec))).collect(),
            timestamp_ms: message.timestamp().to_millis(),
        }
    }
}
