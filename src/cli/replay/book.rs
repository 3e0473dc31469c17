//! What the ledger says of one replay: where it began, what it has published, which contents it is done with.

use std::collections::{BTreeMap, HashMap, HashSet};

use jiff::{SignedDuration, Timestamp};
use rdkafka::Message as _;
use uuid::{Builder, Uuid};

use crate::{
    cli::args::TimeSpan,
    config::Kafka,
    domain::{ContentKey, Day, Ledger, Source, TenantId},
    kafka::{Entry, EntryKind, Next, NotAnEntry, ReadError, ReadFrom, ReadTo, ReplayStep, TopicReader},
};

/// The memory of a replay. What is committed is in the ledger topic too, and is read back from there.
pub(super) struct Book {
    pub(super) replay: Uuid,
    /// Where the records go; the topics of their content types when there is none.
    pub(super) topic: Option<String>,
    /// What is replayed, of each source.
    pub(super) spans: BTreeMap<Source, TimeSpan>,
    ledgers: HashMap<Source, Ledger>,
    whole: HashSet<(Source, ContentKey)>,
    /// Ids that were published, the open transaction's not counted.
    pub(super) published: u64,
    /// All ids are filed under one day: within a replay none is forgotten.
    day: Day,
}

/// Why the ledger could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum BookError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("could not read the ledger entry at [{partition}] @ {offset}")]
    Entry { partition: i32, offset: i64, source: NotAnEntry },
}

/// The broker's clock, which filed the entries, may be so far behind ours, which named the replay.
const CLOCKS: SignedDuration = SignedDuration::from_hours(24);

/// A new name for a replay: a UUID of version 7, which tells when it began.
pub(super) fn new_replay(now: Timestamp) -> Uuid {
    let milliseconds = u64::try_from(now.as_millisecond()).unwrap_or_default();
    Builder::from_unix_timestamp_millis(milliseconds, &rand::random()).into_uuid()
}

/// When a replay began, from its name; `None` for a name that we did not give.
pub(super) fn begun(replay: Uuid) -> Option<Timestamp> {
    let (seconds, nanoseconds) = replay.get_timestamp().filter(|_| replay.get_version_num() == 7)?.to_unix();
    Timestamp::new(i64::try_from(seconds).ok()?, i32::try_from(nanoseconds).ok()?).ok()
}

impl Book {
    /// Of a replay that has published nothing.
    pub(super) fn new(replay: Uuid, topic: Option<String>, spans: BTreeMap<Source, TimeSpan>) -> Self {
        let day = Day::of(begun(replay).unwrap_or(Timestamp::UNIX_EPOCH));
        Self { replay, topic, spans, ledgers: HashMap::new(), whole: HashSet::new(), published: 0, day }
    }

    /// Reads what is committed of a replay. Blocks. Its producer must have been initialised first: what was in doubt
    /// is then decided.
    pub(super) fn read(kafka: &Kafka, replay: Uuid) -> Result<Self, BookError> {
        let from = begun(replay).map_or(ReadFrom::Start, |time| ReadFrom::Time(time - CLOCKS));
        let mut reader = TopicReader::open(kafka, &[kafka.ledger_topic()], from, ReadTo::EndOfNow)?;
        let mut book = Self::new(replay, None, BTreeMap::new());
        loop {
            match reader.next()? {
                Next::End => return Ok(book),
                Next::Quiet => {}
                Next::Message(message) => {
                    let (partition, offset) = (message.partition(), message.offset());
                    let failed = |source| BookError::Entry { partition, offset, source };
                    let entry = Entry::decode(message.payload().unwrap_or_default()).map_err(failed)?;
                    let tenant = message.key().and_then(|key| str::from_utf8(key).ok());
                    let tenant = tenant.and_then(|key| Uuid::try_parse(key).ok()).map(TenantId);
                    book.take(tenant.ok_or_else(|| failed(NotAnEntry::NotText("key")))?, &entry);
                }
            }
        }
    }

