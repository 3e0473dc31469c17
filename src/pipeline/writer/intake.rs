//! The records of a batch, one by one: known, dropped, too large or sent. What they touch is looked up once a batch.

use jiff::Timestamp;

use super::{
    owned::Running,
    tally::{SourceTally, Tally},
};
use crate::{
    config::Settings,
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
        settings: &'a Settings,
        publisher: &'a Publisher,
        record_limit: usize,
        now: Timestamp,
        ledger: &'a mut Ledger,
        running: &'a mut Running,
        open: &'a mut Tally,
    ) -> Self {
        let content = &running.listing.content;
        let topic = settings.kafka.output_topic(content.source.tenant, content.source.content_type);
        Self {
            publisher,
            filter: &settings.filter,
            frame: Frame::of(&settings.kafka, settings.redact, content, topic),
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
        let message = self.frame.message(record);
        if Frame::fits(record, &message, self.record_limit) {
            let size = message.value.len() as u64;
            self.publisher.send(match way {
                Way::Topic(topic) => Message { topic, ..message },
                Way::Usual | Way::Dropped => message,
            })?;
            self.count(record, size);
            return Ok(());
        }
        let record_id = record.key.filter(|id| id.len() <= LONGEST_HEADER).map(str::to_owned);
        let size = record.oversize.unwrap_or(record.bytes.len() as u64);
        self.too_large.push(MissingRecord { record_id, size });
        Ok(())
    }

    /// A record that was sent, `size` bytes long.
    fn count(&mut self, record: &RecordRef<'_>, size: u64) {
        *self.bytes += size;
        self.running.found.published += 1;
        self.tally.published += 1;
        self.tally.bytes += size;
        self.tally.without_id += u64::from(record.key.is_none());
        let delay = record.created.and_then(|created| u32::try_from(self.now.as_second() - created).ok());
        self.tally.delays.extend(delay);
    }

    /// The content's listing, and the records of it that are gaps.
    pub(super) fn finish(self) -> (Listing, Vec<MissingRecord>) {
        (self.running.listing.clone(), self.too_large)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, sync::Arc, time::Duration};

    use bytes::Bytes;
    use jiff::SignedDuration;
    use uuid::Uuid;

    use super::*;
    use crate::{
        domain::{Batch, ContentType, Expression, Found, Listed, Origin, RecordId, Source, Splitter, TenantId},
        kafka::Restored,
        pipeline::writer::owned::Owned,
        telemetry::Metrics,
    };

    /// Nothing of it is sent, so no broker is needed.
    #[test]
    fn every_id_is_put_down_as_what_became_of_its_record() {
        let mut settings = Settings::with_defaults(Vec::new(), "slot");
        settings.kafka.bootstrap_servers = "127.0.0.1:1".to_owned();
        settings.filter.drop = Some(Expression::parse("operation = View or content_type = DLP.All").unwrap());
        let publisher = Publisher::new(&settings.kafka, &Metrics::new()).unwrap();
        let now = Timestamp::now();
        let (mut owned, attempt) = owned(now);
        let (yesterday, today) = (Day(Day::of(now).0 - 1), Day::of(now));
        let mut ledger = Ledger::new();
        ledger.restore_id(RecordId::of_text("published yesterday"), yesterday);
        ledger.restore_filtered(RecordId::of_text("filtered yesterday"), yesterday);
        ledger.restore_filtered(RecordId::of_text("filtered today"), today);
        let large = format!(r#"{{"Id":"large","Operation":"View","Note":"{}"}}"#, "x".repeat(2_000));
        let blob = format!(
            r#"[{{"Id":"published yesterday","Operation":"View"}},{{"Id":"filtered yesterday"}},{{"Id":"filtered today"}},
                {{"Id":"new","Operation":"VIEW"}},{{"Id":"new","Operation":"VIEW"}},{large}]"#
        );
        let mut batch = Batch::new();
        Splitter::new(1_000).push(blob.as_bytes(), &mut batch).unwrap();

        let mut tally = Tally::default();
        let running = owned.running.get_mut(&attempt).unwrap();
        let source = running.listing.content.source;
        let mut intake = Intake::new(&settings, &publisher, 10_000, now, &mut ledger, running, &mut tally);
        batch.iter().try_for_each(|record| intake.take(&record)).unwrap();
        let (_, too_large) = intake.finish();

        let ids = |texts: &[&str]| texts.iter().map(|text| RecordId::of_text(text)).collect::<Vec<_>>();
        let running = &owned.running[&attempt];
        assert_eq!(running.unwritten.published, ids(&["published yesterday", "large"]));
        assert_eq!(running.unwritten.filtered, ids(&["filtered yesterday", "new"]));
        assert_eq!(running.found, Found { published: 0, filtered: 1 });
        let size = large.len() as u64;
        assert_eq!(too_large, [MissingRecord { record_id: Some("large".to_owned()), size }]);
        let of_source = &tally.sources[&source];
        assert_eq!((tally.ids, tally.bytes), (4, 0));
        assert_eq!((of_source.published, of_source.filtered, of_source.duplicates), (0, 1, 4));
    }

    fn owned(now: Timestamp) -> (Owned, crate::domain::AttemptId) {
        let source = Source { tenant: TenantId(Uuid::from_u128(1)), content_type: ContentType::Dlp };
        let content = Listed {
            source,
            content_id: "c".to_owned(),
            content_uri: String::new(),
            created: now,
            expires: now + SignedDuration::from_hours(24),
            raw: Bytes::new(),
        };
        let listing = Listing {
            content: Arc::new(content),
            origin: Origin::Follow,
            first_listed: now,
            appended: now,
            attempts: 0,
        };
        let restored = Restored {
            partition: 0,
            committed: 0,
            ledgers: HashMap::new(),
            began: HashMap::new(),
            lost: None,
            listed: HashMap::new(),
            took: Duration::ZERO,
        };
        let mut owned = Owned::new(1, restored);
        owned.read(0, listing, crate::config::Recheck::Off);
        let attempt = owned.backlog.start_next(now, |_| true).unwrap();
        owned.start(0, &attempt, "contoso");
        (owned, attempt.id)
    }
}
