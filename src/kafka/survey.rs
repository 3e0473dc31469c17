//! What ledger, listings and gaps know of some sources, read by somebody who owns none of them: beside a running connector,
//! without joining its group, and as often as wanted.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
};
use serde_json::error::Category;
use tracing::debug;

use super::{
    client::{Role, client_config},
    entry::EntryKind,
    gaps::Gap,
    ledger::{LoggedEntry, offset_at, read_ledger},
    listings,
    reader::{self, Next, ReadError, ReadFrom, ReadTo, TopicReader},
    restore::RestoreError,
};
use crate::{
    config::{Kafka, Settings, StartFrom},
    domain::{ContentKey, Day, Origin, Source, reconcile::Known},
};

/// The topics, as far as they were read.
pub struct Survey {
    settings: Kafka,
    start_from: StartFrom,
    /// What was created before is not asked about.
    since: Timestamp,
    known: HashMap<Source, Known>,
    /// Gaps of the sources asked about, and those of listings that were lost, whose sources nobody knows.
    gaps: Vec<Gap>,
    /// Where reading the ledger goes on, by partition.
    ledger_read_to: HashMap<i32, i64>,
    listings_read_at: Option<Timestamp>,
    newest_entry: Option<Timestamp>,
}

#[derive(Debug, thiserror::Error)]
pub enum SurveyError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("ask Kafka for the group's offsets")]
    Offsets(#[source] KafkaError),
    #[error(transparent)]
    Ledger(#[from] RestoreError),
    #[error(
        "use {topic}: it has {found} partitions and kafka.partitions says {expected}; a tenant would be looked for in the wrong place"
    )]
    Partitions { topic: String, found: usize, expected: i32 },
    /// Where the message is wrong, and no word of it.
    #[error("read the gap at {topic} [{partition}] @ {offset}: {why}")]
    Gap { topic: String, partition: i32, offset: i64, why: String },
}

/// Longest wait for one answer of a broker.
const ANSWER: Duration = Duration::from_secs(30);

/// An id that came again on the same day is not written again, so a content's ids may be older than the content by a
/// day; and the clocks of service, broker and connector differ by less than another.
const BEFORE: SignedDuration = SignedDuration::from_hours(48);

/// What lies between two looks at the listings is read twice to this extent, whatever the clocks say.
const AGAIN: SignedDuration = SignedDuration::from_hours(1);

impl Survey {
    /// Looks whether the topics are there, and reads nothing yet. Contents created before `since` are not asked about.
    ///
    /// # Errors
    /// [`ReadError::NoTopic`], or another number of partitions than the settings have.
    pub fn new(settings: &Settings, sources: &[Source], since: Timestamp) -> Result<Self, SurveyError> {
        let kafka = settings.kafka.clone();
        let client: BaseConsumer = client_config(&kafka, Role::Watermarks).create().map_err(ReadError::Kafka)?;
        for topic in [kafka.listings_topic(), kafka.ledger_topic()] {
            let found = reader::partitions(&client, &kafka, &topic)?.len();
            if i32::try_from(found) != Ok(kafka.partitions) {
                return Err(SurveyError::Partitions { topic, found, expected: kafka.partitions });
            }
        }
        Ok(Self {
            settings: kafka,
            start_from: settings.listing.start_from,
            since,
            known: sources.iter().map(|source| (*source, Known::default())).collect(),
            gaps: Vec::new(),
            ledger_read_to: HashMap::new(),
            listings_read_at: None,
            newest_entry: None,
        })
    }

    /// Reads the topics to their present ends; a second call goes on where the first ended. Blocks, for minutes when the
    /// ledger is long.
    ///
    /// A listing is read after the ledger, and the ledger after the group's offset: what was settled in between waits, as
    /// far as this can tell, and nothing that was settled or waits is unknown.
    ///
    /// # Errors
    /// See [`SurveyError`].
    pub fn read(&mut self) -> Result<(), SurveyError> {
        let began = Instant::now();
        self.read_offsets()?;
        self.read_ledger()?;
        self.read_listings()?;
        self.read_gaps()?;
        let ids: usize = self.known.values().map(Known::ids).sum();
        debug!(ids, took_ms = began.elapsed().as_millis(), "the topics are read");
        Ok(())
    }

