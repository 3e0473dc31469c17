//! Open, commit, abort: the order of steps that docs/exactly-once.md demands.

use std::{
    borrow::Cow,
    mem, thread,
    time::{Duration, Instant},
};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::ConsumerGroupMetadata,
    error::{KafkaError, RDKafkaErrorCode},
};
use tracing::{Span, debug, error, span::EnteredSpan, warn};

use super::{Partition, Writer, WriterError, owned::Unwritten, tally::Tally};
use crate::{
    config::Delivery,
    domain::{Listing, RecordId, TenantId},
    kafka::{Entry, EntryKind, Message, TransactionError},
    pipeline::spans,
};

/// The transaction that is open.
pub struct Transaction {
    /// Who we were in the group when it opened (rule 4). At-least-once has no use for it.
    member: Option<ConsumerGroupMetadata>,
    opened: Instant,
    pub span: Span,
    pub tally: Tally,
    /// Ledger entries, sent after the records they speak of: at-least-once needs them to be true (rule 22).
    entries: Vec<Pending>,
}

/// A ledger entry that is not sent yet.
struct Pending {
    listing: Listing,
    partition: i32,
    kind: EntryKind,
    ids: Unwritten,
}

/// A transaction is cut when it holds so much, whatever its age. Ids are counted and not records: those of records that
/// are dropped or were published long ago are written too.
const MOST_IDS: u64 = 50_000;
const MOST_BYTES: u64 = 24 << 20;

/// Aborts without a commit between them after which `/readyz` tells.
const MANY_ABORTS: u32 = 3;

/// The record limit is never lowered below this.
const SMALLEST_LIMIT: usize = 64 * 1024;

impl Transaction {
    pub fn due_in(&self, interval: Duration) -> Duration {
        interval.saturating_sub(self.opened.elapsed())
    }

    fn is_due(&self, interval: Duration) -> bool {
        self.due_in(interval).is_zero() || MOST_IDS <= self.tally.ids || MOST_BYTES <= self.tally.bytes
    }
}

impl Writer {
    /// Opens a transaction if none is. Rebalances are looked at *after* the metadata was taken: a generation that is
    /// newer than our picture of what is ours would let us publish for a partition that another member has.
    pub(super) fn open(&mut self) -> Result<(), WriterError> {
        if self.open.is_some() {
            return Ok(());
        }
        let member = match self.parts.settings.kafka.delivery {
            Delivery::AtLeastOnce => None,
            Delivery::ExactlyOnce => {
                Some(self.parts.member.metadata().ok_or_else(|| WriterError::Broken("no group metadata".to_owned()))?)
            }
        };
        self.take_events()?;
        let begun = self.parts.publisher.begin();
        self.opened += 1;
        let (opened, span) = (Instant::now(), spans::transaction(self.opened));
        self.open = Some(Transaction { member, opened, span, tally: Tally::default(), entries: Vec::new() });
        self.survive(begun)
    }

    /// What is logged while it is held belongs to the open transaction, if there is one.
    pub(super) fn within(&self) -> EnteredSpan {
        self.open.as_ref().map_or(Span::none(), |open| open.span.clone()).entered()
    }

    pub(super) fn commit_if_due(&mut self) -> Result<(), WriterError> {
        let interval = self.parts.settings.kafka.commit_interval;
        if self.open.as_ref().is_some_and(|open| open.is_due(interval)) { self.commit() } else { Ok(()) }
    }

    /// Commits what is open.
    pub(super) fn commit(&mut self) -> Result<(), WriterError> {
        if self.open.is_none() {
            return Ok(());
        }
        let _within = self.within();
        let started = Instant::now();
        let outcome = self.try_commit();
        self.parts.committing.over();
        let metrics = &self.parts.metrics;
        if let Err(fault) = outcome {
            if matches!(fault, TransactionError::Unknown(_)) {
                metrics.transactions_total.with_label_values(&["unknown"]).inc();
            }
            return self.survive(Err(fault));
        }
        metrics.transactions_total.with_label_values(&["committed"]).inc();
        metrics.transaction_commit_seconds.observe(started.elapsed().as_secs_f64());
        self.aborts_in_a_row = 0;
        self.parts.health.ok("kafka");
        self.parts.health.ok("publishing");
        self.troubled = None;
        for state in self.partitions.values_mut() {
            if let Partition::Owned(owned) = state {
                owned.commit();
            }
        }
        if let Some(open) = self.open.take() {
            let contents: usize = open.tally.sources.values().map(|source| source.outcomes.len()).sum();
            debug!(contents, ids = open.tally.ids, bytes = open.tally.bytes, "committed");
            self.account(open.tally);
        }
        Ok(())
    }

