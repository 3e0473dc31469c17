//! A partition that is ours: what of it is published, what waits, and what is being fetched.

use std::collections::{HashMap, hash_map::Entry};

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tracing::Span;

use super::{Ticket, progress::SourceProgress, unannounced::Unannounced};
use crate::{
    config::Recheck,
    domain::{
        Added, Attempt, AttemptId, Backlog, ContentKey, Found, Ledger, Listed, Listing, Origin, RecordId, Source,
        TenantId, Want,
    },
    kafka::Restored,
    pipeline::{
        desk::{Progress, Wanted},
        fetch::Job,
        spans,
    },
};

pub struct Owned {
    pub epoch: u64,
    pub backlog: Backlog,
    pub ledgers: HashMap<Source, Ledger>,
    /// Where sources begin that do not begin with all that is in reach.
    pub floors: HashMap<Source, Timestamp>,
    /// How far sources are listed.
    pub progress: HashMap<Source, SourceProgress>,
    pub running: HashMap<AttemptId, Running>,
    /// How many of them each tenant has.
    pub running_of: HashMap<TenantId, usize>,
    /// Announced to the listers, not yet back through the topic; and up to where the source was listed at that moment.
    claims: HashMap<Source, HashMap<ContentKey, Option<Timestamp>>>,
    /// Why a content that is settled already waits again.
    again: HashMap<(Source, ContentKey), Want>,
    /// Answers in a row that said a content is not there, or is no JSON.
    pub misses: HashMap<(Source, ContentKey), u32>,
    /// Records of contents that are not settled which earlier attempts found, committed.
    so_far: HashMap<(Source, ContentKey), Found>,
    /// The same of attempts that ended within the open transaction.
    pub found_meanwhile: HashMap<(Source, ContentKey), Found>,
    /// Contents settled within the open transaction.
    pub settled: Vec<(Source, ContentKey)>,
    pub newest: HashMap<Source, Timestamp>,
    pub paused: bool,
    /// Where notifications are received.
    pub unannounced: Option<Unannounced>,
    stop: CancellationToken,
}

/// A fetch that is going on.
pub struct Running {
    pub listing: Listing,
    pub want: Want,
    /// Ids of the open transaction that are not in a ledger entry yet.
    pub unwritten: Unwritten,
    /// Records found in the content, by this attempt and those before it.
    pub found: Found,
    /// Ends with the attempt.
    pub span: Span,
    cancel: CancellationToken,
}

/// Ids that are to be written to the ledger, by what became of their records.
#[derive(Default)]
pub struct Unwritten {
    pub published: Vec<RecordId>,
    pub filtered: Vec<RecordId>,
}

impl Unwritten {
    pub fn is_empty(&self) -> bool {
        self.published.is_empty() && self.filtered.is_empty()
    }
}

impl Owned {
    pub fn new(epoch: u64, restored: Restored) -> Self {
        Self {
            epoch,
            backlog: Backlog::new(restored.committed),
            ledgers: restored.ledgers,
            floors: HashMap::new(),
            progress: HashMap::new(),
            running: HashMap::new(),
            running_of: HashMap::new(),
            claims: HashMap::new(),
            again: HashMap::new(),
            misses: HashMap::new(),
            so_far: HashMap::new(),
            found_meanwhile: HashMap::new(),
            settled: Vec::new(),
            newest: HashMap::new(),
            paused: false,
            unannounced: None,
            stop: CancellationToken::new(),
        }
    }

    /// A listing came through the topic.
    pub fn read(&mut self, offset: i64, listing: Listing, recheck: Recheck) {
        let (source, key) = (listing.content.source, listing.content.key());
        self.unclaim(source, key);
        let now = Timestamp::now();
        let ledger = self.ledgers.entry(source).or_default();
        let want = ledger.wanted(&key, listing.origin, recheck, now);
        if let Some(unannounced) = &mut self.unannounced {
            let is_first = want == Want::New && !self.backlog.is_pending(&source, &key);
            unannounced.read(&listing, is_first, now);
        }
        let want = match want {
            Want::No => return self.backlog.read_to(offset + 1),
            want => want,
        };
        if self.backlog.add(offset, listing) == Added::Waits && super::is_second_look(want) {
            self.again.insert((source, key), want);
        }
    }

