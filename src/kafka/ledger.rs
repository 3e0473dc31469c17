//! The ledger topic, read entry by entry: by a partition's new owner, and by whoever compares the ledger with the service.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::BorrowedMessage,
};
use uuid::Uuid;

use super::{
    entry::{Entry, EntryKind, NotAnEntry},
    restore::RestoreError,
};
use crate::{
    config::Kafka,
    domain::{Source, TenantId},
};

/// A committed entry as it lies in the topic.
pub(super) struct LoggedEntry<'a> {
    pub source: Source,
    /// When the broker appended it.
    pub appended: Option<Timestamp>,
    pub entry: Entry<'a>,
}

/// Longest wait for one answer of a broker.
const ANSWER: Duration = Duration::from_secs(30);

/// Without a message or an end for so long, reading the ledger is given up and begun anew.
const STALLED: Duration = Duration::from_secs(45);

/// Gives every committed entry of `span` to `take`, in the order of the log. Assigns `reader`, and blocks until its
/// position has reached the span's end.
///
/// # Errors
/// [`RestoreError::Entry`] and [`RestoreError::ForeignGroup`] at the first entry that must not be passed over.
pub(super) fn read_ledger(
    kafka: &Kafka,
    reader: &BaseConsumer,
    partition: i32,
    span: Range<i64>,
    mut take: impl FnMut(LoggedEntry<'_>),
) -> Result<(), RestoreError> {
    let topic = kafka.ledger_topic();
    assign(reader, &topic, partition, span.start)?;
    let mut heard = Instant::now();
    // An EOF comes at the last stable offset and proves nothing; only the position does (rule 8).
    while position(reader, &topic, partition)?.unwrap_or(span.start) < span.end {
        match reader.poll(Duration::from_millis(200)) {
            Some(Ok(message)) => {
                heard = Instant::now();
                take(logged(kafka, &topic, &message)?);
            }
            Some(Err(KafkaError::PartitionEOF(_))) | None => {
                if STALLED < heard.elapsed() {
                    return Err(KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut).into());
                }
            }
            Some(Err(error)) => return Err(error.into()),
        }
    }
    Ok(())
}

/// What of a message an owner or a comparison needs; an entry of another group is refused (rule 17).
fn logged<'a>(kafka: &Kafka, topic: &str, message: &'a BorrowedMessage<'_>) -> Result<LoggedEntry<'a>, RestoreError> {
    let refused = |source| RestoreError::Entry {
        topic: topic.to_owned(),
        partition: message.partition(),
        offset: message.offset(),
        source,
    };
    let entry = Entry::decode(message.payload().unwrap_or_default()).map_err(refused)?;
    // A replay is nobody's member.
    if entry.group != kafka.group && !matches!(entry.kind, EntryKind::Replayed { .. }) {
        let (ours, theirs) = (kafka.group.clone(), entry.group.to_owned());
        return Err(RestoreError::ForeignGroup { topic: topic.to_owned(), ours, theirs });
    }
    let tenant = message.key().and_then(|key| str::from_utf8(key).ok()).and_then(|key| Uuid::try_parse(key).ok());
    let tenant = TenantId(tenant.ok_or_else(|| refused(NotAnEntry::NotText("key")))?);
    let appended = message.timestamp().to_millis().and_then(|at| Timestamp::from_millisecond(at).ok());
    Ok(LoggedEntry { source: Source { tenant, content_type: entry.content_type }, appended, entry })
}

/// The first offset whose message is not older than `time`; the log's very beginning when all are older.
pub(super) fn offset_at(
    reader: &BaseConsumer,
    topic: &str,
    partition: i32,
    time: Timestamp,
) -> Result<i64, KafkaError> {
    let mut asked = TopicPartitionList::new();
    asked.add_partition_offset(topic, partition, Offset::Offset(time.as_millisecond().max(0)))?;
    let found = reader.offsets_for_times(asked, ANSWER)?;
    Ok(match found.elements().first().map(rdkafka::topic_partition_list::TopicPartitionListElem::offset) {
        Some(Offset::Offset(offset)) => offset,
        // Nothing so late: everything is older than what is needed, but to read a little more is harmless.
        _ => 0,
    })
}

pub(super) fn assign(reader: &BaseConsumer, topic: &str, partition: i32, from: i64) -> Result<(), KafkaError> {
    let mut whole = TopicPartitionList::new();
    whole.add_partition_offset(topic, partition, Offset::Offset(from))?;
    reader.assign(&whole)
}

fn position(reader: &BaseConsumer, topic: &str, partition: i32) -> Result<Option<i64>, KafkaError> {
    let positions = reader.position()?;
    Ok(positions.find_partition(topic, partition).and_then(|element| match element.offset() {
        Offset::Offset(offset) => Some(offset),
        _ => None,
    }))
}