    fn try_commit(&mut self) -> Result<(), TransactionError> {
        self.parts.committing.begins();
        if self.parts.settings.kafka.delivery == Delivery::AtLeastOnce {
            // Records first: an entry must be true when it is written (rule 22).
            self.parts.publisher.acknowledged()?;
        }
        self.write_entries()?;
        self.parts.publisher.acknowledged()?;
        let offsets = self.offsets();
        let Some(open) = &self.open else { return Ok(()) };
        match &open.member {
            Some(member) => {
                // In every transaction, also when no offset moves: it is the only check of our generation (rule 2).
                self.parts.committing.begins();
                self.parts.publisher.offsets(&offsets, member)?;
                self.parts.committing.begins();
                self.parts.publisher.commit()
            }
            None => {
                // The ledger is the truth and offsets may lag behind it.
                if let Err(fault) = self.parts.member.commit(&offsets) {
                    warn!("offsets not committed: {fault}");
                }
                Ok(())
            }
        }
    }

    /// The lowest listing of each partition that is not settled; explicit numbers, never none (rules 2 and 19).
    fn offsets(&self) -> TopicPartitionList {
        let topic = self.parts.settings.kafka.listings_topic();
        let mut offsets = TopicPartitionList::new();
        for (partition, state) in &self.partitions {
            if let Partition::Owned(owned) = state {
                let offset = Offset::Offset(owned.backlog.offset_to_commit().max(0));
                // Fails only for numbers that are no offsets.
                if let Err(fault) = offsets.add_partition_offset(&topic, *partition, offset) {
                    warn!("could not add an offset: {fault}");
                }
            }
        }
        offsets
    }

    /// Has a ledger entry written with the open transaction.
    pub(super) fn enter(&mut self, listing: &Listing, partition: i32, kind: EntryKind, ids: Unwritten) {
        if let Some(open) = &mut self.open {
            open.entries.push(Pending { listing: listing.clone(), partition, kind, ids });
        }
    }

    /// Sends the entries of contents that ended, and the ids of those that are half published.
    fn write_entries(&mut self) -> Result<(), TransactionError> {
        let mut entries = self.open.as_mut().map(|open| mem::take(&mut open.entries)).unwrap_or_default();
        for (partition, state) in &mut self.partitions {
            let Partition::Owned(owned) = state else { continue };
            for running in owned.running.values_mut().filter(|running| !running.unwritten.is_empty()) {
                let (listing, ids) = (running.listing.clone(), mem::take(&mut running.unwritten));
                entries.push(Pending { listing, partition: *partition, kind: EntryKind::Ids, ids });
            }
        }
        entries.iter().try_for_each(|entry| self.write_entry(entry))
    }

    /// Writes an entry of a content, in as many messages as its ids need; the last one carries the kind.
    fn write_entry(&self, pending: &Pending) -> Result<(), TransactionError> {
        let Pending { kind, ids: Unwritten { published, filtered }, .. } = pending;
        filtered.chunks(Entry::MAX_IDS).try_for_each(|ids| self.write_ids(pending, EntryKind::Filtered, ids))?;
        let mut rest = published.as_slice();
        while Entry::MAX_IDS < rest.len() {
            let (now, later) = rest.split_at(Entry::MAX_IDS);
            self.write_ids(pending, EntryKind::Ids, now)?;
            rest = later;
        }
        // Ids that are none say nothing, unlike an end without any.
        if *kind == EntryKind::Ids && rest.is_empty() { Ok(()) } else { self.write_ids(pending, *kind, rest) }
    }

