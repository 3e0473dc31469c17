//! Publishes the records of a replay: each once, in transactions that also write down in the ledger what they published.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashSet},
    time::{Duration, Instant},
};

use uuid::Uuid;

use super::book::{Book, BookError};
use crate::{
    config::Settings,
    domain::{Batch, ContentKey, Listed, RecordId, Source, Way},
    kafka::{Entry, EntryKind, Frame, Message, Publisher, ReplayStep, TransactionError, partition_of},
    telemetry::Metrics,
};

/// A record that no topic takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TooLarge {
    pub(super) source: Source,
    pub(super) content_id: String,
    pub(super) bytes: u64,
}

/// What was done, as far as it is committed.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) contents: u64,
    pub(super) repeats: u64,
    pub(super) filtered: u64,
    pub(super) too_large: Vec<TooLarge>,
}

/// The producer of a replay and what it remembers. Every call blocks.
pub(super) struct Press<'a> {
    settings: &'a Settings,
    publisher: Publisher,
    pub(super) book: Book,
    /// By all presses of this run.
    done: Done,
    open: Option<Open>,
    /// Contents with a record that is too large.
    lacking: HashSet<(Source, ContentKey)>,
    /// A record whose message would be larger is not sent.
    limit: usize,
}

/// Where the memory comes from.
pub(super) enum Origin {
    /// Nothing was published so far.
    Fresh(Book),
    Ledger(Uuid),
}

/// The transaction that is open.
struct Open {
    since: Instant,
    records: u64,
    bytes: usize,
    /// Not in the ledger yet. Entries go out last: without transactions they must be true when they are written.
    ids: BTreeMap<(Source, String), Vec<RecordId>>,
    whole: BTreeSet<(Source, String)>,
    done: Done,
}

/// How long a predecessor's transaction may take to be settled.
const PREDECESSOR: Duration = Duration::from_secs(90);

/// A transaction is cut when it holds so much, whatever its age.
const MOST_RECORDS: u64 = 20_000;
const MOST_BYTES: usize = 16 << 20;

/// The header that says that a record was published again, and by which replay.
const HEADER: &str = "replay";