    /// Which contents a lister is to append; they count as announced from now on.
    pub fn wanted(&mut self, source: Source, contents: &[ContentKey], origin: Origin, recheck: Recheck) -> Wanted {
        let now = Timestamp::now();
        let ledger = self.ledgers.entry(source).or_default();
        let listed_to = self.progress.get(&source).map(SourceProgress::listed_to);
        let claims = self.claims.entry(source).or_default();
        let append = contents
            .iter()
            .map(|key| {
                ledger.wanted(key, origin, recheck, now) != Want::No
                    && !self.backlog.is_pending(&source, key)
                    && claim(claims, *key, listed_to)
            })
            .collect();
        Wanted { append, pending: claims.len() + self.backlog.waiting(&source) }
    }

    pub fn made(&mut self, source: Source, progress: Progress) {
        if let Some(known) = self.progress.get_mut(&source) {
            known.made(progress);
        }
    }

    pub fn unclaim(&mut self, source: Source, key: ContentKey) {
        if let Some(claims) = self.claims.get_mut(&source) {
            claims.remove(&key);
        }
    }

    /// Everything of the source that became available before it is listed, by us or by an owner before us, or told as lost.
    pub fn listed_to(&self, source: &Source) -> Option<Timestamp> {
        self.progress.get(source).map(SourceProgress::listed_to)
    }

    /// Everything of the source that became available before it is published, or named as a gap. Looks at all that waits.
    pub fn delivered_to(&self, source: &Source) -> Option<Timestamp> {
        let listed_to = self.listed_to(source)?;
        // Nothing is known yet of when a claimed content was created; a window begins where listing had come to.
        let claimed = self.claims.get(source).into_iter().flat_map(HashMap::values).flatten().min().copied();
        let waiting = self.never_settled(source).map(|content| content.created).min();
        [Some(listed_to), claimed, waiting].into_iter().flatten().min()
    }

    /// When the first content of the source that waits can no longer be fetched. Looks at all that waits.
    pub fn oldest_expiry(&self, source: &Source) -> Option<Timestamp> {
        self.never_settled(source).map(|content| content.expires).min()
    }

    /// What waits for its first look. A second one is late for nothing: the content is published, or named as a gap.
    fn never_settled(&self, source: &Source) -> impl Iterator<Item = &Listed> {
        let is_second = |content: &Listed| self.again.contains_key(&(content.source, content.key()));
        self.backlog.uncommitted(source).filter(move |content| self.again.is_empty() || !is_second(content))
    }

    /// Makes a job of a content that the backlog handed out. `tenant`: its name in logs.
    pub fn start(&mut self, partition: i32, attempt: &Attempt, tenant: &str) -> Job {
        let content = attempt.listing.content.clone();
        let want = self.again.get(&(content.source, content.key())).copied().unwrap_or(Want::New);
        let (cancel, span) = (self.stop.child_token(), spans::fetch(tenant, &attempt.listing));
        *self.running_of.entry(content.source.tenant).or_default() += 1;
        self.running.insert(
            attempt.id,
            Running {
                listing: attempt.listing.clone(),
                want,
                unwritten: Unwritten::default(),
                found: self.found(&(content.source, content.key())),
                span: span.clone(),
                cancel: cancel.clone(),
            },
        );
        let ticket = Ticket { partition, epoch: self.epoch, attempt: attempt.id };
        Job { ticket, content, cancel, span }
    }

    /// Takes an attempt out of what is going on.
    pub fn finish(&mut self, attempt: AttemptId) -> Option<Running> {
        let running = self.running.remove(&attempt)?;
        if let Some(count) = self.running_of.get_mut(&running.listing.content.source.tenant) {
            *count = count.saturating_sub(1);
        }
        Some(running)
    }

    /// What earlier attempts at a content found.
    fn found(&self, content: &(Source, ContentKey)) -> Found {
        self.found_meanwhile.get(content).or_else(|| self.so_far.get(content)).copied().unwrap_or_default()
    }

    /// The open transaction became part of what is known.
    pub fn commit(&mut self) {
        self.backlog.commit();
        let Self { ledgers, again, backlog, .. } = self;
        ledgers.values_mut().for_each(Ledger::commit);
        // What does not wait any more was looked at, however that ended: the next sweep decides anew.
        again.retain(|(source, key), _| backlog.is_pending(source, key));
        for running in self.running.values().filter(|running| running.found != Found::default()) {
            let content = &running.listing.content;
            self.so_far.insert((content.source, content.key()), running.found);
        }
        self.so_far.extend(self.found_meanwhile.drain());
        // Settled for good: what was remembered about their troubles goes.
        for content in self.settled.drain(..) {
            self.misses.remove(&content);
            self.so_far.remove(&content);
        }
    }

    /// The open transaction never was: every attempt begins again (docs/exactly-once.md, rule 9).
    pub fn abort(&mut self) {
        self.backlog.abort();
        self.ledgers.values_mut().for_each(Ledger::abort);
        self.found_meanwhile.clear();
        self.settled.clear();
        self.drop_attempts();
    }