    fn write_ids(&self, pending: &Pending, kind: EntryKind, ids: &[RecordId]) -> Result<(), TransactionError> {
        let content = &pending.listing.content;
        let entry = Entry {
            group: &self.parts.settings.kafka.group,
            content_type: content.source.content_type,
            content_id: &content.content_id,
            kind,
            ids: Cow::Borrowed(ids),
        };
        self.send_entry(content.source.tenant, pending.partition, &entry)
    }

    pub(super) fn send_entry(
        &self,
        tenant: TenantId,
        partition: i32,
        entry: &Entry<'_>,
    ) -> Result<(), TransactionError> {
        self.parts.publisher.send(Message {
            topic: &self.parts.settings.kafka.ledger_topic(),
            partition: Some(partition),
            key: Some(tenant.to_string().as_bytes()),
            value: entry.encode().into(),
            headers: None,
            timestamp: None,
        })
    }

    /// What a step into the transaction came to: aborts are survived here, the rest ends the writer.
    pub(super) fn survive(&mut self, outcome: Result<(), TransactionError>) -> Result<(), WriterError> {
        if let Some(ended) = self.ended.take() {
            return Err(ended);
        }
        match outcome {
            Ok(()) => Ok(()),
            Err(TransactionError::Abort(cause)) => {
                let within = self.within();
                warn!("transaction aborted: {cause}");
                drop(within);
                self.abort()?;
                // A producer that has lost a partition's leader never finds it again; another one does (rule 26).
                let timed_out = cause.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageTimedOut);
                match timed_out && MANY_ABORTS <= self.aborts_in_a_row {
                    true => Err(WriterError::Broken(cause.to_string())),
                    false => Ok(()),
                }
            }
            Err(TransactionError::Fenced(cause)) => {
                let opened = self.open.as_ref().map(|open| open.opened);
                Err(self.fenced(&cause, opened))
            }
            Err(TransactionError::Unauthorised(cause)) => Err(WriterError::Unauthorised(cause.to_string())),
            Err(TransactionError::Unknown(cause)) => Err(WriterError::Broken(cause.to_string())),
        }
    }

    /// A transaction that timed out is fenced by the broker, any other by another process on our slot.
    fn fenced(&self, cause: &KafkaError, opened: Option<Instant>) -> WriterError {
        let timeout = self.parts.settings.kafka.transaction_timeout;
        match opened.is_some_and(|opened| timeout <= opened.elapsed()) {
            true => WriterError::Broken(format!("the transaction timed out: {cause}")),
            false => WriterError::Fenced(cause.to_string()),
        }
    }

    /// Takes back the open transaction, and all that was remembered with it (rule 9).
    pub(super) fn abort(&mut self) -> Result<(), WriterError> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let _within = open.span.clone().entered();
        for state in self.partitions.values_mut() {
            if let Partition::Owned(owned) = state {
                owned.abort();
            }
        }
        self.parts.metrics.transactions_total.with_label_values(&["aborted"]).inc();
        self.aborts += 1;
        let ended = self.parts.publisher.abort();
        debug!("rolled back; every fetch that was running begins again");
        self.aborts_in_a_row += 1;
        if self.parts.publisher.met_oversize() {
            self.lower_the_record_limit();
        }
        if self.aborts_in_a_row == MANY_ABORTS {
            self.parts.health.not_ok("publishing", "transactions are aborted again and again; the log says why");
        }
        // The same trouble again and again must not keep the broker busy; rebalances wait at most so long.
        thread::sleep(Duration::from_millis(20 << self.aborts_in_a_row.min(6)));
        match ended {
            Ok(()) => Ok(()),
            Err(TransactionError::Fenced(cause)) => Err(self.fenced(&cause, Some(open.opened))),
            Err(fault) => Err(WriterError::Broken(fault.to_string())),
        }
    }

    /// A topic takes less than the settings say. Its records must not be sent again and again, so the larger ones
    /// become gaps, until the next start.
    fn lower_the_record_limit(&mut self) {
        self.record_limit = (self.record_limit / 2).max(SMALLEST_LIMIT);
        error!(
            "a topic refused a message for its size; records above {} bytes become gaps from here on: raise \
             max.message.bytes of the output topics to what kafka.max_record_bytes needs, and restart",
            self.record_limit
        );
    }
}
