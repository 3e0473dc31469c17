//! Records, beginnings and gaps into the open transaction.

use jiff::Timestamp;
use tracing::error;

use super::{Ticket, Writer, intake::Intake, owned::Owned, ownership::Beginnings};
use crate::{
    domain::{Batch, GapReason, Listing, Source},
    kafka::{Entry, EntryKind, Gap, Message, TransactionError, UnlistedSpan},
};

impl Writer {
    /// Publishes of a batch what is not published yet.
    pub(super) fn publish(&mut self, ticket: Ticket, batch: &Batch) -> Result<(), TransactionError> {
        if batch.is_empty() || self.current(ticket).is_none() {
            return Ok(());
        }
        self.open_for_sending()?;
        // The open may have found that the partition is not ours any more.
        let now = Timestamp::now();
        let Some(mut intake) = self.intake(ticket, now) else { return Ok(()) };
        for record in batch.iter() {
            intake.take(&record)?;
        }
        let (listing, too_large) = intake.finish();
        // A record that no topic takes is named, and the rest of its content goes on.
        for record in too_large {
            let gap = Gap { record: Some(record), ..gap_of(&listing, GapReason::Oversize, now) };
            self.send_gap(listing.content.source, &gap)?;
        }
        Ok(())
    }

    /// What the records of a batch need; `None` when the ticket means nothing any more.
    fn intake(&mut self, ticket: Ticket, now: Timestamp) -> Option<Intake<'_>> {
        let Self { parts, partitions, open, record_limit, .. } = self;
        let Owned { ledgers, running, .. } = super::current(partitions, ticket)?;
        let running = running.get_mut(&ticket.attempt)?;
        let source = running.listing.content.source;
        let ledger = ledgers.entry(source).or_default();
        Some(Intake::new(
            &parts.settings,
            &parts.publisher,
            *record_limit,
            now,
            ledger,
            running,
            &mut open.as_mut()?.tally,
        ))
    }

    /// [`Writer::open`] for those who can only abort; what ends the writer comes again with the next look.
    pub(super) fn open_for_sending(&mut self) -> Result<(), TransactionError> {
        self.open().map_err(|ended| {
            self.ended = Some(ended);
            TransactionError::Abort(rdkafka::error::KafkaError::Canceled)
        })
    }

    /// Tells of a gap: in the topic, in the metrics once committed, and in the log.
    pub(super) fn send_gap(&mut self, source: Source, gap: &Gap) -> Result<(), TransactionError> {
        self.send_gap_message(gap)?;
        if !gap.closed {
            self.tally(source, |tally| tally.gaps.push(gap.reason));
            let _within = self.within();
            error!(
                %source, reason = gap.reason.as_str(), content_id = gap.content_id, attempts = gap.attempts,
                last_answer = gap.last_answer, "a gap: something of this source is not in Kafka"
            );
        }
        Ok(())
    }

    fn send_gap_message(&self, gap: &Gap) -> Result<(), TransactionError> {
        let lost = gap.listings.as_ref().map(|listings| listings.partition.to_string());
        let source = gap.tenant.zip(gap.content_type).map(|(tenant, kind)| format!("{tenant}/{kind}"));
        let key = gap.content_id.clone().or(lost).or(source).unwrap_or_default();
        self.parts.publisher.send(Message {
            topic: &self.parts.settings.kafka.gaps_topic(),
            partition: Some(0),
            key: Some(key.as_bytes()),
            value: gap.to_json().into(),
            headers: None,
            timestamp: None,
        })
    }

    /// Where sources begin, and what was lost while nobody ran.
    pub(super) fn write_beginnings(
        &mut self,
        partition: i32,
        epoch: u64,
        beginnings: &Beginnings,
    ) -> Result<(), TransactionError> {
        if beginnings.floors.is_empty() && beginnings.lost.is_none() {
            return Ok(());
        }
        self.open_for_sending()?;
        // The open may have found that the partition is not ours any more.
        if !self.is_owned(partition, epoch) {
            return Ok(());
        }
        for (source, start_from) in &beginnings.floors {
            let entry = Entry {
                group: &self.parts.settings.kafka.group,
                content_type: source.content_type,
                content_id: "",
                kind: EntryKind::Began { start_from: *start_from },
                ids: Vec::new().into(),
            };
            self.send_entry(source.tenant, partition, &entry)?;
        }
        beginnings.listed.iter().try_for_each(|(source, to)| self.send_listed(*source, partition, *to))?;
        let sources = || beginnings.floors.keys().copied();
        let Some(lost) = beginnings.lost.clone() else { return Ok(()) };
        error!(
            partition,
            first = lost.first_offset,
            end = lost.end_offset,
            "a gap: listings expired before they were read"
        );
        // Nobody knows whose they were.
        sources().for_each(|source| self.tally(source, |tally| tally.gaps.push(GapReason::ListingsLost)));
        self.send_gap_message(&Gap { listings: Some(lost), ..Gap::new(GapReason::ListingsLost, Timestamp::now()) })
    }

    pub(super) fn tell_unlisted(&mut self, source: Source, span: UnlistedSpan) -> Result<(), TransactionError> {
        let gap = Gap {
            tenant: Some(source.tenant),
            content_type: Some(source.content_type),
            first_seen: span.from,
            span: Some(span),
            ..Gap::new(GapReason::Unlisted, Timestamp::now())
        };
        self.send_gap(source, &gap)
    }

    /// Adds to what the open transaction will have done for a source.
    pub(super) fn tally(&mut self, source: Source, add: impl FnOnce(&mut super::tally::SourceTally)) {
        if let Some(open) = &mut self.open {
            add(open.tally.sources.entry(source).or_default());
        }
    }
}

/// A gap of a content.
pub(super) fn gap_of(listing: &Listing, reason: GapReason, now: Timestamp) -> Gap {
    let content = &listing.content;
    Gap {
        first_seen: listing.first_listed,
        attempts: listing.attempts + 1,
        tenant: Some(content.source.tenant),
        content_type: Some(content.source.content_type),
        content_id: Some(content.content_id.clone()),
        content_uri: Some(content.content_uri.clone()),
        ..Gap::new(reason, now)
    }
}
