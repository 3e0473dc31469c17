//! Reads topics as any consumer would, committed records only: for the operator's tools.

use std::{
    collections::HashMap,
    thread,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use rdkafka::{
    Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    message::OwnedMessage,
};

use super::client::{Role, client_config};
use crate::config::Kafka;

/// Every committed message of some topics, from a point in time up to where they ended, or without end.
pub struct TopicReader {
    consumer: BaseConsumer,
    /// Asks for the ends. Told those of committed records, it would stop below the first open transaction.
    marks: BaseConsumer,
    places: Vec<Place>,
    /// Where reading ends, of each partition that has not been read so far; `None` when it never ends.
    ends: Option<HashMap<(String, i32), i64>>,
    /// All positions together: they grow over aborted records too, which nobody is shown.
    passed: i64,
    /// How long was waited in vain since something moved.
    waited: Duration,
    stalled_after: Duration,
    offsets: u64,
}

/// Where reading begins, in each partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFrom {
    Start,
    /// The first message whose timestamp is not older.
    Time(Timestamp),
    /// Where our group goes on; the start where it has not been.
    Committed,
    /// What becomes visible from now on: records of a transaction that is open now are among it.
    End,
}

/// Where reading ends, in each partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadTo {
    /// Where the partition ended when the reader was opened; a transaction that was open then is waited for.
    EndOfNow,
    Never,
}

/// What a look at the topics gave.
pub enum Next {
    Message(OwnedMessage),
    /// Nothing within [`TopicReader::PATIENCE`]; there may be more later.
    Quiet,
    /// All was read. Only with [`ReadTo::EndOfNow`].
    End,
}

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("read the topics")]
    Kafka(#[from] KafkaError),
    #[error("read the topics: Kafka at {servers} did not answer within {} s; is it running, and does kafka.bootstrap_servers reach it? `o365feed doctor` looks, probe 25", ANSWER.as_secs())]
    NoAnswer { servers: String },
    #[error("read the topic `{0}`: it does not exist; check kafka.topic_prefix, or let `o365feed run` create it")]
    NoTopic(String),
    #[error(
        "read {partitions} partitions to their ends: nothing came for {} s; Kafka does not answer, or a transaction is open for longer than kafka.transaction_timeout",
        .after.as_secs()
    )]
    Stalled { partitions: usize, after: Duration },
}

/// Longest wait for one answer of a broker.
const ANSWER: Duration = Duration::from_secs(30);

/// What a transaction whose producer is gone may live beyond its time-out: the broker's sweep, and being busy.
const SWEEP: Duration = Duration::from_secs(45);

impl TopicReader {
    /// After this long without a message a caller gets a word.
    pub const PATIENCE: Duration = Duration::from_millis(200);

    /// Asks for the topics' partitions and ends; blocks for some answers of the broker.
    ///
    /// # Errors
    /// [`ReadError::NoTopic`] names the first topic that is not there; [`ReadError::NoAnswer`] when nobody can be asked.
    pub fn open(kafka: &Kafka, topics: &[String], from: ReadFrom, to: ReadTo) -> Result<Self, ReadError> {
        let marks: BaseConsumer = client_config(kafka, Role::Watermarks).create()?;
        let consumer: BaseConsumer = client_config(kafka, Role::CommittedReader).create()?;
        let mut places = Vec::new();
        for topic in topics {
            for partition in partitions(&marks, kafka, topic)? {
                let (low, high) = patiently(|| marks.fetch_watermarks(topic, partition, ANSWER))?;
                let first = match from {
                    ReadFrom::Start | ReadFrom::Time(_) => low,
                    // Its own watermark is the last stable offset.
                    ReadFrom::End => patiently(|| consumer.fetch_watermarks(topic, partition, ANSWER))?.1,
                    ReadFrom::Committed => committed(&marks, topic, partition)?.map_or(low, |at| at.clamp(low, high)),
                };
                places.push(Place { topic: topic.clone(), partition, first, end: high });
            }
        }
        if let ReadFrom::Time(time) = from {
            patiently(|| begin_at(&marks, &mut places, time))?;
        }
        let mut assigned = TopicPartitionList::new();
        for place in &places {
            assigned.add_partition_offset(&place.topic, place.partition, Offset::Offset(place.first))?;
        }
        consumer.assign(&assigned)?;
        let offsets = places.iter().map(|place| place.end.abs_diff(place.first.min(place.end))).sum();
        let ends = (to == ReadTo::EndOfNow).then(|| unread(&places));
        let (passed, waited, stalled_after) = (0, Duration::ZERO, kafka.transaction_timeout + SWEEP);
        Ok(Self { consumer, marks, places, ends, passed, waited, stalled_after, offsets })
    }

