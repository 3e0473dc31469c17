//! What is known to be published or filtered, per source: the ids of records and the marks of contents.
//! One door: [`Ledger`]. It holds no topic and no clock; it is restored from the ledger topic and follows its transactions.

mod day; // when an id was last seen, in one byte
mod ids; // millions of ids in 24 bytes each
mod mark; // a settled content, and whether it is wanted again

use std::collections::HashMap;

use jiff::Timestamp;

pub use self::{
    day::Day,
    mark::{Found, Mark, Outcome, Recheck as RecheckState},
};
use self::{day::DayMark, ids::Ids};
use crate::{
    config,
    domain::{ContentKey, Origin, RecordId},
};

/// What a look at a record's id says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Publish it, and write its id to the ledger.
    New,
    /// Published or filtered, and its ledger entry is of today: nothing to do.
    Repeat,
    /// Published on an earlier day: do not publish it, but write its id to the ledger again (rule 12).
    Refresh,
    /// Dropped by a filter on an earlier day: the same, and it is written as filtered again (rule 23).
    RefreshFiltered,
}

/// What to do about a content that is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// It is settled.
    No,
    /// It is not settled.
    New,
    /// It is published, and fetched a second time to see whether it grew.
    Recheck,
    /// It is a gap that may close.
    GapAgain,
}

/// The memory of one source, in two layers: what is committed, and what the open transaction would add.
///
/// Rules are those of docs/exactly-once.md. There is one open transaction at a time, and nothing is [seen](Self::see)
/// for the next one before [`Self::commit`] or [`Self::abort`] has told how it ended (rules 6 and 9).
#[derive(Debug)]
pub struct Ledger {
    ids: Ids,
    marks: HashMap<ContentKey, Mark>,
    /// Rechecks since one found something.
    fruitless: u32,
    open_ids: HashMap<RecordId, DayMark>,
    open_marks: HashMap<ContentKey, Mark>,
    forgetting: Forgetting,
}

/// How far [`Ledger::forget`] has come.
#[derive(Debug, Default)]
struct Forgetting {
    /// Ids of earlier days go.
    cutoff: Option<Day>,
    /// The next shard to look at for them; as many as there are shards when all have been.
    shard: usize,
    /// Up to when marks were dropped.
    marks: Option<Day>,
}

/// Slots that one call of [`Ledger::forget`] looks at, give or take a shard: some milliseconds.
const FORGET_SLOTS: usize = 250_000;

/// What an open layer may keep allocated between transactions: most sources never need as much.
const OPEN_KEEPS: usize = 1_024;

impl Default for Ledger {
    fn default() -> Self {
        Self::new()
    }
}

impl Ledger {
    pub fn new() -> Self {
        Self {
            ids: Ids::new(),
            marks: HashMap::new(),
            fruitless: 0,
            open_ids: HashMap::new(),
            open_marks: HashMap::new(),
            forgetting: Forgetting::default(),
        }
    }

    /// Looks for a record in both layers; one that is new or of an earlier day goes into the open one. A new one counts
    /// as published until [`Self::filter`] says otherwise.
    pub fn see(&mut self, id: RecordId, today: Day) -> Seen {
        let known = self.open_ids.get(&id).copied().or_else(|| self.ids.get(id));
        let (mark, seen) = match known {
            Some(day) if !day.is_before(today) => return Seen::Repeat,
            Some(day) if day.is_filtered() => (today.mark().filtered(), Seen::RefreshFiltered),
            Some(_) => (today.mark(), Seen::Refresh),
            None => (today.mark(), Seen::New),
        };
        self.open_ids.insert(id, mark);
        seen
    }

    /// A record that was [`Seen::New`] is not published, because a filter drops it.
    pub fn filter(&mut self, id: RecordId, today: Day) {
        self.open_ids.insert(id, today.mark().filtered());
    }

    /// Whether a record's id is known, in either layer. Remembers nothing.
    pub fn knows(&self, id: RecordId) -> bool {
        self.open_ids.contains_key(&id) || self.ids.get(id).is_some()
    }

    /// Settles a content within the open transaction.
    pub fn settle(&mut self, key: ContentKey, mark: Mark) {
        self.open_marks.insert(key, mark);
    }

    /// The latest mark of a content, of the open transaction or an earlier one.
    pub fn mark(&self, key: &ContentKey) -> Option<&Mark> {
        self.open_marks.get(key).or_else(|| self.committed_mark(key))
    }

    pub fn committed_mark(&self, key: &ContentKey) -> Option<&Mark> {
        self.marks.get(key)
    }

    /// The transaction committed: its layer becomes part of the memory.
    pub fn commit(&mut self) {
        for (id, day) in self.open_ids.drain() {
            self.ids.put(id, day);
        }
        for (key, mark) in std::mem::take(&mut self.open_marks) {
            self.restore_mark(key, mark);
        }
        self.open_ids.shrink_to(OPEN_KEEPS);
    }

