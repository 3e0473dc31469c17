//! What is done by the clock and not by what comes in: gauges, forgetting, moving, and how far ahead listings are read.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use super::{Partition, Writer, WriterError, owned::Unwritten, ownership::Beginnings};
use crate::{
    domain::{AttemptId, Day, Found, Listing, Mark, Outcome, Source},
    kafka::{EntryKind, Message, TransactionError, listing_parts},
};

/// When each kind of upkeep was last done.
#[derive(Default)]
pub struct Rhythm {
    seconds: Option<Instant>,
    minutes: Option<Instant>,
    days: Option<Instant>,
}

/// Unsettled listings of a partition at which reading stops, and at which it goes on.
pub(super) const ENOUGH: usize = 2_000;
const TOO_FEW: usize = 1_000;

/// Trouble that was not told again for so long has passed.
const QUIET: Duration = Duration::from_secs(15);

/// A listing that waits for longer is copied to the end of the topic (docs/exactly-once.md, rule 15).
const STALE: SignedDuration = SignedDuration::from_hours(24);

/// Listings moved at once.
const MOVES: usize = 100;

/// Marks live as long as listings do (rule 14).
const LISTINGS_LIVE: SignedDuration = SignedDuration::from_hours(24 * 21);

impl Writer {
    pub(super) fn keep_up(&mut self) -> Result<(), WriterError> {
        if is_due(&mut self.upkeep.seconds, Duration::from_secs(1)) {
            self.share = self.share_of_a_tenant();
            self.mind_the_backlog();
            self.count_missed();
            self.show();
            if self.troubled.is_some_and(|told| QUIET < told.elapsed()) {
                self.parts.health.ok("kafka");
                self.troubled = None;
            }
            if self.draining.is_none() {
                self.write_progress()?;
            }
        }
        if is_due(&mut self.upkeep.minutes, Duration::from_secs(60)) && self.draining.is_none() {
            self.forget();
            let moved = self.move_stale();
            self.survive(moved)?;
        }
        if is_due(&mut self.upkeep.days, Duration::from_secs(86_400)) {
            self.begin_again()?;
        }
        Ok(())
    }

    /// Goes on reading listings where few are left.
    fn mind_the_backlog(&mut self) {
        for (partition, state) in &mut self.partitions {
            let Partition::Owned(owned) = state else { continue };
            let waiting = owned.backlog.unsettled_len();
            if waiting <= TOO_FEW && owned.paused {
                self.parts.member.resume(*partition);
                owned.paused = false;
            }
        }
    }

    /// What the webhook should have told, and did not.
    fn count_missed(&mut self) {
        let now = Timestamp::now();
        let owed = self.partitions.values_mut().filter_map(|state| match state {
            Partition::Owned(owned) => owned.unannounced.as_mut(),
            Partition::Restoring { .. } => None,
        });
        let missed: Vec<Source> = owed.flat_map(|owed| owed.missed(now)).collect();
        for source in missed {
            self.parts.metrics.webhook_missed_total.with_label_values(&self.labels(source)).inc();
        }
    }

    fn show(&self) {
        let metrics = &self.parts.metrics;
        let owned = self.owned().count();
        metrics.partitions_owned.set(i64::try_from(self.partitions.len()).unwrap_or(i64::MAX));
        metrics.partitions_restored.set(i64::try_from(owned).unwrap_or(i64::MAX));
        let now = Timestamp::now();
        for source in &self.sources {
            let Some(owned) = self.owned().find(|owned| owned.ledgers.contains_key(source)) else { continue };
            let labels = self.labels(*source);
            let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
            metrics.backlog_contents.with_label_values(&labels).set(count(owned.backlog.waiting(source)));
            let expiry = owned.oldest_expiry(source).map(|at| at.duration_since(now).as_secs_f64());
            match expiry {
                Some(seconds) => metrics.oldest_backlog_expires_in_seconds.with_label_values(&labels).set(seconds),
                // No series is better than a number that means nothing.
                None => _ = metrics.oldest_backlog_expires_in_seconds.remove_label_values(&labels),
            }
            if let Some(newest) = owned.newest.get(source).filter(|newest| **newest != Timestamp::MIN) {
                let age = now.duration_since(*newest).as_secs_f64();
                metrics.freshness_seconds.with_label_values(&labels).set(age);
            }
            let ages = [
                (&metrics.watermark_age_seconds, owned.listed_to(source)),
                (&metrics.delivered_age_seconds, owned.delivered_to(source)),
            ];
            for (gauges, to) in ages {
                let Some(to) = to else { continue };
                let age = now.duration_since(to).max(SignedDuration::ZERO).as_secs_f64();
                gauges.with_label_values(&labels).set(age);
            }
            let ledger = &owned.ledgers[source];
            metrics.ledger_ids.with_label_values(&labels).set(count(ledger.ids()));
            metrics.ledger_bytes.with_label_values(&labels).set(count(ledger.memory_bytes()));
        }
    }

