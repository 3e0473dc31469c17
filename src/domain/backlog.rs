//! The listings of one partition that are read and not settled: what to fetch next, and how far the group's offset may go.
//! It fetches nothing and reads no clock; a partition that is lost takes its backlog with it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque, hash_map::Entry},
    sync::Arc,
};

use jiff::Timestamp;

use crate::domain::{ContentKey, Listed, Source};

/// Who found a content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    Follow,
    CatchUp,
    Overlap,
    /// May bring a settled content back: [`Ledger::wanted`](crate::domain::Ledger::wanted).
    Sweep,
    Webhook,
    /// Put back by an operator who found records missing: fetched whatever its mark says.
    Repair,
}

impl Origin {
    pub const ALL: [Self; 6] = [Self::Follow, Self::CatchUp, Self::Overlap, Self::Sweep, Self::Webhook, Self::Repair];

    /// The word in a listing's headers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Follow => "follow",
            Self::CatchUp => "catch_up",
            Self::Overlap => "overlap",
            Self::Sweep => "sweep",
            Self::Webhook => "webhook",
            Self::Repair => "repair",
        }
    }
}

/// A listing as it was read from the topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    pub content: Arc<Listed>,
    pub origin: Origin,
    /// When the content was first appended, before it moved.
    pub first_listed: Timestamp,
    /// When this message was appended; later than `first_listed` when the listing moved.
    pub appended: Timestamp,
    /// Fetches that failed, those before it moved included.
    pub attempts: u32,
}

/// What a listing that was read became.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// A content that did not wait yet.
    Waits,
    /// Another listing of a content that waits: one fetch settles both.
    Joined,
    /// Its offset had been read already.
    Known,
}

/// Names one start of one content. An abort makes all that were given out before it mean nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttemptId(u64);

/// A content that was handed out. It comes back by [`Backlog::settled`], [`Backlog::failed`] or [`Backlog::released`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    pub id: AttemptId,
    pub listing: Listing,
}

/// The backlog of one partition of the listings topic.
///
/// Settling belongs to the open transaction: [`Self::commit`] makes it final, [`Self::abort`] takes it back
/// (docs/exactly-once.md, rules 9 and 19).
#[derive(Debug)]
pub struct Backlog {
    /// One past the last offset that was read.
    read_to: i64,
    /// Without those that the open transaction settles.
    unsettled: BTreeSet<i64>,
    sources: HashMap<Source, Waiting>,
    /// Sources with something ready, each once; the front is served next.
    turns: VecDeque<Source>,
    delayed: BTreeSet<(Timestamp, Source, ContentKey)>,
    /// Ordered, so that an abort makes the same turns each time.
    in_flight: BTreeMap<AttemptId, (Source, ContentKey)>,
    started: u64,
    /// Settled by the open transaction.
    open: Vec<Job>,
}

/// The contents of one source that wait, in flight or not.
#[derive(Debug, Default)]
struct Waiting {
    jobs: HashMap<ContentKey, Job>,
    /// By the first offset. Not empty exactly when the source has a turn.
    ready: BTreeSet<(i64, ContentKey)>,
}

/// A content and the offsets of all its listings, ascending and never none.
#[derive(Debug)]
struct Job {
    listing: Listing,
    offsets: Vec<i64>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ready,
    Delayed(Timestamp),
    InFlight,
}

impl Backlog {
    /// Reading begins at the group's committed offset.
    pub fn new(committed_offset: i64) -> Self {
        Self {
            read_to: committed_offset,
            unsettled: BTreeSet::new(),
            sources: HashMap::new(),
            turns: VecDeque::new(),
            delayed: BTreeSet::new(),
            in_flight: BTreeMap::new(),
            started: 0,
            open: Vec::new(),
        }
    }

    /// A listing that is wanted. Offsets ascend, with holes where markers of transactions are.
    pub fn add(&mut self, offset: i64, listing: Listing) -> Added {
        if offset < self.read_to {
            return Added::Known;
        }
        self.read_to = offset + 1;
        self.unsettled.insert(offset);
        let (source, key) = (listing.content.source, listing.content.key());
        match self.sources.entry(source).or_default().jobs.entry(key) {
            Entry::Occupied(mut job) => {
                job.get_mut().offsets.push(offset);
                Added::Joined
            }
            Entry::Vacant(place) => {
                place.insert(Job { listing, offsets: vec![offset], state: State::Ready });
                self.make_ready(source, key);
                Added::Waits
            }
        }
    }

