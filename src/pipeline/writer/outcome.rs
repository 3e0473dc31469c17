//! How a fetch that ended is settled, or when it is tried again.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tracing::{Span, debug, warn};

use super::{
    Ticket, Writer,
    owned::{Owned, Running},
    publish::gap_of,
};
use crate::{
    domain::{Backoff, Fate, Found, GapReason, Listing, Mark, Origin, Outcome, Want},
    kafka::{EntryKind, Gap, TransactionError},
    pipeline::fetch::{Broken, Ended},
};

/// When a content that is not there is asked for again; after the last of them it is a gap.
const MISSING: [Duration; 4] =
    [Duration::from_secs(2), Duration::from_secs(10), Duration::from_secs(30), Duration::from_secs(60)];

/// When a content that is no JSON array is fetched again; after the last of them it is a gap.
const UNREADABLE: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(15)];

/// A wait that is asked for one content, and not for the tenant, is obeyed up to this.
const ASKED_MAX: Duration = Duration::from_secs(300);

/// A refusal that a person must lift is met again so often.
const REFUSED: Duration = Duration::from_secs(60);

/// What to do about a content whose fetch failed.
enum Verdict {
    Again(Duration),
    Gap(GapReason),
    /// Settled as if it had moved on: polling lists it again, if it is there.
    GiveUp,
}

/// What only a notification named is tried for so long: whoever knows the secret could name what is not there, and it
/// must hold nobody up.
const NOTIFIED_FOR: SignedDuration = SignedDuration::from_hours(1);

impl Writer {
    /// A fetch ended: settles its content, or has it tried again.
    pub(super) fn settle(&mut self, ticket: Ticket, ended: Ended) -> Result<(), TransactionError> {
        if self.current(ticket).is_none() {
            return Ok(());
        }
        match ended {
            Ended::Whole => self.settle_as(ticket, Outcome::Published, None),
            Ended::Cancelled => {
                self.leave(ticket, |owned| _ = owned.backlog.released(ticket.attempt));
                Ok(())
            }
            Ended::Failed(broken) => match self.judge(ticket, &broken) {
                Verdict::Gap(reason) => self.settle_as(ticket, Outcome::Gap(reason), Some(&broken)),
                Verdict::Again(after) => {
                    self.try_again(ticket, after, &broken);
                    Ok(())
                }
                Verdict::GiveUp => self.settle_as(ticket, Outcome::Moved, Some(&broken)),
            },
        }
    }

    fn judge(&mut self, ticket: Ticket, broken: &Broken) -> Verdict {
        let verdict = self.judge_as_listed(ticket, broken);
        let running = self.current(ticket).and_then(|owned| owned.running.get(&ticket.attempt));
        let Some(listing) = running.map(|running| &running.listing) else { return verdict };
        let is_old = NOTIFIED_FOR < Timestamp::now().duration_since(listing.first_listed);
        match verdict {
            // A notification is a hint: that it leads nowhere is no gap.
            Verdict::Gap(_) if listing.origin == Origin::Webhook => Verdict::GiveUp,
            Verdict::Again(_) if listing.origin == Origin::Webhook && is_old => Verdict::GiveUp,
            verdict => verdict,
        }
    }

    fn judge_as_listed(&mut self, ticket: Ticket, broken: &Broken) -> Verdict {
        let Some(owned) = self.current(ticket) else { return Verdict::Again(REFUSED) };
        let Some(running) = owned.running.get(&ticket.attempt) else { return Verdict::Again(REFUSED) };
        let listing = &running.listing;
        let failures = listing.attempts + 1;
        let (source, key) = (listing.content.source, listing.content.key());
        let is_over = listing.content.expires <= Timestamp::now();
        let mut miss = |waits: &[Duration], reason| {
            let misses = owned.misses.entry((source, key)).or_default();
            *misses += 1;
            let index = usize::try_from(*misses - 1).unwrap_or(usize::MAX);
            waits.get(index).map_or(Verdict::Gap(reason), |wait| Verdict::Again(*wait))
        };
        let backoff = Backoff::SERVICE.delay(failures, rand::random());
        match broken.fate {
            Fate::Gone(reason) => Verdict::Gap(reason),
            Fate::Missing => miss(&MISSING, GapReason::NotFound),
            Fate::Unreadable => miss(&UNREADABLE, GapReason::Unreadable),
            // Whatever the trouble is: past its expiration nothing will come any more.
            _ if is_over => Verdict::Gap(GapReason::Expired),
            // "Retry in an hour" is about one request of many (docs/api/contract.md 5).
            Fate::Retry { after: Some(after) } if ASKED_MAX < after => {
                Verdict::Again(Backoff::SERVICE.ceiling(failures))
            }
            Fate::Retry { after } | Fate::Throttled { after } => Verdict::Again(backoff.max(after.unwrap_or_default())),
            Fate::Operator | Fate::Subscribe => Verdict::Again(REFUSED),
            Fate::Done | Fate::Relist | Fate::ClampWindow => Verdict::Again(backoff),
        }
    }