    pub fn known(&self) -> &HashMap<Source, Known> {
        &self.known
    }

    /// In their order in the topic: the last one of a content counts.
    pub fn gaps(&self) -> &[Gap] {
        &self.gaps
    }

    /// When the ledger was last written to, of all that was read.
    pub fn newest_entry(&self) -> Option<Timestamp> {
        self.newest_entry
    }

    /// Asked by a consumer that bears the group's name and subscribes to nothing, so the group does not notice.
    fn read_offsets(&mut self) -> Result<(), SurveyError> {
        let topic = self.settings.listings_topic();
        let client: BaseConsumer =
            client_config(&self.settings, Role::CommittedReader).create().map_err(ReadError::Kafka)?;
        let mut asked = TopicPartitionList::new();
        for partition in 0..self.settings.partitions {
            asked.add_partition(&topic, partition);
        }
        let told = client.committed_offsets(asked, ANSWER).map_err(SurveyError::Offsets)?;
        for (source, known) in &mut self.known {
            let partition = super::partition_of(source.tenant, self.settings.partitions);
            let element = told.find_partition(&topic, partition);
            known.committed(match element.map(|element| (element.error(), element.offset())) {
                Some((Err(fault), _)) => return Err(SurveyError::Offsets(fault)),
                Some((Ok(()), Offset::Offset(offset))) => offset,
                // Nothing committed yet: everything waits that is not settled.
                _ => 0,
            });
        }
        Ok(())
    }

    fn read_ledger(&mut self) -> Result<(), SurveyError> {
        let topic = self.settings.ledger_topic();
        let marks: BaseConsumer = client_config(&self.settings, Role::Watermarks).create().map_err(ReadError::Kafka)?;
        let reader: BaseConsumer =
            client_config(&self.settings, Role::CommittedReader).create().map_err(ReadError::Kafka)?;
        let needed = self.since - BEFORE;
        for partition in 0..self.settings.partitions {
            let (low, end) = marks.fetch_watermarks(&topic, partition, ANSWER).map_err(ReadError::Kafka)?;
            let is_first = !self.ledger_read_to.contains_key(&partition);
            let from = match self.ledger_read_to.get(&partition) {
                Some(read_to) => *read_to,
                None => offset_at(&marks, &topic, partition, needed).map_err(ReadError::Kafka)?,
            };
            // Retention, or somebody, has taken away something that this comparison would have needed.
            let is_cut = is_first && 0 < low && from <= low;
            let from = match self.start_from {
                // Where a source began may have been written long ago.
                StartFrom::Now | StartFrom::At(_) if is_first => low,
                _ => from.max(low),
            };
            let mut first = None;
            let known = &mut self.known;
            let newest = &mut self.newest_entry;
            read_ledger(&self.settings, &reader, partition, from..end, |logged| {
                first = first.or(logged.appended);
                *newest = (*newest).max(logged.appended);
                if let Some(known) = known.get_mut(&logged.source) {
                    take(known, &logged, needed);
                }
            })?;
            self.ledger_read_to.insert(partition, end.max(from));
            if is_cut {
                self.is_known_from(partition, first.unwrap_or_else(Timestamp::now));
            }
        }
        Ok(())
    }

    /// The ledger of this partition begins at `first`. An id that came again later that day was not written again, so
    /// only from the next midnight on does it tell of everything.
    fn is_known_from(&mut self, partition: i32, first: Timestamp) {
        const DAY: i64 = 24 * 60 * 60;
        let midnight = (first.as_second().div_euclid(DAY) + 1) * DAY;
        let midnight = Timestamp::from_second(midnight).unwrap_or(Timestamp::MAX);
        for (source, known) in &mut self.known {
            if super::partition_of(source.tenant, self.settings.partitions) == partition {
                known.knows_from(midnight);
            }
        }
    }

