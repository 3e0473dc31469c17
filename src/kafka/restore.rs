//! What a partition's new owner must know before it may publish: committed offset, then ledger, read to a watermark
//! asked after the assignment (docs/exactly-once.md, rules 7, 8 and 16).

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use rdkafka::{
    Message,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
};

use super::{
    client::{Role, client_config},
    entry::{EntryKind, NotAnEntry},
    gaps::MissingListings,
    ledger::{LoggedEntry, assign, offset_at, read_ledger},
    member::Member,
    partition::partition_of,
};
use crate::{
    config::{Settings, StartFrom},
    domain::{ContentKey, Day, Ledger, Source},
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
    /// Up to where each source was listed, or named as a gap.
    pub listed: HashMap<Source, Timestamp>,
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

impl Restored {
    /// Before the ledger is read anew.
    fn forget(&mut self) {
        self.ledgers.clear();
        self.began.clear();
        self.listed.clear();
    }
}

/// Longest wait for one answer of a broker.
const ANSWER: Duration = Duration::from_secs(30);

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
        listed: HashMap::new(),
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
        let needed = Day::of(needed);
        read_ledger(kafka, &reader, partition, from..ledger_end, |entry| take(&mut restored, &entry, needed))?;
        let is_ours = |source: &Source| partition_of(source.tenant, kafka.partitions) == partition;
        let is_known = |source: Source| restored.listed.contains_key(&source);
        if ledger_low < from && !settings.sources().filter(is_ours).all(is_known) {
            // Of some source nobody wrote for longer than the memory reaches; all there is tells up to where it was listed.
            restored.forget();
            let whole = ledger_low..ledger_end;
            read_ledger(kafka, &reader, partition, whole, |entry| take(&mut restored, &entry, needed))?;
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

/// Takes an entry into what is restored. Those from before `needed` are read for their beginnings only.
fn take(restored: &mut Restored, logged: &LoggedEntry<'_>, needed: Day) {
    let day = Day::of(logged.appended.unwrap_or_else(Timestamp::now));
    let ledger = restored.ledgers.entry(logged.source).or_default();
    let restore = match logged.entry.kind {
        // What a replay published, the connector may not have published yet: its ids are none of this memory.
        EntryKind::Replayed { .. } => return,
        EntryKind::Filtered => Ledger::restore_filtered,
        _ => Ledger::restore_id,
    };
    if needed <= day {
        logged.entry.ids.iter().for_each(|id| restore(ledger, *id, day));
    }
    match logged.entry.kind {
        EntryKind::Began { start_from } => _ = restored.began.insert(logged.source, start_from),
        EntryKind::Ids | EntryKind::Filtered | EntryKind::Replayed { .. } => {}
        EntryKind::Listed { to } => _ = restored.listed.insert(logged.source, to),
        EntryKind::Settled(mark) => ledger.restore_mark(ContentKey::of(logged.entry.content_id), mark),
    }
}