    /// The transaction was aborted: its layer is as if it had never been (rule 9).
    pub fn abort(&mut self) {
        self.open_ids = HashMap::new();
        self.open_marks = HashMap::new();
    }

    /// An id of a committed ledger entry that was appended on `day`. Entries come in the order of the log.
    pub fn restore_id(&mut self, id: RecordId, day: Day) {
        self.ids.put(id, day.mark());
    }

    /// The same for an id of an entry that says it was filtered.
    pub fn restore_filtered(&mut self, id: RecordId, day: Day) {
        self.ids.put(id, day.mark().filtered());
    }

    /// A mark of a committed ledger entry. Entries come in the order of the log; a later mark replaces an earlier one.
    pub fn restore_mark(&mut self, key: ContentKey, mark: Mark) {
        match mark.recheck {
            RecheckState::Empty => self.fruitless = self.fruitless.saturating_add(1),
            RecheckState::Grown => self.fruitless = 0,
            RecheckState::Due | RecheckState::NotNeeded => {}
        }
        self.marks.insert(key, mark);
    }

    /// Whether a listed content is to be fetched. Both the lister (before it appends) and the reader of the listings ask.
    ///
    /// Only a listing of a sweep brings a content back: for its recheck when `recheck` allows it (rule 21), or when it
    /// is a gap that may close and was not tried within the day (rule 20). One of a repair always does: whoever put it
    /// there saw that something is missing, and what is not missing is a repeat. Unless the ids of that time are
    /// forgotten (rule 13): then what is not missing would be published again.
    pub fn wanted(&self, key: &ContentKey, origin: Origin, recheck: config::Recheck, now: Timestamp) -> Want {
        let Some(mark) = self.mark(key) else { return Want::New };
        let (sweep, repair) = (origin == Origin::Sweep, origin == Origin::Repair);
        match mark.outcome {
            // What moved is the listing; the content waits under a later one.
            Outcome::Moved => Want::New,
            Outcome::Published | Outcome::Gap(_) if repair && !self.remembers(mark.created) => Want::No,
            Outcome::Published if repair => Want::Recheck,
            Outcome::Gap(_) if repair => Want::GapAgain,
            Outcome::Published if sweep && mark.is_recheck_due(key, recheck, self.fruitless) => Want::Recheck,
            Outcome::Gap(_) if sweep && mark.may_close(now) => Want::GapAgain,
            Outcome::Published | Outcome::Gap(_) => Want::No,
        }
    }

    /// Whether no id was forgotten that a content created then may have in common with others.
    fn remembers(&self, created: Timestamp) -> bool {
        self.forgetting.cutoff.is_none_or(|cutoff| cutoff <= Day::of(created).first_needed())
    }

    /// Drops what need not be known any more, in small portions; false asks to be called again soon.
    ///
    /// A day of ids goes when it is more than `window_days` ago *and* every content created up to a day after it is
    /// settled (rule 13): `oldest_unsettled` is the earliest `contentCreated` among those that are not. Marks settled
    /// before `marks_before` go: the listings live no longer than that (rule 14).
    pub fn forget(
        &mut self,
        today: Day,
        window_days: u16,
        oldest_unsettled: Option<Timestamp>,
        marks_before: Timestamp,
    ) -> bool {
        self.forget_marks(marks_before);
        let window = Day(today.0.saturating_sub(i32::from(window_days)));
        let needed = oldest_unsettled.map_or(window, |created| Day::of(created).first_needed());
        let cutoff = window.min(needed);
        if self.forgetting.cutoff.replace(cutoff) != Some(cutoff) {
            self.forgetting.shard = 0;
        }
        let mut slots = 0;
        while self.forgetting.shard < self.ids.shards() && slots < FORGET_SLOTS {
            slots += self.ids.slots(self.forgetting.shard);
            self.ids.retain(self.forgetting.shard, |day| !day.is_before(cutoff));
            self.forgetting.shard += 1;
        }
        self.forgetting.shard >= self.ids.shards()
    }

    /// Looks at all marks, so once for each day of `before`.
    fn forget_marks(&mut self, before: Timestamp) {
        let day = Day::of(before);
        if self.forgetting.marks.is_none_or(|reached| reached < day) {
            self.forgetting.marks = Some(day);
            self.marks.retain(|_, mark| mark.settled >= before);
            self.marks.shrink_to(self.marks.len() * 2);
        }
    }

    /// Ids committed.
    pub fn ids(&self) -> usize {
        self.ids.len()
    }

    /// Memory of both layers.
    pub fn memory_bytes(&self) -> usize {
        // A std map keeps one byte of control beside each entry.
        let open = self.open_ids.capacity() * (size_of::<(RecordId, DayMark)>() + 1);
        let marks = self.marks.capacity() + self.open_marks.capacity();
        size_of::<Self>() + self.ids.memory_bytes() + open + marks * (size_of::<(ContentKey, Mark)>() + 1)
    }
}

#[cfg(test)]
mod tests;
