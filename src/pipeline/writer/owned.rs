//! A partition that is ours: what of it is published, what waits, and what is being fetched.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tracing::Span;

use super::{Ticket, progress::SourceProgress, unannounced::Unannounced};
use crate::{
    config::Recheck,
    domain::{
        Added, Attempt, AttemptId, Backlog, ContentKey, Found, Ledger, Listing, Origin, RecordId, Source, TenantId,
        Want,
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
    /// Announced to the listers, not yet back through the topic.
    claims: HashMap<Source, HashSet<ContentKey>>,
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
        let claims = self.claims.entry(source).or_default();
        let append = contents
            .iter()
            .map(|key| {
                ledger.wanted(key, origin, recheck, now) != Want::No
                    && !self.backlog.is_pending(&source, key)
                    && claims.insert(*key)
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