    /// Everything below `position` was read: listings of settled contents, strange messages, markers of transactions.
    pub fn read_to(&mut self, position: i64) {
        self.read_to = self.read_to.max(position);
    }

    /// Hands out the next content: sources take turns, each in the order of its listings, among those that `may_start`.
    pub fn start_next(&mut self, now: Timestamp, may_start: impl Fn(&Source) -> bool) -> Option<Attempt> {
        self.wake(now);
        for _ in 0..self.turns.len() {
            let source = self.turns.pop_front()?;
            // Back at once: if it has nothing more, its turn goes with the last of it.
            self.turns.push_back(source);
            if may_start(&source) {
                let (_, key) = *self.sources.get(&source)?.ready.first()?;
                return self.start(source, key);
            }
        }
        None
    }

    /// Hands out up to `max` contents that wait, ready or not, and that `is_stale`, to be settled as moved (rule 15).
    pub fn start_stale(&mut self, max: usize, is_stale: impl Fn(&Listing) -> bool) -> Vec<Attempt> {
        let mut stale: Vec<_> = self
            .jobs()
            .filter(|(_, _, job)| job.state != State::InFlight && is_stale(&job.listing))
            .map(|(source, key, job)| (job.offsets[0], source, key))
            .collect();
        stale.sort_unstable();
        stale.truncate(max);
        stale.into_iter().filter_map(|(_, source, key)| self.start(source, key)).collect()
    }

    /// The open transaction settles the content, under all offsets it was listed at so far.
    ///
    /// A listing of it that comes later is a content of its own: a moved content comes again like that.
    /// False: the attempt means nothing any more, and nothing happened.
    pub fn settled(&mut self, attempt: AttemptId) -> bool {
        let Some((source, key)) = self.in_flight.remove(&attempt) else { return false };
        let Some(job) = self.remove(source, key) else { return false };
        for offset in &job.offsets {
            self.unsettled.remove(offset);
        }
        self.open.push(job);
        true
    }

    /// The fetch failed; again at `retry_at`. False: the attempt means nothing any more.
    pub fn failed(&mut self, attempt: AttemptId, retry_at: Timestamp) -> bool {
        let Some((source, key)) = self.in_flight.remove(&attempt) else { return false };
        if let Some(job) = self.job_mut(source, key) {
            job.state = State::Delayed(retry_at);
            job.listing.attempts = job.listing.attempts.saturating_add(1);
            self.delayed.insert((retry_at, source, key));
        }
        true
    }

    /// The content was not tried after all; it is ready again. False: the attempt means nothing any more.
    pub fn released(&mut self, attempt: AttemptId) -> bool {
        let Some((source, key)) = self.in_flight.remove(&attempt) else { return false };
        self.make_ready(source, key);
        true
    }

    /// The transaction committed: what it settled is final.
    pub fn commit(&mut self) {
        self.open.clear();
    }

    /// The transaction was aborted: what it settled is ready again, and so is everything in flight, because each
    /// attempt may have left records to a layer that is gone (rule 9).
    pub fn abort(&mut self) {
        for (_, (source, key)) in std::mem::take(&mut self.in_flight) {
            self.make_ready(source, key);
        }
        // Backwards, so that what is there already is always the later one.
        for mut job in std::mem::take(&mut self.open).into_iter().rev() {
            let (source, key) = (job.listing.content.source, job.listing.content.key());
            self.unsettled.extend(&job.offsets);
            // Listed again in the meantime: one fetch again, at the earlier place.
            if let Some(later) = self.remove(source, key) {
                job.offsets.extend(later.offsets);
            }
            self.sources.entry(source).or_default().jobs.insert(key, job);
            self.make_ready(source, key);
        }
    }

