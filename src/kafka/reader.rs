//! Reads topics as any consumer would, committed records only: for the operator's tools.

use std::{
    collections::HashMap,
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
    /// Where reading ends, of each partition that has not been read so far; `None` when it never ends.
    ends: Option<HashMap<(String, i32), i64>>,
    moved: Instant,
}

/// Where reading begins, in each partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFrom {
    Start,
    /// The first message whose timestamp is not older.
    Time(Timestamp),
    /// What comes from now on.
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
    #[error("read the topic `{0}`: it does not exist; check kafka.topic_prefix, or let `o365feed run` create it")]
    NoTopic(String),
    #[error(
        "read {partitions} partitions to their ends: nothing came for {} s; a transaction may be open for longer than kafka.transaction_timeout says",
        STALLED.as_secs()
    )]
    Stalled { partitions: usize },
}

/// Longest wait for one answer of a broker.
const ANSWER: Duration = Duration::from_secs(30);

/// Longer than a transaction lives whose producer is gone, with the broker's sweep.
const STALLED: Duration = Duration::from_secs(60);

impl TopicReader {
    /// After this long without a message a caller gets a word.
    pub const PATIENCE: Duration = Duration::from_millis(200);

    /// Asks for the topics' partitions and ends; blocks for some answers of the broker.
    ///
    /// # Errors
    /// [`ReadError::NoTopic`] names the first topic that is not there.
    pub fn open(kafka: &Kafka, topics: &[String], from: ReadFrom, to: ReadTo) -> Result<Self, ReadError> {
        // Told the ends of committed records, it would stop below the first open transaction.
        let marks: BaseConsumer = client_config(kafka, Role::Watermarks).create()?;
        let consumer: BaseConsumer = client_config(kafka, Role::CommittedReader).create()?;
        let (mut assigned, mut ends) = (TopicPartitionList::new(), HashMap::new());
        for topic in topics {
            for partition in partitions(&marks, topic)? {
                let (low, high) = marks.fetch_watermarks(topic, partition, ANSWER)?;
                let first = match from {
                    ReadFrom::Start => low,
                    ReadFrom::End => high,
                    ReadFrom::Time(time) => offset_at(&marks, topic, partition, time)?.unwrap_or(high),
                };
                assigned.add_partition_offset(topic, partition, Offset::Offset(first))?;
                if first < high {
                    ends.insert((topic.clone(), partition), high);
                }
            }
        }
        consumer.assign(&assigned)?;
        Ok(Self { consumer, ends: (to == ReadTo::EndOfNow).then_some(ends), moved: Instant::now() })
    }

    /// The next message of any partition. Within a partition they come in their order.
    ///
    /// # Errors
    /// [`ReadError::Stalled`] when an end is not reached although nothing comes any more.
    pub fn next(&mut self) -> Result<Next, ReadError> {
        loop {
            if self.ends.as_ref().is_some_and(HashMap::is_empty) {
                return Ok(Next::End);
            }
            // Detached: a borrowed message would keep the reader borrowed on every other way out of here.
            match self.consumer.poll(Self::PATIENCE).map(|polled| polled.map(|message| message.detach())) {
                Some(Ok(message)) => {
                    self.moved = Instant::now();
                    let Some(ends) = &mut self.ends else { return Ok(Next::Message(message)) };
                    let place = (message.topic().to_owned(), message.partition());
                    // What came after the reader was opened is not asked for.
                    let Some(end) = ends.get(&place).copied().filter(|end| message.offset() < *end) else {
                        ends.remove(&place);
                        continue;
                    };
                    if end <= message.offset() + 1 {
                        ends.remove(&place);
                    }
                    return Ok(Next::Message(message));
                }
                Some(Err(KafkaError::PartitionEOF(_))) => self.drop_reached()?,
                Some(Err(error)) if is_passing(&error) => {}
                Some(Err(error)) => return Err(error.into()),
                None => {
                    self.drop_reached()?;
                    match &self.ends {
                        Some(ends) if ends.is_empty() => return Ok(Next::End),
                        Some(ends) if STALLED < self.moved.elapsed() => {
                            return Err(ReadError::Stalled { partitions: ends.len() });
                        }
                        _ => return Ok(Next::Quiet),
                    }
                }
            }
        }
    }

    /// A partition's last offsets may be those of control records, which no consumer sees: only the position tells.
    fn drop_reached(&mut self) -> KafkaResult<()> {
        let Some(ends) = &mut self.ends else { return Ok(()) };
        let positions = self.consumer.position()?;
        ends.retain(|(topic, partition), end| {
            let position = positions.find_partition(topic, *partition).map(|element| element.offset());
            !matches!(position, Some(Offset::Offset(at)) if *end <= at)
        });
        Ok(())
    }
}

/// librdkafka goes on by itself after these.
fn is_passing(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{AllBrokersDown, BrokerTransportFailure, OperationTimedOut, Resolve};
    let code = error.rdkafka_error_code();
    matches!(code, Some(BrokerTransportFailure | AllBrokersDown | OperationTimedOut | Resolve))
}

pub(super) fn partitions(consumer: &BaseConsumer, topic: &str) -> Result<Vec<i32>, ReadError> {
    let metadata = consumer.fetch_metadata(Some(topic), ANSWER)?;
    let found = metadata.topics().iter().find(|found| found.name() == topic && found.error().is_none());
    let partitions: Vec<i32> =
        found.map(|topic| topic.partitions().iter().map(|p| p.id()).collect()).unwrap_or_default();
    if partitions.is_empty() { Err(ReadError::NoTopic(topic.to_owned())) } else { Ok(partitions) }
}

/// The first offset whose timestamp is not older than `time`; `None` when all are older.
fn offset_at(consumer: &BaseConsumer, topic: &str, partition: i32, time: Timestamp) -> KafkaResult<Option<i64>> {
    let mut asked = TopicPartitionList::new();
    asked.add_partition_offset(topic, partition, Offset::Offset(time.as_millisecond().max(0)))?;
    let found = consumer.offsets_for_times(asked, ANSWER)?;
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