    fn try_again(&mut self, ticket: Ticket, after: Duration, broken: &Broken) {
        let at = Timestamp::now() + SignedDuration::try_from(after).unwrap_or(SignedDuration::from_mins(5));
        if let Some(running) = self.current(ticket).and_then(|owned| owned.running.get(&ticket.attempt)) {
            running.span.in_scope(|| debug!("fetch failed, again in {after:?}: {}", broken.answer));
        }
        self.leave(ticket, |owned| _ = owned.backlog.failed(ticket.attempt, at));
    }

    /// Ends an attempt that settles nothing. What it published is the open transaction's, so its ids must be in there
    /// too: a retry of the blob finds them.
    fn leave(&mut self, ticket: Ticket, give_back: impl FnOnce(&mut Owned)) {
        let Some(owned) = self.current(ticket) else { return };
        let Some(running) = owned.finish(ticket.attempt) else { return };
        if running.found != Found::default() {
            let content = &running.listing.content;
            owned.found_meanwhile.insert((content.source, content.key()), running.found);
        }
        give_back(owned);
        if !running.unwritten.is_empty() {
            self.enter(&running.listing, ticket.partition, EntryKind::Ids, running.unwritten);
        }
    }

    /// Settles a content within the open transaction.
    fn settle_as(&mut self, ticket: Ticket, outcome: Outcome, broken: Option<&Broken>) -> Result<(), TransactionError> {
        self.open_for_sending()?;
        let Some(owned) = self.current(ticket) else { return Ok(()) };
        let Some(running) = owned.finish(ticket.attempt) else { return Ok(()) };
        let (source, key, now) = (running.listing.content.source, running.listing.content.key(), Timestamp::now());
        let ledger = owned.ledgers.entry(source).or_default();
        let before = ledger.mark(&key).copied();
        let mark = mark(&running, before, outcome, now);
        ledger.settle(key, mark);
        owned.backlog.settled(ticket.attempt);
        owned.settled.push((source, key));
        let before = before.map(|before| before.outcome);
        self.name_settled(&running.listing, Some(&running.span), mark.outcome);
        self.tell(&running, [before.unwrap_or(outcome), mark.outcome, outcome], broken, now)?;
        self.enter(&running.listing, ticket.partition, EntryKind::Settled(mark), running.unwritten);
        Ok(())
    }

    /// Names a content within the transaction that settles it, and ties its last attempt to that transaction.
    pub(super) fn name_settled(&self, listing: &Listing, attempt: Option<&Span>, outcome: Outcome) {
        let Some(open) = &self.open else { return };
        let (source, content_id) = (listing.content.source, &listing.content.content_id);
        let ([tenant, content_type], outcome) = (self.labels(source), word(outcome));
        if let Some(attempt) = attempt {
            open.span.follows_from(attempt);
        }
        debug!(parent: &open.span, tenant, content_type, content_id, outcome, "settled");
    }

    /// Gaps that open or close, and the count of contents. The outcomes: of the mark before, of the mark now, of this fetch.
    fn tell(
        &mut self,
        running: &Running,
        [before, settled, fetched]: [Outcome; 3],
        broken: Option<&Broken>,
        now: Timestamp,
    ) -> Result<(), TransactionError> {
        let (content, published) = (&running.listing.content, u64::from(running.found.published));
        self.tally(content.source, |tally| {
            tally.outcomes.push(word(settled));
            if settled == Outcome::Published {
                tally.newest = tally.newest.max(Some(content.created));
            }
        });
        match (settled, fetched) {
            (Outcome::Gap(reason), _) => {
                let gap = Gap {
                    records_published: published,
                    last_answer: broken.map(|broken| broken.answer.clone()),
                    unreadable: broken.and_then(|broken| broken.unreadable.clone()),
                    ..gap_of(&running.listing, reason, now)
                };
                self.send_gap(content.source, &gap)
            }
            (Outcome::Published, Outcome::Published) if running.want == Want::GapAgain => {
                let reason = if let Outcome::Gap(reason) = before { reason } else { GapReason::NotFound };
                let gap = gap_of(&running.listing, reason, now);
                self.send_gap(content.source, &Gap { closed: true, records_published: published, ..gap })
            }
            (Outcome::Published, Outcome::Gap(reason)) => {
                // Its records are in Kafka since the first fetch.
                let _within = self.within();
                warn!(
                    content_id = content.content_id,
                    "could not look at a content a second time: {}",
                    reason.as_str()
                );
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// In metrics and logs.
fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Published => "published",
        Outcome::Moved => "moved",
        Outcome::Gap(_) => "gap",
    }
}

/// The mark of a content that ended so.
fn mark(running: &Running, before: Option<Mark>, outcome: Outcome, now: Timestamp) -> Mark {
    match (running.want, before) {
        // Of a gap there is nothing to look at a second time: what comes now closes it.
        (Want::Recheck, Some(before)) if before.outcome == Outcome::Published => match outcome {
            Outcome::Published => before.rechecked(now, running.found),
            // The first fetch stands.
            _ => before.rechecked(now, Found::default()),
        },
        _ => Mark::new(outcome, running.listing.content.created, now, running.found.published),
    }
}
