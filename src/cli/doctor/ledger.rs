//! Probes 23 and 24: whether what the service listed was published, and whether something waits too long.
//! One look at the end of two topics, bounded in time; `o365feed reconcile` reads and compares all of it.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use rdkafka::Message as _;
use uuid::Uuid;

use super::report::{Probe, Verdict, told};
use crate::{
    cli::{config::counted, output::harmless},
    config::Settings,
    domain::{ContentKey, Listed, Outcome, Source, TenantId},
    kafka::{Entry, EntryKind, Next, ReadError, ReadFrom, ReadTo, TopicReader, decode_listing},
};

/// What the topics say.
#[derive(Default)]
pub(super) struct Books {
    /// Contents with a mark, from the time on that was asked for.
    pub(super) settled: HashSet<(Source, ContentKey)>,
    /// Where sources began, of those that began since.
    pub(super) began: HashMap<Source, Timestamp>,
    /// Listings behind the group's offset; some of them may be settled.
    pub(super) pending: Vec<Pending>,
    /// Another group that wrote to the ledger.
    pub(super) foreign: Option<String>,
    /// Both topics were read to their ends.
    pub(super) is_whole: bool,
}

/// A listing that has to be settled before its content expires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pending {
    pub(super) source: Source,
    pub(super) id: String,
    pub(super) key: ContentKey,
    pub(super) created: Timestamp,
    pub(super) expires: Timestamp,
    pub(super) appended: Timestamp,
}

/// Blocks for twice `patience` at most, and for some answers of the broker. `oldest`: the creation of the oldest content that is
/// to be found.
///
/// # Errors
/// When a topic cannot be read, or is not there.
pub(super) fn look(settings: &Settings, oldest: Option<Timestamp>, patience: Duration) -> Result<Books, ReadError> {
    let kafka = &settings.kafka;
    let mut books = Books { is_whole: true, ..Books::default() };
    let mut reader = TopicReader::open(kafka, &[kafka.listings_topic()], ReadFrom::Committed, ReadTo::EndOfNow)?;
    books.is_whole &= read(&mut reader, patience, |message| {
        let listing =
            decode_listing(message.key(), message.payload(), message.headers(), message.timestamp().to_millis());
        // What is no listing stops the connector and is told there.
        if let Ok(listing) = listing {
            let content = &listing.content;
            let (source, key) = (content.source, content.key());
            let (created, expires, appended) = (content.created, content.expires, listing.appended);
            let id = content.content_id.clone();
            books.pending.push(Pending { source, id, key, created, expires, appended });
        }
    })?;
    let first_pending = books.pending.iter().map(|pending| pending.appended).min();
    let Some(from) = oldest.into_iter().chain(first_pending).min() else { return Ok(books) };
    let mut reader = TopicReader::open(kafka, &[kafka.ledger_topic()], ReadFrom::Time(from), ReadTo::EndOfNow)?;
    let is_whole = read(&mut reader, patience, |message| {
        let tenant = message.key().and_then(|key| Uuid::try_parse_ascii(key).ok());
        let entry = message.payload().and_then(|bytes| Entry::decode(bytes).ok());
        if let (Some(tenant), Some(entry)) = (tenant, entry) {
            books.note(TenantId(tenant), &entry, &kafka.group);
        }
    })?;
    books.is_whole &= is_whole;
    Ok(books)
}

/// Whether the end was reached in time.
fn read(
    reader: &mut TopicReader,
    patience: Duration,
    mut take: impl FnMut(&rdkafka::message::OwnedMessage),
) -> Result<bool, ReadError> {
    let end = Instant::now() + patience;
    while Instant::now() < end {
        match reader.next()? {
            Next::Message(message) => take(&message),
            Next::Quiet => {}
            Next::End => return Ok(true),
        }
    }
    Ok(false)
}

impl Books {
    fn note(&mut self, tenant: TenantId, entry: &Entry<'_>, group: &str) {
        if entry.group != group && !matches!(entry.kind, EntryKind::Replayed { .. }) {
            self.foreign = Some(entry.group.to_owned());
        }
        let source = Source { tenant, content_type: entry.content_type };
        match &entry.kind {
            EntryKind::Began { start_from } => {
                self.began.insert(source, *start_from);
            }
            EntryKind::Settled(mark) if mark.outcome != Outcome::Moved => {
                self.settled.insert((source, ContentKey::of(entry.content_id)));
            }
            EntryKind::Ids
            | EntryKind::Filtered
            | EntryKind::Replayed { .. }
            | EntryKind::Listed { .. }
            | EntryKind::Settled(_) => {}
        }
    }