    /// From now on reads only up to where the topics end at this moment; blocks for some answers of the broker.
    ///
    /// # Errors
    /// When the broker does not tell.
    pub fn end_now(&mut self) -> Result<(), ReadError> {
        for place in &mut self.places {
            place.end = patiently(|| self.marks.fetch_watermarks(&place.topic, place.partition, ANSWER))?.1;
        }
        (self.ends, self.waited) = (Some(unread(&self.places)), Duration::ZERO);
        Ok(self.drop_reached()?)
    }

    /// Gives up after this long without any progress; otherwise when every transaction must have ended.
    #[must_use]
    pub fn stalled_after(self, stalled_after: Duration) -> Self {
        Self { stalled_after, ..self }
    }

    /// How many offsets lay between beginning and end when it was opened: at most so many messages come up to there.
    pub fn offsets(&self) -> u64 {
        self.offsets
    }

    /// The next message of any partition. Within a partition they come in their order.
    ///
    /// # Errors
    /// [`ReadError::Stalled`] when an end is not reached although nothing comes any more.
    #[expect(
        clippy::should_implement_trait,
        reason = "no iterator: after an error, or when it is quiet, there may be more"
    )]
    pub fn next(&mut self) -> Result<Next, ReadError> {
        loop {
            if self.ends.as_ref().is_some_and(HashMap::is_empty) {
                return Ok(Next::End);
            }
            let asked = Instant::now();
            // Detached: a borrowed message would keep the reader borrowed on every other way out of here.
            let polled = self.consumer.poll(Self::PATIENCE).map(|polled| polled.map(|message| message.detach()));
            // The caller's own time does not count: whoever prints to a pager may take hours for a page.
            self.waited += asked.elapsed();
            match polled {
                Some(Ok(message)) => {
                    self.waited = Duration::ZERO;
                    if self.is_asked_for(&message)? {
                        return Ok(Next::Message(message));
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => self.drop_reached()?,
                Some(Err(error)) if is_passing(&error) => {}
                Some(Err(error)) => return Err(error.into()),
                None => {
                    self.drop_reached()?;
                    match &self.ends {
                        Some(ends) if !ends.is_empty() && self.stalled_after < self.waited => {
                            return Err(ReadError::Stalled { partitions: ends.len(), after: self.stalled_after });
                        }
                        Some(ends) if ends.is_empty() => {}
                        _ => return Ok(Next::Quiet),
                    }
                }
            }
        }
    }

    /// Whether it lies before the end; with the last one before it, the partition is done.
    fn is_asked_for(&mut self, message: &OwnedMessage) -> KafkaResult<bool> {
        let Some(ends) = &mut self.ends else { return Ok(true) };
        let place = (message.topic().to_owned(), message.partition());
        let Some(end) = ends.get(&place).copied() else { return Ok(false) };
        if end <= message.offset() + 1 {
            ends.remove(&place);
            self.rest(&[place])?;
        }
        Ok(message.offset() < end)
    }

    /// A partition's last offsets may be those of control records, which no consumer sees: only the position tells.
    fn drop_reached(&mut self) -> KafkaResult<()> {
        let positions = self.consumer.position()?;
        let known = |offset| if let Offset::Offset(at) = offset { at } else { 0 };
        let passed = positions.elements().iter().map(|element| known(element.offset())).sum();
        if passed != self.passed {
            (self.passed, self.waited) = (passed, Duration::ZERO);
        }
        let Some(ends) = &mut self.ends else { return Ok(()) };
        let mut reached = Vec::new();
        for element in positions.elements() {
            let place = (element.topic().to_owned(), element.partition());
            if ends.get(&place).is_some_and(|end| *end <= known(element.offset())) {
                ends.remove(&place);
                reached.push(place);
            }
        }
        self.rest(&reached)
    }

    /// What comes after the ends is not fetched for nothing.
    fn rest(&self, places: &[(String, i32)]) -> KafkaResult<()> {
        if places.is_empty() {
            return Ok(());
        }
        let mut list = TopicPartitionList::new();
        for (topic, partition) in places {
            list.add_partition(topic, *partition);
        }
        self.consumer.pause(&list)
    }
}

/// A partition, and what of it is to be read: `first <= offset < end`.
struct Place {
    topic: String,
    partition: i32,
    first: i64,
    end: i64,
}

/// Where the partitions end in which there is something to read.
fn unread(places: &[Place]) -> HashMap<(String, i32), i64> {
    let unread = places.iter().filter(|place| place.first < place.end);
    unread.map(|place| ((place.topic.clone(), place.partition), place.end)).collect()
}

/// librdkafka goes on by itself after these.
fn is_passing(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{AllBrokersDown, BrokerTransportFailure, OperationTimedOut, Resolve};
    let code = error.rdkafka_error_code();
    matches!(code, Some(BrokerTransportFailure | AllBrokersDown | OperationTimedOut | Resolve))
}

/// Asks again while partitions have no leader yet, or another one than this client knows: after a topic was made, or a
/// broker came back. It is asked of topics that exist.
fn patiently<T>(mut ask: impl FnMut() -> KafkaResult<T>) -> KafkaResult<T> {
    use RDKafkaErrorCode::{LeaderNotAvailable, NotLeaderForPartition, UnknownPartition, UnknownTopicOrPartition};
    let end = Instant::now() + ANSWER;
    loop {
        let answer = ask();
        let code = answer.as_ref().err().and_then(KafkaError::rdkafka_error_code);
        let is_settling = matches!(
            code,
            Some(LeaderNotAvailable | NotLeaderForPartition | UnknownPartition | UnknownTopicOrPartition)
        );
        if !is_settling || end < Instant::now() {
            return answer;
        }
        thread::sleep(AGAIN);
    }
}

/// How long a topic that was just made may be unknown to a broker.
const SPREADING: Duration = Duration::from_secs(2);

/// Between two questions.
const AGAIN: Duration = Duration::from_millis(100);

pub(super) fn partitions(consumer: &BaseConsumer, kafka: &Kafka, topic: &str) -> Result<Vec<i32>, ReadError> {
    let end = Instant::now() + SPREADING;
    loop {
        let metadata = consumer.fetch_metadata(Some(topic), ANSWER).map_err(|error| match error {
            error if is_passing(&error) => ReadError::NoAnswer { servers: kafka.bootstrap_servers.clone() },
            error => error.into(),
        })?;
        let found = metadata.topics().iter().find(|found| found.name() == topic && found.error().is_none());
        match found.map(|topic| topic.partitions()) {
            Some(partitions) if !partitions.is_empty() => return Ok(partitions.iter().map(|p| p.id()).collect()),
            _ if end < Instant::now() => return Err(ReadError::NoTopic(topic.to_owned())),
            _ => thread::sleep(AGAIN),
        }
    }
}

/// Moves the beginnings to the first offset whose timestamp is not older than `time`: one question for all.
fn begin_at(consumer: &BaseConsumer, places: &mut [Place], time: Timestamp) -> KafkaResult<()> {
    let mut asked = TopicPartitionList::new();
    for place in &*places {
        asked.add_partition_offset(&place.topic, place.partition, Offset::Offset(time.as_millisecond().max(0)))?;
    }
    let found = consumer.offsets_for_times(asked, ANSWER)?;
    for place in places {
        let found = found.find_partition(&place.topic, place.partition);
        found.as_ref().map_or(Ok(()), |element| element.error())?;
        place.first = match found.map(|element| element.offset()) {
            Some(Offset::Offset(offset)) => offset,
            _ => place.end, // all are older
        };
    }
    Ok(())
}

/// The group's committed offset.
fn committed(consumer: &BaseConsumer, topic: &str, partition: i32) -> KafkaResult<Option<i64>> {
    let mut asked = TopicPartitionList::new();
    asked.add_partition(topic, partition);
    let found = consumer.committed_offsets(asked, ANSWER)?;
    Ok(match found.elements().first().map(|element| element.offset()) {
        Some(Offset::Offset(offset)) => Some(offset),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_after_which_librdkafka_goes_on_are_passing() {
        let consumed = |code| KafkaError::MessageConsumption(code);
        assert!(is_passing(&consumed(RDKafkaErrorCode::BrokerTransportFailure)));
        assert!(!is_passing(&consumed(RDKafkaErrorCode::TopicAuthorizationFailed)));
    }
}