    fn read_listings(&mut self) -> Result<(), SurveyError> {
        let from = self.listings_read_at.map_or(self.since - BEFORE, |before| before - AGAIN);
        self.listings_read_at = Some(Timestamp::now());
        let topics = [self.settings.listings_topic()];
        let mut reader = TopicReader::open(&self.settings, &topics, ReadFrom::Time(from), ReadTo::EndOfNow)?;
        loop {
            let message = match reader.next()? {
                Next::Message(message) => message,
                Next::Quiet => continue,
                Next::End => return Ok(()),
            };
            let (key, headers) = (message.key(), message.headers());
            let listing = listings::decode(key, message.payload(), headers, message.timestamp().to_millis());
            // A message that is no listing is passed over by the owner as well.
            let Ok(listing) = listing else { continue };
            if let Some(known) = self.known.get_mut(&listing.content.source) {
                let put_back = (listing.origin == Origin::Repair).then_some(listing.appended);
                known.listed(listing.content.key(), message.offset(), put_back);
            }
        }
    }

    /// All of it each time: gaps are few, and their topic has no clock of the broker's.
    fn read_gaps(&mut self) -> Result<(), SurveyError> {
        let topics = [self.settings.gaps_topic()];
        let mut reader = TopicReader::open(&self.settings, &topics, ReadFrom::Start, ReadTo::EndOfNow)?;
        self.gaps.clear();
        loop {
            let message = match reader.next()? {
                Next::Message(message) => message,
                Next::Quiet => continue,
                Next::End => return Ok(()),
            };
            let gap = Gap::from_json(message.payload().unwrap_or_default()).map_err(|fault| SurveyError::Gap {
                topic: message.topic().to_owned(),
                partition: message.partition(),
                offset: message.offset(),
                why: place(&fault),
            })?;
            self.take_gap(gap);
        }
    }

    fn take_gap(&mut self, gap: Gap) {
        let source = gap.tenant.zip(gap.content_type).map(|(tenant, content_type)| Source { tenant, content_type });
        let Some(source) = source else {
            self.gaps.push(gap);
            return;
        };
        let Some(known) = self.known.get_mut(&source) else { return };
        let key = gap.content_id.as_deref().map(ContentKey::of);
        match (key, &gap.record, gap.span) {
            (Some(key), Some(record), _) => known.too_large(key, record.record_id.as_deref(), record.size),
            (Some(key), None, _) if gap.closed => known.gap_closed(key),
            (Some(key), None, _) => known.gap_opened(key),
            (None, _, Some(span)) => known.unlisted(span.from, span.to),
            (None, _, None) => {}
        }
        self.gaps.push(gap);
    }
}

/// An entry of a source that is asked about. Ids from before `needed` are of no use.
fn take(known: &mut Known, logged: &LoggedEntry<'_>, needed: Timestamp) {
    let appended = logged.appended.unwrap_or_else(Timestamp::now);
    let ids = if appended < needed { &[] } else { &logged.entry.ids[..] };
    // What an entry's kind says of its ids.
    let put = match logged.entry.kind {
        EntryKind::Began { start_from } => return known.began(start_from),
        // A replay published once more what may or may not have been published: no proof of either.
        EntryKind::Listed { .. } | EntryKind::Replayed { .. } => return,
        EntryKind::Filtered => Known::filtered,
        EntryKind::Ids => Known::published,
        EntryKind::Settled(mark) => {
            known.settled(ContentKey::of(logged.entry.content_id), mark);
            Known::published
        }
    };
    ids.iter().for_each(|id| put(known, *id, Day::of(appended)));
}

/// What is wrong with JSON and where; serde_json's own words may quote it.
fn place(fault: &serde_json::Error) -> String {
    let kind = fault.classify();
    let newer = if kind == Category::Data { "; a newer o365feed may have written it" } else { "" };
    format!("{kind:?} error at line {} column {}{newer}", fault.line(), fault.column())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_is_no_gap_is_not_quoted() {
        let fault = Gap::from_json(br#"{"reason":"expired","closed":false,"attempts":"alice"}"#).unwrap_err();
        assert!(fault.to_string().contains("alice"), "it is quoted no more: {fault}");
        let told = place(&fault);
        assert!(told.starts_with("Data error at line 1 column ") && !told.contains("alice"), "{told}");
    }
}