    fn is_settled(&self, source: Source, key: ContentKey) -> bool {
        self.settled.contains(&(source, key))
    }
}

/// A connector may take so long to list and publish a content.
const GRACE: SignedDuration = SignedDuration::from_mins(15);
const RECONCILE: &str = "`o365feed reconcile` compares all that the service still lists with Kafka, record by record";

/// Probe 23. `listed`: what probe 15 saw of the tenant.
pub(super) fn judge_ledger(books: &Result<Books, ReadError>, listed: &[Listed], now: Timestamp) -> Probe {
    let books = match books {
        Ok(books) => books,
        Err(ReadError::NoTopic(topic)) => {
            return Probe::skipped(23, format!("there is no topic {topic}: nothing was published so far"));
        }
        Err(error) => {
            let advice = "see probe 25; then `o365feed reconcile`";
            return Probe::of(23).find(Verdict::Failure, told(error), advice);
        }
    };
    if let Some(group) = &books.foreign {
        return Probe::of(23).find(
            Verdict::Failure,
            format!("the group {group} wrote to this ledger: two groups on one prefix publish everything twice"),
            format!("set kafka.group to `{group}`, or another kafka.topic_prefix"),
        );
    }
    if !books.is_whole {
        return Probe::skipped(23, format!("the ledger is too long for a short look; {RECONCILE}"));
    }
    let is_due = |content: &&Listed| {
        let began = books.began.get(&content.source);
        GRACE < now.duration_since(content.created) && began.is_none_or(|began| *began <= content.created)
    };
    let due: Vec<&Listed> = listed.iter().filter(is_due).collect();
    if due.is_empty() {
        return Probe::skipped(23, "no content was listed that is due by now");
    }
    let lacking: Vec<&&Listed> =
        due.iter().filter(|content| !books.is_settled(content.source, content.key())).collect();
    let text = format!("{} listed, {} of them settled", counted(due.len(), "content"), due.len() - lacking.len());
    match lacking.iter().map(|content| content.created).min() {
        None => Probe::of(23).see(text),
        Some(oldest) => Probe::of(23).find(
            Verdict::Warning,
            format!("{text}; the oldest that is not, was created at {oldest}"),
            format!("is `o365feed run` up (probe 25)? If it is and this stays: {RECONCILE}"),
        ),
    }
}

/// Probe 24, of one tenant.
pub(super) fn judge_deadline(books: &Result<Books, ReadError>, tenant: TenantId, now: Timestamp) -> Probe {
    let Ok(books) = books else { return Probe::skipped(24, "the listings could not be read, as probe 23 says") };
    let waits = |pending: &&Pending| pending.source.tenant == tenant && !books.is_settled(pending.source, pending.key);
    let waiting: Vec<&Pending> = books.pending.iter().filter(waits).collect();
    let Some((gone, worst)) =
        waiting.iter().map(|pending| (life_gone(pending, now), pending)).max_by(|one, other| one.0.total_cmp(&other.0))
    else {
        return Probe::of(24).see("no content that was listed waits to be published");
    };
    let text = format!(
        "{}{}; {} % of the time of the one that is worst off are gone: {} of {}, to be had until {}, id {}",
        if books.is_whole { "" } else { "at least " },
        format_args!("{} {}", counted(waiting.len(), "content"), if waiting.len() == 1 { "waits" } else { "wait" }),
        (gone * 100.0).floor(),
        worst.source.content_type,
        worst.created,
        worst.expires,
        harmless(&worst.id)
    );
    let advice =
        "see why nothing is published: `/readyz` of the connector, probes 20 and 25; what expires is lost for good";
    match gone {
        gone if gone >= 0.9 => Probe::of(24).find(Verdict::Failure, text, advice),
        gone if gone >= 0.5 => Probe::of(24).find(Verdict::Warning, text, advice),
        _ => Probe::of(24).see(text),
    }
}