    /// Fetches end; nothing that they still send means anything.
    pub fn cancel(&self) {
        self.stop.cancel();
    }

    fn drop_attempts(&mut self) {
        for running in self.running.drain() {
            running.1.cancel.cancel();
        }
        self.running_of.clear();
    }
}

/// Whether the content was not claimed before. The first claim stands: listing may have gone on since.
fn claim(claims: &mut HashMap<ContentKey, Option<Timestamp>>, key: ContentKey, listed_to: Option<Timestamp>) -> bool {
    match claims.entry(key) {
        Entry::Occupied(_) => false,
        Entry::Vacant(place) => {
            place.insert(listed_to);
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use jiff::SignedDuration;
    use std::time::Duration;
    use uuid::Uuid;

    use super::*;
    use crate::domain::{ContentType, Mark, Outcome};

    #[test]
    fn delivered_is_what_is_listed_and_neither_claimed_nor_waiting() {
        let mut owned = owned();
        assert_eq!(owned.delivered_to(&source()), None, "nothing is known of it");
        owned.progress.insert(source(), SourceProgress::starting(at(100)));
        owned.made(source(), progress(50));
        assert_eq!(owned.delivered_to(&source()), Some(at(100)), "what is listed again is not late");
        owned.made(source(), progress(200));
        assert_eq!(owned.delivered_to(&source()), Some(at(200)));

        let (late, new) = (listing("late", 150), listing("new", 220));
        let wanted = owned.wanted(source(), &[new.content.key()], Origin::Follow, Recheck::Off);
        owned.made(source(), progress(300));
        assert_eq!((wanted.append, owned.delivered_to(&source())), (vec![true], Some(at(200))), "it is on its way");
        let wanted = owned.wanted(source(), &[new.content.key()], Origin::Overlap, Recheck::Off);
        assert_eq!((wanted.append, owned.delivered_to(&source())), (vec![false], Some(at(200))), "still the same");
        owned.read(0, new, Recheck::Off);
        assert_eq!(owned.delivered_to(&source()), Some(at(220)), "it waits");
        owned.read(1, late, Recheck::Off);
        assert_eq!(owned.delivered_to(&source()), Some(at(150)), "one that came late");
        assert_eq!(owned.listed_to(&source()), Some(at(300)), "listing goes on");
        assert_eq!(owned.oldest_expiry(&source()), Some(at(1_150)));

        while let Some(attempt) = owned.backlog.start_next(at(300), |_| true) {
            owned.backlog.settled(attempt.id);
        }
        assert_eq!(owned.delivered_to(&source()), Some(at(150)), "not committed yet");
        owned.commit();
        assert_eq!((owned.delivered_to(&source()), owned.oldest_expiry(&source())), (Some(at(300)), None));
    }

    #[test]
    fn a_gap_that_is_tried_again_is_late_for_nothing() {
        let mut owned = owned();
        owned.progress.insert(source(), SourceProgress::starting(at(300)));
        let gap = listing("gap", 150);
        let mark = Mark::new(Outcome::Gap(crate::domain::GapReason::NotFound), at(150), at(160), 0);
        let ledger = owned.ledgers.entry(source()).or_default();
        ledger.settle(gap.content.key(), mark);
        ledger.commit();
        owned.read(0, Listing { origin: Origin::Sweep, ..gap }, Recheck::Off);
        assert_eq!(owned.backlog.waiting(&source()), 1);
        assert_eq!((owned.delivered_to(&source()), owned.oldest_expiry(&source())), (Some(at(300)), None));
    }

    fn owned() -> Owned {
        let restored = Restored {
            partition: 0,
            committed: 0,
            ledgers: HashMap::new(),
            began: HashMap::new(),
            lost: None,
            listed: HashMap::new(),
            took: Duration::ZERO,
        };
        Owned::new(1, restored)
    }

    fn progress(to: i64) -> Progress {
        Progress { listed_to: at(to), lost: None }
    }

    fn source() -> Source {
        Source { tenant: TenantId(Uuid::from_u128(1)), content_type: ContentType::General }
    }

    /// Expires 1,000 seconds after it was created.
    fn listing(id: &str, created: i64) -> Listing {
        let content = Listed {
            source: source(),
            content_id: id.to_owned(),
            content_uri: String::new(),
            created: at(created),
            expires: at(created + 1_000),
            raw: Bytes::new(),
        };
        Listing { content: content.into(), origin: Origin::Follow, first_listed: at(0), appended: at(0), attempts: 0 }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_secs(second)
    }
}
