//! The records of a batch, one by one: known, dropped, too large or sent. What they touch is looked up once a batch.

use jiff::Timestamp;

use super::{
    Parts,
    owned::Running,
    tally::{SourceTally, Tally},
};
use crate::{
    domain::{Day, Filter, Ledger, Listing, RecordRef, Seen, Way},
    kafka::{Frame, LONGEST_HEADER, Message, MissingRecord, Publisher, TransactionError},
};

/// Where the records of a batch go, and what is remembered of them.
pub(super) struct Intake<'a> {
    publisher: &'a Publisher,
    filter: &'a Filter,
    frame: Frame,
    /// No larger record is sent.
    record_limit: usize,
    now: Timestamp,
    today: Day,
    ledger: &'a mut Ledger,
    running: &'a mut Running,
    ids: &'a mut u64,
    bytes: &'a mut u64,
    tally: &'a mut SourceTally,
    too_large: Vec<MissingRecord>,
}

impl<'a> Intake<'a> {
    pub(super) fn new(
        parts: &'a Parts,
        record_limit: usize,
        ledger: &'a mut Ledger,
        running: &'a mut Running,
        open: &'a mut Tally,
    ) -> Self {
        let (content, now) = (&running.listing.content, Timestamp::now());
        let topic = parts.settings.kafka.output_topic(content.source.tenant, content.source.content_type);
        Self {
            publisher: &parts.publisher,
            filter: &parts.settings.filter,
            frame: Frame::of(&parts.settings.kafka, parts.settings.redact, content, topic),
            record_limit,
            now,
            today: Day::of(now),
            ledger,
            ids: &mut open.ids,
            bytes: &mut open.bytes,
            tally: open.sources.entry(content.source).or_default(),
            running,
            too_large: Vec::new(),
        }
    }

    /// Publishes a record that is not known yet, unless it is dropped or too large.
    pub(super) fn take(&mut self, record: &RecordRef<'_>) -> Result<(), TransactionError> {
        let seen = self.ledger.see(record.identity, self.today);
        *self.ids += u64::from(seen != Seen::Repeat);
        match seen {
            Seen::New => return self.take_new(record),
            Seen::Repeat => {}
            Seen::Refresh => self.running.unwritten.published.push(record.identity),
            Seen::RefreshFiltered => self.running.unwritten.filtered.push(record.identity),
        }
        self.tally.duplicates += 1;
        Ok(())
    }

    fn take_new(&mut self, record: &RecordRef<'_>) -> Result<(), TransactionError> {
        let way = self.filter.way_of(self.running.listing.content.source.content_type, record);
        if way == Way::Dropped {
            self.ledger.filter(record.identity, self.today);
            self.running.unwritten.filtered.push(record.identity);
            self.running.found.filtered += 1;
            self.tally.filtered += 1;
            return Ok(());
        }
        self.running.unwritten.published.push(record.identity);
        if Frame::fits(record, self.record_limit) {
            return self.send(record, way);
        }
        let record_id = record.key.filter(|id| id.len() <= LONGEST_HEADER).map(str::to_owned);
        let size = record.oversize.unwrap_or(record.bytes.len() as u64);
        self.too_large.push(MissingRecord { record_id, size });
        Ok(())
    }

    fn send(&mut self, record: &RecordRef<'_>, way: Way<'_>) -> Result<(), TransactionError> {
        let message = self.frame.message(record);
        let size = message.value.len() as u64;
        self.publisher.send(match way {
            Way::Topic(topic) => Message { topic, ..message },
            Way::Usual | Way::Dropped => message,
        })?;
        *self.bytes += size;
        self.running.found.published += 1;
        self.tally.published += 1;
        self.tally.bytes += size;
        self.tally.without_id += u64::from(record.key.is_none());
        let delay = record.created.and_then(|created| u32::try_from(self.now.as_second() - created).ok());
        self.tally.delays.extend(delay);
        Ok(())
    }

    /// The content's listing, and the records of it that are gaps.
    pub(super) fn finish(self) -> (Listing, Vec<MissingRecord>) {
        (self.running.listing.clone(), self.too_large)
    }
}