/// Which part of its time a content has behind it; 1 when it has expired.
fn life_gone(pending: &Pending, now: Timestamp) -> f64 {
    let life = pending.expires.duration_since(pending.created).as_secs_f64().max(1.0);
    (now.duration_since(pending.created).as_secs_f64() / life).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ContentType;

    const NOW: i64 = 100_000;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn source() -> Source {
        Source { tenant: TenantId(Uuid::from_u128(1)), content_type: ContentType::General }
    }

    fn listed(id: &str, created: i64) -> Listed {
        Listed {
            source: source(),
            content_id: id.to_owned(),
            content_uri: String::new(),
            created: at(created),
            expires: at(created + 1_000_000),
            raw: bytes::Bytes::new(),
        }
    }

    fn books(settled: &[&str]) -> Books {
        let settled = settled.iter().map(|id| (source(), ContentKey::of(id))).collect();
        Books { settled, is_whole: true, ..Books::default() }
    }

    #[test]
    fn a_content_without_a_mark_is_missed_only_when_it_is_due() {
        let judge = |books, listed: &Listed| judge_ledger(&Ok(books), std::slice::from_ref(listed), at(NOW)).verdict;
        let (old, fresh) = (listed("a", 10), listed("b", NOW - 60));
        assert_eq!(judge(books(&["a"]), &old), Verdict::Ok);
        assert_eq!(judge(books(&[]), &old), Verdict::Warning);
        assert_eq!(judge(books(&[]), &fresh), Verdict::Skipped);
        let never = Listed { created: Timestamp::MAX, ..listed("c", 0) };
        assert_eq!(judge(books(&[]), &never), Verdict::Skipped);
        assert_eq!(judge(Books { is_whole: false, ..books(&[]) }, &old), Verdict::Skipped);
        assert_eq!(judge(Books { foreign: Some("x".into()), ..books(&["a"]) }, &old), Verdict::Failure);
        let began = HashMap::from([(source(), at(11))]);
        assert_eq!(judge(Books { began, ..books(&[]) }, &old), Verdict::Skipped);
        let unread = |error| judge_ledger(&Err(error), &[], at(NOW)).verdict;
        assert_eq!(unread(ReadError::NoTopic("t".to_owned())), Verdict::Skipped);
        assert_eq!(unread(ReadError::Stalled { partitions: 1, after: Duration::from_secs(60) }), Verdict::Failure);
    }

    #[test]
    fn half_and_nine_tenths_of_a_content_s_time_are_the_marks() {
        let judge = |gone: i64| {
            let created = at(NOW - gone);
            let key = ContentKey::of("a");
            let pending = Pending {
                source: source(),
                id: "a\u{1b}".to_owned(),
                key,
                created,
                expires: created + SignedDuration::from_secs(100),
                appended: created,
            };
            let probe =
                judge_deadline(&Ok(Books { pending: vec![pending], ..books(&["b"]) }), source().tenant, at(NOW));
            assert!(probe.evidence[0].starts_with("1 content waits; "), "{:?}", probe.evidence);
            assert!(probe.evidence[0].ends_with(", id a\u{fffd}"), "{:?}", probe.evidence);
            probe.verdict
        };
        assert_eq!([0, 49].map(judge), [Verdict::Ok; 2]);
        assert_eq!([50, 75, 89].map(judge), [Verdict::Warning; 3]);
        assert_eq!([90, 100, 5_000].map(judge), [Verdict::Failure; 3]);
        let settled = Pending {
            source: source(),
            id: "b".to_owned(),
            key: ContentKey::of("b"),
            created: at(0),
            expires: at(1),
            appended: at(0),
        };
        let books = Books { pending: vec![settled], ..books(&["b"]) };
        assert_eq!(judge_deadline(&Ok(books), source().tenant, at(NOW)).verdict, Verdict::Ok);
    }

    #[test]
    fn the_ledger_is_read_as_it_is_written() {
        let mark = |outcome| {
            let (created, settled) = (at(0), at(1));
            EntryKind::Settled(crate::domain::Mark {
                outcome,
                created,
                settled,
                recheck: crate::domain::RecheckState::NotNeeded,
                records: 1,
            })
        };
        let entry = |group, content_id, kind| Entry {
            group,
            content_type: ContentType::General,
            content_id,
            kind,
            ids: std::borrow::Cow::Borrowed(&[]),
        };
        let mut books = books(&[]);
        books.note(source().tenant, &entry("feed", "a", mark(Outcome::Published)), "feed");
        books.note(source().tenant, &entry("feed", "b", mark(Outcome::Moved)), "feed");
        books.note(source().tenant, &entry("feed", "c", EntryKind::Ids), "feed");
        assert_eq!(["a", "b", "c"].map(|id| books.is_settled(source(), ContentKey::of(id))), [true, false, false]);
        assert_eq!(books.foreign, None);
        books.note(source().tenant, &entry("other", "", EntryKind::Began { start_from: at(5) }), "feed");
        assert_eq!((books.foreign.as_deref(), books.began[&source()]), (Some("other"), at(5)));
    }
}
