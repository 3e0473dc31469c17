//! What a partition's new owner must know before it may publish: committed offset, then ledger, read to a watermark
//! asked after the assignment (docs/exactly-once.md, rules 7, 8 and 16).

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
};
use uuid::Uuid;

use super::{
    client::{Role, client_config},
    entry::{Entry, EntryKind, NotAnEntry},
    gaps::MissingListings,
    member::Member,
};
use crate::{
    config::{Settings, StartFrom},
    domain::{ContentKey, Day, Ledger, Source, TenantId},
};

/// A partition as its last owner left it.
#[derive(Debug)]
pub struct Restored {
    pub partition: i32,
    /// The group's committed offset, or the log's start when there is none.
    pub committed: i64,
    pub ledgers: HashMap<Source, Ledger>,
    /// Where each source began, newest entry first.
    pub began: HashMap<Source, Timestamp>,
    /// Listings that retention dropped before they were settled.
    pub lost: Option<MissingListings>,
    /// When the ledger was last written: owners do so at least once a day. `None`: never, or too long ago to tell.
    pub alive: Option<Timestamp>,
    pub took: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("could not read the ledger")]
    Kafka(#[from] KafkaError),
    #[error("could not read the ledger entry at {topic} [{partition}] @ {offset}")]
    Entry { topic: String, partition: i32, offset: i64, source: NotAnEntry },
    #[error(
        "the ledger {topic} was written by group `{theirs}`, and this is `{ours}`: two groups on one prefix would publish everything twice; set kafka.group to `{theirs}`, or another kafka.topic_prefix"
    )]
    ForeignGroup { topic: String, ours: String, theirs: String },
    #[error(
        "the committed offset {committed} of {topic} [{partition}] lies beyond its end {end}: the topic was made anew under a living group; delete the group's offsets or restore the topic"
    )]
    BeyondTheEnd { topic: String, partition: i32, committed: i64, end: i64 },
}

impl RestoreError {
    /// Whether trying again may help.
    pub fn passes(&self) -> bool {
        matches!(self, Self::Kafka(_))
    }
}

/// Longest wait for one answer of a broker.
const ANSWER: Duration = Duration::from_secs(30);

/// Without a message or an end for so long, reading the ledger is given up and begun anew.
const STALLED: Duration = Duration::from_secs(45);

/// How far back a content may have been listed: marks so old are needed by every sweep.
const REACH: SignedDuration = SignedDuration::from_hours(24 * 8);

/// Reads everything; blocks, for minutes when the ledger is long.
///
/// # Errors
/// See [`RestoreError`].
pub fn restore(settings: &Settings, member: &Arc<Member>, partition: i32) -> Result<Restored, RestoreError> {
    let began = Instant::now();
    let (kafka, listings) = (&settings.kafka, settings.kafka.listings_topic());
    let committed = member.committed(partition)?;
    let marks: BaseConsumer = client_config(kafka, Role::Watermarks).create()?;
    let (low, end) = marks.fetch_watermarks(&listings, partition, ANSWER)?;
    let mut restored = Restored {
        partition,
        committed: committed.unwrap_or(low).max(low),
        ledgers: HashMap::new(),
        began: HashMap::new(),
        lost: committed.filter(|at| *at < low).map(|at| MissingListings {
            partition,
            first_offset: at,
            end_offset: low,
        }),
        alive: None,
        took: Duration::ZERO,
    };
    if let Some(committed) = committed.filter(|at| end < *at) {
        return Err(RestoreError::BeyondTheEnd { topic: listings, partition, committed, end });
    }
    // Asked only now, after the assignment and the committed offset.
    let (ledger_low, ledger_end) = marks.fetch_watermarks(&kafka.ledger_topic(), partition, ANSWER)?;
    if ledger_low < ledger_end {
        let reader: BaseConsumer = client_config(kafka, Role::CommittedReader).create()?;
        let oldest = first_listing(&reader, &listings, partition, restored.committed, end)?;
        let needed = needed_from(settings, oldest);
        let from = match settings.listing.start_from {
            StartFrom::Earliest => needed,
            // Where a source began may have been written long ago.
            StartFrom::Now | StartFrom::At(_) => Timestamp::UNIX_EPOCH,
        };
        let from = offset_at(&reader, &kafka.ledger_topic(), partition, from)?.max(ledger_low);
        read_ledger(settings, &reader, from, ledger_end, Day::of(needed), &mut restored)?;
        if restored.alive.is_none() {
            // Nobody ran for longer than the memory reaches; all there is tells for how long.
            read_ledger(settings, &reader, ledger_low, ledger_end, Day::of(needed), &mut restored)?;
        }
    }
    restored.took = began.elapsed();
    Ok(restored)
}

/// From when on ledger entries are needed (rules 13 and 14): the ids of the window, the marks of all that a sweep can
/// list, and the marks around the oldest listing that is not settled, whose content may be a week older than itself.
fn needed_from(settings: &Settings, oldest_listing: Option<Timestamp>) -> Timestamp {
    let now = Timestamp::now();
    let window = SignedDuration::try_from(settings.dedupe.window).unwrap_or(REACH).max(REACH);
    let memory = now - window - SignedDuration::from_hours(24);
    oldest_listing.map_or(memory, |appended| memory.min(appended - REACH))
}

