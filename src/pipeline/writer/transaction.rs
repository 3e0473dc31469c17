//! Open, commit, abort: the order of steps that docs/exactly-once.md demands.

use std::{
    borrow::Cow,
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use rdkafka::{Offset, TopicPartitionList, consumer::ConsumerGroupMetadata};
use tracing::{debug, warn};

use super::{Partition, Writer, WriterError, tally::Tally};
use crate::{
    config::Delivery,
    domain::{Listing, RecordId, TenantId},
    kafka::{Entry, EntryKind, Message, TransactionError},
};

/// The transaction that is open.
pub struct Transaction {
    /// Who we were in the group when it opened (rule 4). At-least-once has no use for it.
    member: Option<ConsumerGroupMetadata>,
    opened: Instant,
    pub tally: Tally,
}

/// A transaction is cut when it holds so much, whatever its age.
const MOST_RECORDS: u64 = 50_000;
const MOST_BYTES: u64 = 24 << 20;

impl Transaction {
    pub fn due_in(&self, interval: Duration) -> Duration {
        interval.saturating_sub(self.opened.elapsed())
    }

    fn is_due(&self, interval: Duration) -> bool {
        self.due_in(interval).is_zero() || MOST_RECORDS <= self.tally.records || MOST_BYTES <= self.tally.bytes
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
        self.open = Some(Transaction { member, opened: Instant::now(), tally: Tally::default() });
        self.survive(begun)
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
        let started = Instant::now();
        self.parts.committing.store(Timestamp::now().as_millisecond(), Ordering::Release);
        let outcome = self.try_commit();
        self.parts.committing.store(0, Ordering::Release);
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
        self.troubled = None;
        self.record_limit = self.parts.settings.kafka.max_record_bytes;
        for state in self.partitions.values_mut() {
            if let Partition::Owned(owned) = state {
                owned.commit();
            }
        }
        if let Some(open) = self.open.take() {
            debug!(records = open.tally.records, bytes = open.tally.bytes, "committed");
            self.account(open.tally);
        }
        Ok(())
    }

    fn try_commit(&mut self) -> Result<(), TransactionError> {
        let transactional = self.parts.settings.kafka.delivery == Delivery::ExactlyOnce;
        if !transactional {
            // Records first: an entry must be true when it is written (rule 22).
            self.parts.publisher.acknowledged()?;
        }
        self.write_ids()?;
        self.parts.publisher.acknowledged()?;
        let offsets = self.offsets();
        let Some(open) = &self.open else { return Ok(()) };
        match &open.member {
            Some(member) => {
                // In every transaction, also when no offset moves: it is the only check of our generation (rule 2).
                self.parts.publisher.offsets(&offsets, member)?;
                self.parts.publisher.commit()
            }
            None => self.parts.member.commit(&offsets).map_err(TransactionError::Abort),
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

    /// Ids of contents that are half published.
    fn write_ids(&mut self) -> Result<(), TransactionError> {
        let mut unwritten: Vec<(Listing, i32, Vec<RecordId>)> = Vec::new();
        for (partition, state) in &mut self.partitions {
            let Partition::Owned(owned) = state else { continue };
            for running in owned.running.values_mut().filter(|running| !running.unwritten.is_empty()) {
                unwritten.push((running.listing.clone(), *partition, std::mem::take(&mut running.unwritten)));
            }
        }
        for (listing, partition, ids) in unwritten {
            self.write_entry(&listing, partition, EntryKind::Ids, ids)?;
        }
        Ok(())
    }

    /// Writes an entry of a content, in as many messages as its ids need; the last one carries the kind.
    pub(super) fn write_entry(
        &self,
        listing: &Listing,
        partition: i32,
        kind: EntryKind,
        ids: Vec<RecordId>,
    ) -> Result<(), TransactionError> {
        let source = listing.content.source;
        let mut rest = ids.as_slice();
        loop {
            let (now, later) = rest.split_at(rest.len().min(Entry::MAX_IDS));
            let entry = Entry {
                group: &self.parts.settings.kafka.group,
                content_type: source.content_type,
                content_id: &listing.content.content_id,
                kind: if later.is_empty() { kind } else { EntryKind::Ids },
                ids: Cow::Borrowed(now),
            };
            self.send_entry(source.tenant, partition, &entry)?;
            if later.is_empty() {
                return Ok(());
            }
            rest = later;
        }
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
            value: &entry.encode(),
            headers: None,
            timestamp: None,
        })
    }

    /// Takes back the open transaction, and all that was remembered with it (rule 9).
    pub(super) fn abort(&mut self) -> Result<(), WriterError> {
        if self.open.take().is_none() {
            return Ok(());
        }
        for state in self.partitions.values_mut() {
            if let Partition::Owned(owned) = state {
                owned.abort();
            }
        }
        self.parts.metrics.transactions_total.with_label_values(&["aborted"]).inc();
        self.aborts += 1;
        self.aborts_in_a_row += 1;
        let ended = self.parts.publisher.abort();
        // The same trouble again and again must not keep the broker busy; rebalances wait at most so long.
        thread::sleep(Duration::from_millis(20 << self.aborts_in_a_row.min(6)));
        match ended {
            Ok(()) => Ok(()),
            Err(TransactionError::Fenced(cause)) => Err(self.slot_taken(cause.to_string())),
            Err(fault) => Err(WriterError::Broken(fault.to_string())),
        }
    }
}