/// Why a press could not be set up.
#[derive(Debug, thiserror::Error)]
pub(super) enum PressError {
    #[error("could not make a producer")]
    Producer(#[from] rdkafka::error::KafkaError),
    #[error("could not begin")]
    Begin(#[from] TransactionError),
    #[error("could not read what was published")]
    Book(#[from] BookError),
}

impl<'a> Press<'a> {
    /// The settings have the replay's name as `kafka.slot`. Ends what another process of the same replay left open, then reads back
    /// what the ledger says of it, or writes there that it begins.
    ///
    /// # Errors
    /// When Kafka cannot be reached or refuses.
    pub(super) fn set_up(settings: &'a Settings, origin: Origin, done: Done, limit: usize) -> Result<Self, PressError> {
        let publisher = Publisher::new(&settings.kafka, &Metrics::new())?;
        publisher.init(PREDECESSOR)?;
        match origin {
            Origin::Fresh(book) => {
                let mut press = Self { settings, publisher, book, done, open: None, lacking: HashSet::new(), limit };
                press.write_beginning()?;
                Ok(press)
            }
            Origin::Ledger(replay) => {
                let book = Book::read(&settings.kafka, replay)?;
                Ok(Self { settings, publisher, book, done, open: None, lacking: HashSet::new(), limit })
            }
        }
    }

    /// So that the replay can be taken up again, whenever it breaks off.
    fn write_beginning(&mut self) -> Result<(), TransactionError> {
        self.publisher.begin()?;
        for (source, span) in &self.book.spans {
            let step = ReplayStep::Began { from: span.from, to: span.to };
            self.enter(*source, self.book.topic.as_deref().unwrap_or_default(), step, &[])?;
        }
        self.publisher.acknowledged()?;
        self.publisher.commit()
    }

    /// A record that is longer need not be held.
    pub(super) fn largest(&self) -> usize {
        self.limit
    }

    /// What is remembered and what was done, at the end.
    pub(super) fn close(self) -> (Book, Done) {
        (self.book, self.done)
    }

    /// Publishes of a batch what is new to this replay, and says how many records were. What the settings redact is redacted
    /// in any topic; their filters hold for the usual ones.
    pub(super) fn publish(&mut self, content: &Listed, batch: &Batch) -> Result<u64, TransactionError> {
        let (source, mut new) = (content.source, 0);
        let topic = self.book.topic.clone();
        let topic = topic.unwrap_or_else(|| self.settings.kafka.output_topic(source.tenant, source.content_type));
        let settings = self.settings;
        let frame = Frame::of(&settings.kafka, settings.redact, content, topic);
        let frame = frame.with_header(HEADER, self.book.replay.to_string());
        // Whoever names a topic wants all that there is, what the filters keep from the usual topics too.
        let takes_all = self.book.topic.is_some();
        let limit = self.limit;
        self.open()?;
        for record in batch.iter().filter(|record| self.book.is_new(source, record.identity)) {
            let Some(open) = &mut self.open else { break };
            new += 1;
            let way = if takes_all { Way::Usual } else { settings.filter.way_of(source.content_type, &record) };
            if way == Way::Dropped {
                open.done.filtered += 1;
                continue;
            }
            let message = Some(frame.message(&record)).filter(|message| Frame::fits(&record, message, limit));
            let Some(message) = message else {
                let bytes = record.oversize.unwrap_or(record.bytes.len() as u64);
                // Never whole: resumed with a larger limit, it brings what is too large now.
                self.lacking.insert((source, content.key()));
                open.done.too_large.push(TooLarge { source, content_id: content.content_id.clone(), bytes });
                continue;
            };
            self.publisher.send(match way {
                Way::Topic(topic) => Message { topic, ..message },
                Way::Usual | Way::Dropped => message,
            })?;
            open.records += 1;
            open.bytes += record.bytes.len();
            open.ids.entry((source, content.content_id.clone())).or_default().push(record.identity);
        }
        if self.open.as_ref().is_some_and(|open| MOST_RECORDS <= open.records || MOST_BYTES <= open.bytes) {
            self.commit()?;
        }
        Ok(new)
    }

    /// Nothing more of the content is to come; `repeats` of its records were published from another one.
    pub(super) fn is_whole(&mut self, content: &Listed, repeats: u64) -> Result<(), TransactionError> {
        self.open()?;
        if let Some(open) = &mut self.open {
            if !self.lacking.contains(&(content.source, content.key())) {
                open.whole.insert((content.source, content.content_id.clone()));
            }
            open.done.contents += 1;
            open.done.repeats += repeats;
        }
        Ok(())
    }

    fn open(&mut self) -> Result<(), TransactionError> {
        if self.open.is_none() {
            self.publisher.begin()?;
            let (ids, whole, done) = (BTreeMap::new(), BTreeSet::new(), Done::default());
            self.open = Some(Open { since: Instant::now(), records: 0, bytes: 0, ids, whole, done });
        }
        Ok(())
    }

    /// Commits what has been open for as long as `kafka.commit_interval`: a transaction must not wait for the API.
    pub(super) fn commit_if_due(&mut self) -> Result<(), TransactionError> {
        let interval = self.settings.kafka.commit_interval;
        if self.open.as_ref().is_some_and(|open| interval <= open.since.elapsed()) { self.commit() } else { Ok(()) }
    }

    /// Commits what is open. After an error this press is of no use any more: what is true is in the ledger.
    pub(super) fn commit(&mut self) -> Result<(), TransactionError> {
        let Some(open) = self.open.take() else { return Ok(()) };
        self.publisher.acknowledged()?;
        let mut published = 0;
        for ((source, content_id), ids) in &open.ids {
            published += ids.len() as u64;
            for ids in ids.chunks(Entry::MAX_IDS) {
                self.enter(*source, content_id, ReplayStep::Ids, ids)?;
            }
        }
        for (source, content_id) in &open.whole {
            self.enter(*source, content_id, ReplayStep::Whole, &[])?;
        }
        self.publisher.acknowledged()?;
        self.publisher.commit()?;
        let whole = open.whole.iter().map(|(source, content_id)| (*source, ContentKey::of(content_id)));
        self.book.commit(whole, published);
        self.done.add(open.done);
        Ok(())
    }

    /// Takes back what is open, so that nobody waits for it. True when a topic refused a message for its size.
    pub(super) fn abandon(self) -> (Done, bool) {
        // A broker that does not hear of it takes the transaction back by itself, after its time-out.
        let _ = self.publisher.abort();
        (self.done, self.publisher.met_oversize())
    }

    fn enter(
        &self,
        source: Source,
        content_id: &str,
        step: ReplayStep,
        ids: &[RecordId],
    ) -> Result<(), TransactionError> {
        let entry = Entry {
            group: &self.settings.kafka.group,
            content_type: source.content_type,
            content_id,
            kind: EntryKind::Replayed { replay: self.book.replay, step },
            ids: Cow::Borrowed(ids),
        };
        self.publisher.send(Message {
            topic: &self.settings.kafka.ledger_topic(),
            partition: Some(partition_of(source.tenant, self.settings.kafka.partitions)),
            key: Some(source.tenant.to_string().as_bytes()),
            value: entry.encode().into(),
            headers: None,
            timestamp: None,
        })
    }
}

impl Done {
    fn add(&mut self, other: Self) {
        self.contents += other.contents;
        self.repeats += other.repeats;
        self.filtered += other.filtered;
        self.too_large.extend(other.too_large);
    }
}