    /// The offset for the group: the lowest listing that neither an earlier nor this transaction settles (rule 19).
    pub fn offset_to_commit(&self) -> i64 {
        self.unsettled.first().copied().unwrap_or(self.read_to)
    }

    /// When the next delayed content becomes ready.
    pub fn next_wakeup(&self) -> Option<Timestamp> {
        self.delayed.first().map(|(at, _, _)| *at)
    }

    /// Whether the content waits or is in flight.
    pub fn is_pending(&self, source: &Source, key: &ContentKey) -> bool {
        self.sources.get(source).is_some_and(|waiting| waiting.jobs.contains_key(key))
    }

    /// Contents of the source that wait or are in flight.
    pub fn waiting(&self, source: &Source) -> usize {
        self.sources.get(source).map_or(0, |waiting| waiting.jobs.len())
    }

    /// Listings, of any source, that are not settled: what a bounded look-ahead counts.
    pub fn unsettled_len(&self) -> usize {
        self.unsettled.len()
    }

    /// `contentCreated` of the source's oldest content whose settlement is not committed. Looks at all of them.
    pub fn oldest_created(&self, source: &Source) -> Option<Timestamp> {
        self.uncommitted(source).map(|content| content.created).min()
    }

    /// The source's contents whose settlement is not committed: they wait, are in flight, or the open transaction settles
    /// them. In no order.
    pub fn uncommitted(&self, source: &Source) -> impl Iterator<Item = &Listed> {
        let waiting = self.sources.get(source).into_iter().flat_map(|waiting| waiting.jobs.values());
        let open = self.open.iter().filter(move |job| job.listing.content.source == *source);
        waiting.chain(open).map(|job| &*job.listing.content)
    }

    /// Starts a content that is ready or delayed.
    fn start(&mut self, source: Source, key: ContentKey) -> Option<Attempt> {
        self.withdraw(source, key);
        let id = AttemptId(self.started);
        let job = self.job_mut(source, key)?;
        job.state = State::InFlight;
        let listing = job.listing.clone();
        self.started += 1;
        self.in_flight.insert(id, (source, key));
        Some(Attempt { id, listing })
    }

    /// What was delayed until now is ready.
    fn wake(&mut self, now: Timestamp) {
        while let Some((at, source, key)) = self.delayed.first().copied() {
            if now < at {
                break;
            }
            self.delayed.pop_first();
            self.make_ready(source, key);
        }
    }

    fn make_ready(&mut self, source: Source, key: ContentKey) {
        let Some(waiting) = self.sources.get_mut(&source) else { return };
        let Some(job) = waiting.jobs.get_mut(&key) else { return };
        job.state = State::Ready;
        if waiting.ready.is_empty() {
            self.turns.push_back(source);
        }
        waiting.ready.insert((job.offsets[0], key));
    }

    /// Takes a content out of the order of what is to be started.
    fn withdraw(&mut self, source: Source, key: ContentKey) {
        let Some(waiting) = self.sources.get_mut(&source) else { return };
        let Some(job) = waiting.jobs.get(&key) else { return };
        match job.state {
            State::Ready => {
                waiting.ready.remove(&(job.offsets[0], key));
                if waiting.ready.is_empty() {
                    self.turns.retain(|turn| *turn != source);
                }
            }
            State::Delayed(at) => _ = self.delayed.remove(&(at, source, key)),
            State::InFlight => {}
        }
    }

    fn remove(&mut self, source: Source, key: ContentKey) -> Option<Job> {
        self.withdraw(source, key);
        let waiting = self.sources.get_mut(&source)?;
        let job = waiting.jobs.remove(&key);
        if waiting.jobs.is_empty() {
            self.sources.remove(&source);
        }
        job
    }

    fn job_mut(&mut self, source: Source, key: ContentKey) -> Option<&mut Job> {
        self.sources.get_mut(&source)?.jobs.get_mut(&key)
    }

    fn jobs(&self) -> impl Iterator<Item = (Source, ContentKey, &Job)> {
        self.sources.iter().flat_map(|(source, waiting)| waiting.jobs.iter().map(|(key, job)| (*source, *key, job)))
    }
}

#[cfg(test)]
mod tests;