/// When the listing at the committed offset was appended.
fn first_listing(
    reader: &BaseConsumer,
    topic: &str,
    partition: i32,
    from: i64,
    end: i64,
) -> Result<Option<Timestamp>, KafkaError> {
    if end <= from {
        return Ok(None);
    }
    assign(reader, topic, partition, from)?;
    let deadline = Instant::now() + ANSWER;
    while Instant::now() < deadline {
        match reader.poll(Duration::from_millis(500)) {
            Some(Ok(message)) => {
                return Ok(message.timestamp().to_millis().and_then(|at| Timestamp::from_millisecond(at).ok()));
            }
            // Only markers of transactions are left.
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(None),
            Some(Err(error)) => return Err(error),
            None => {}
        }
    }
    Err(KafkaError::MessageConsumption(rdkafka::error::RDKafkaErrorCode::OperationTimedOut))
}

fn offset_at(reader: &BaseConsumer, topic: &str, partition: i32, time: Timestamp) -> Result<i64, KafkaError> {
    let mut asked = TopicPartitionList::new();
    asked.add_partition_offset(topic, partition, Offset::Offset(time.as_millisecond().max(0)))?;
    let found = reader.offsets_for_times(asked, ANSWER)?;
    Ok(match found.elements().first().map(rdkafka::topic_partition_list::TopicPartitionListElem::offset) {
        Some(Offset::Offset(offset)) => offset,
        // Nothing so late: everything is older than what is needed, but to read a little more is harmless.
        _ => 0,
    })
}

fn read_ledger(
    settings: &Settings,
    reader: &BaseConsumer,
    from: i64,
    end: i64,
    needed: Day,
    restored: &mut Restored,
) -> Result<(), RestoreError> {
    let (topic, partition) = (settings.kafka.ledger_topic(), restored.partition);
    assign(reader, &topic, partition, from)?;
    let mut heard = Instant::now();
    // An EOF comes at the last stable offset and proves nothing; only the position does (rule 8).
    while position(reader, &topic, partition)?.unwrap_or(from) < end {
        match reader.poll(Duration::from_millis(200)) {
            Some(Ok(message)) => {
                heard = Instant::now();
                take(settings, restored, &message, needed).map_err(|source| match source {
                    Refused::Entry(source) => {
                        RestoreError::Entry { topic: topic.clone(), partition, offset: message.offset(), source }
                    }
                    Refused::Group(theirs) => {
                        RestoreError::ForeignGroup { topic: topic.clone(), ours: settings.kafka.group.clone(), theirs }
                    }
                })?;
            }
            Some(Err(KafkaError::PartitionEOF(_))) | None => {
                if STALLED < heard.elapsed() {
                    return Err(
                        KafkaError::MessageConsumption(rdkafka::error::RDKafkaErrorCode::OperationTimedOut).into()
                    );
                }
            }
            Some(Err(error)) => return Err(error.into()),
        }
    }
    Ok(())
}

enum Refused {
    Entry(NotAnEntry),
    Group(String),
}

fn take(
    settings: &Settings,
    restored: &mut Restored,
    message: &rdkafka::message::BorrowedMessage<'_>,
    needed: Day,
) -> Result<(), Refused> {
    let entry = Entry::decode(message.payload().unwrap_or_default()).map_err(Refused::Entry)?;
    // What a replay published, the connector may not have published yet: its ids are none of this memory. Nor is it a
    // sign of an owner at work, or of another group: a replay is nobody's member.
    if matches!(entry.kind, EntryKind::Replayed { .. }) {
        return Ok(());
    }
    if entry.group != settings.kafka.group {
        return Err(Refused::Group(entry.group.to_owned()));
    }
    let tenant = message.key().and_then(|key| str::from_utf8(key).ok()).and_then(|key| Uuid::try_parse(key).ok());
    let Some(tenant) = tenant else { return Err(Refused::Entry(NotAnEntry::NotText("key"))) };
    let source = Source { tenant: TenantId(tenant), content_type: entry.content_type };
    let appended = message.timestamp().to_millis().and_then(|at| Timestamp::from_millisecond(at).ok());
    restored.alive = restored.alive.max(appended);
    let day = Day::of(appended.unwrap_or_else(Timestamp::now));
    let ledger = restored.ledgers.entry(source).or_default();
    // Entries from before are read for their beginnings only.
    if needed <= day {
        let restore = if entry.kind == EntryKind::Filtered { Ledger::restore_filtered } else { Ledger::restore_id };
        entry.ids.iter().for_each(|id| restore(ledger, *id, day));
    }
    match entry.kind {
        EntryKind::Began { start_from } => _ = restored.began.insert(source, start_from),
        EntryKind::Ids | EntryKind::Filtered | EntryKind::Replayed { .. } => {}
        EntryKind::Settled(mark) => ledger.restore_mark(ContentKey::of(entry.content_id), mark),
    }
    Ok(())
}

fn assign(reader: &BaseConsumer, topic: &str, partition: i32, from: i64) -> Result<(), KafkaError> {
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