    /// Drops what need not be known any more.
    fn forget(&mut self) {
        let now = Timestamp::now();
        let window = self.parts.settings.dedupe.window.as_secs().div_ceil(86_400);
        let window = u16::try_from(window).unwrap_or(u16::MAX);
        for state in self.partitions.values_mut() {
            let Partition::Owned(owned) = state else { continue };
            for (source, ledger) in &mut owned.ledgers {
                let oldest = owned.backlog.oldest_created(source);
                // A portion a minute: what is left over waits for the next.
                ledger.forget(Day::of(now), window, oldest, now - LISTINGS_LIVE);
            }
        }
    }

    /// Copies listings that have failed for a day to the end of the topic, so that they do not hold the offset.
    fn move_stale(&mut self) -> Result<(), TransactionError> {
        let now = Timestamp::now();
        let partitions: Vec<i32> = self.partitions.keys().copied().collect();
        for partition in partitions {
            let Some(Partition::Owned(owned)) = self.partitions.get_mut(&partition) else { continue };
            let epoch = owned.epoch;
            let is_stale = |listing: &Listing| listing.attempts > 0 && STALE < now.duration_since(listing.appended);
            for attempt in owned.backlog.start_stale(MOVES, is_stale) {
                self.open_for_sending()?;
                // The open may have found that the partition is not ours any more.
                if self.is_owned(partition, epoch) {
                    self.move_one(partition, attempt.id, &attempt.listing, now)?;
                }
            }
        }
        Ok(())
    }

    fn move_one(
        &mut self,
        partition: i32,
        attempt: AttemptId,
        listing: &Listing,
        now: Timestamp,
    ) -> Result<(), TransactionError> {
        let (source, content) = (listing.content.source, listing.content.key());
        let Some(Partition::Owned(owned)) = self.partitions.get_mut(&partition) else { return Ok(()) };
        let ledger = owned.ledgers.entry(source).or_default();
        let mark = match ledger.committed_mark(&content).copied() {
            // A second look does not move, it ends: the first fetch stands, a gap stays one until the next sweep.
            Some(before) if before.outcome == Outcome::Published => before.rechecked(now, Found::default()),
            Some(before) if matches!(before.outcome, Outcome::Gap(_)) => Mark { settled: now, ..before },
            _ => Mark::new(Outcome::Moved, listing.content.created, now, 0),
        };
        ledger.settle(content, mark);
        owned.backlog.settled(attempt);
        if mark.outcome == Outcome::Moved {
            self.send_copy(partition, listing)?;
            self.tally(source, |tally| tally.outcomes.push("moved"));
        }
        self.name_settled(listing, None, mark.outcome);
        self.enter(listing, partition, EntryKind::Settled(mark), Unwritten::default());
        Ok(())
    }

    fn send_copy(&self, partition: i32, listing: &Listing) -> Result<(), TransactionError> {
        let (key, value, headers) = listing_parts(listing);
        self.parts.publisher.send(Message {
            topic: &self.parts.settings.kafka.listings_topic(),
            partition: Some(partition),
            key: Some(key.as_bytes()),
            value: (&*value).into(),
            headers: Some(headers),
            timestamp: None,
        })
    }

    /// Beginnings are written again each day, or retention would drop them and a source would begin anew.
    fn begin_again(&mut self) -> Result<(), WriterError> {
        let beginnings: Vec<_> = self
            .partitions
            .iter()
            .filter_map(|(partition, state)| match state {
                Partition::Owned(owned) if !owned.floors.is_empty() => {
                    let listed =
                        owned.progress.iter().map(|(source, progress)| (*source, progress.written())).collect();
                    Some((*partition, owned.epoch, Beginnings { floors: owned.floors.clone(), listed, lost: None }))
                }
                _ => None,
            })
            .collect();
        for (partition, epoch, beginnings) in beginnings {
            let written = self.write_beginnings(partition, epoch, &beginnings);
            self.survive(written)?;
        }
        Ok(())
    }
}

/// Whether `every` has passed since the last time; then it counts as done.
fn is_due(last: &mut Option<Instant>, every: Duration) -> bool {
    let due = last.is_none_or(|last| every <= last.elapsed());
    if due {
        *last = Some(Instant::now());
    }
    due
}
