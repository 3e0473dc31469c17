//! Records, beginnings and gaps into the open transaction.

use jiff::Timestamp;
use tracing::error;

use super::{Ticket, Writer, ownership::Beginnings};
use crate::{
    domain::{Batch, Day, GapReason, Listed, Listing, RecordRef, Seen, Source},
    kafka::{Entry, EntryKind, Frame, Gap, LONGEST_HEADER, Message, MissingRecord, TransactionError, UnlistedSpan},
};

impl Writer {
    /// Publishes of a batch what is not published yet.
    pub(super) fn publish(&mut self, ticket: Ticket, batch: &Batch) -> Result<(), TransactionError> {
        if batch.is_empty() || self.current(ticket).is_none() {
            return Ok(());
        }
        self.open_for_sending()?;
        // The open may have found that the partition is not ours any more.
        let Some(content) = self
            .current(ticket)
            .and_then(|owned| owned.running.get(&ticket.attempt).map(|running| running.listing.content.clone()))
        else {
            return Ok(());
        };
        let (now, topic) = (Timestamp::now(), self.output_topic(content.source));
        let (today, frame) = (Day::of(now), Frame::of(&self.parts.settings.kafka, &content, topic));
        for record in batch.iter() {
            let Some(owned) = self.current(ticket) else { return Ok(()) };
            let seen = owned.ledgers.entry(content.source).or_default().see(record.identity, today);
            if let Some(running) = owned.running.get_mut(&ticket.attempt)
                && seen != Seen::Repeat
            {
                running.unwritten.push(record.identity);
                running.published += u32::from(seen == Seen::New);
            }
            match seen {
                Seen::New => self.send_record(ticket, &content, &frame, &record, now)?,
                Seen::Repeat | Seen::Refresh => self.tally(content.source, |tally| tally.duplicates += 1),
            }
        }
        Ok(())
    }

    /// [`Writer::open`] for those who can only abort; what ends the writer comes again with the next look.
    pub(super) fn open_for_sending(&mut self) -> Result<(), TransactionError> {
        self.open().map_err(|ended| {
            self.ended = Some(ended);
            TransactionError::Abort(rdkafka::error::KafkaError::Canceled)
        })
    }

    fn send_record(
        &mut self,
        ticket: Ticket,
        content: &Listed,
        frame: &Frame,
        record: &RecordRef<'_>,
        now: Timestamp,
    ) -> Result<(), TransactionError> {
        let size = record.oversize.unwrap_or(record.bytes.len() as u64);
        if !Frame::fits(record, self.record_limit) {
            return self.oversize(ticket, record.key, size, now);
        }
        self.parts.publisher.send(frame.message(record))?;
        let delay = record.created.and_then(|created| u32::try_from(now.as_second() - created).ok());
        self.tally(content.source, |tally| {
            tally.published += 1;
            tally.bytes += size;
            tally.without_id += u64::from(record.key.is_none());
            tally.delays.extend(delay);
        });
        if let Some(open) = &mut self.open {
            open.tally.records += 1;
            open.tally.bytes += size;
        }
        Ok(())
    }

    /// A record that no topic takes is named, and the rest of its content goes on.
    fn oversize(
        &mut self,
        ticket: Ticket,
        record_id: Option<&str>,
        size: u64,
        now: Timestamp,
    ) -> Result<(), TransactionError> {
        let Some(listing) = self.current(ticket).and_then(|owned| {
            let running = owned.running.get_mut(&ticket.attempt)?;
            running.published = running.published.saturating_sub(1);
            Some(running.listing.clone())
        }) else {
            return Ok(());
        };
        let record_id = record_id.filter(|id| id.len() <= LONGEST_HEADER).map(str::to_owned);
        let gap = Gap { record: Some(MissingRecord { record_id, size }), ..gap_of(&listing, GapReason::Oversize, now) };
        self.send_gap(listing.content.source, &gap)
    }

    /// Tells of a gap: in the topic, in the metrics once committed, and in the log.
    pub(super) fn send_gap(&mut self, source: Source, gap: &Gap) -> Result<(), TransactionError> {
        self.send_gap_message(gap)?;
        if !gap.closed {
            self.tally(source, |tally| tally.gaps.push(gap.reason));
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
            value: &gap.to_json(),
            headers: None,
            timestamp: None,
        })
    }

    /// Where sources begin, and what was lost while nobody ran.
    pub(super) fn write_beginnings(&mut self, partition: i32, beginnings: &Beginnings) -> Result<(), TransactionError> {
        if beginnings.floors.is_empty() && beginnings.lost.is_none() {
            return Ok(());
        }
        self.open_for_sending()?;
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

    fn output_topic(&self, source: Source) -> String {
        self.parts.settings.kafka.output_topic(source.tenant, source.content_type)
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