    fn take(&mut self, tenant: TenantId, entry: &Entry<'_>) {
        let EntryKind::Replayed { replay, step } = entry.kind else { return };
        if replay != self.replay {
            return;
        }
        let source = Source { tenant, content_type: entry.content_type };
        match step {
            ReplayStep::Began { from, to } => {
                self.spans.insert(source, TimeSpan { from, to });
                self.topic = Some(entry.content_id.to_owned()).filter(|topic| !topic.is_empty());
            }
            ReplayStep::Ids => {}
            ReplayStep::Whole => _ = self.whole.insert((source, ContentKey::of(entry.content_id))),
        }
        let ledger = self.ledgers.entry(source).or_default();
        entry.ids.iter().for_each(|id| ledger.restore_id(*id, self.day));
        self.published += entry.ids.len() as u64;
    }

    /// Whether nothing more of the content is to come.
    pub(super) fn is_whole(&self, source: Source, key: ContentKey) -> bool {
        self.whole.contains(&(source, key))
    }

    /// Whether the record is new to this replay; it is not any more after that.
    pub(super) fn is_new(&mut self, source: Source, id: crate::domain::RecordId) -> bool {
        let seen = self.ledgers.entry(source).or_default().see(id, self.day);
        seen == crate::domain::Seen::New
    }

    /// The open transaction was committed, and with it these contents' ends.
    pub(super) fn commit(&mut self, whole: impl IntoIterator<Item = (Source, ContentKey)>, published: u64) {
        self.ledgers.values_mut().for_each(Ledger::commit);
        self.whole.extend(whole);
        self.published += published;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{ContentType, RecordId};

    #[test]
    fn a_name_tells_when_the_replay_began() {
        let now: Timestamp = "2026-01-31T12:00:00.123Z".parse().unwrap();
        let name = new_replay(now);
        assert_eq!(begun(name), Some(now));
        assert_ne!(name, new_replay(now));
        assert_eq!(begun(Uuid::from_u128(7)), None);
    }

    #[test]
    fn only_entries_of_this_replay_are_taken() {
        let tenant = TenantId(Uuid::from_u128(1));
        let (replay, other) = (new_replay(Timestamp::UNIX_EPOCH), Uuid::from_u128(9));
        let source = Source { tenant, content_type: ContentType::Dlp };
        let span = TimeSpan { from: Timestamp::UNIX_EPOCH, to: Timestamp::UNIX_EPOCH + SignedDuration::from_hours(1) };
        let id = |byte| RecordId([byte; 16]);
        let entry = |kind, content_id, ids: &[u8]| Entry {
            group: "g",
            content_type: ContentType::Dlp,
            content_id,
            kind,
            ids: ids.iter().map(|byte| id(*byte)).collect::<Vec<_>>().into(),
        };
        let of = |replay, step| EntryKind::Replayed { replay, step };
        let mut book = Book::new(replay, None, BTreeMap::new());
        let began = ReplayStep::Began { from: span.from, to: span.to };
        for entry in [
            entry(of(replay, began), "t", &[]),
            entry(of(replay, ReplayStep::Ids), "a", &[1]),
            entry(of(replay, ReplayStep::Whole), "b", &[2]),
            entry(of(other, ReplayStep::Whole), "c", &[3]),
            entry(EntryKind::Ids, "d", &[4]),
        ] {
            book.take(tenant, &Entry::decode(&entry.encode()).unwrap());
        }
        assert_eq!((book.topic.as_deref(), book.spans.get(&source), book.published), (Some("t"), Some(&span), 2));
        let whole: Vec<_> =
            ["a", "b", "c", "d"].into_iter().filter(|c| book.is_whole(source, ContentKey::of(c))).collect();
        assert_eq!(whole, ["b"]);
        let new: Vec<_> = (1..=4).filter(|byte| book.is_new(source, id(*byte))).collect();
        assert_eq!(new, [3, 4]);
    }
}
