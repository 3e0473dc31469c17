//! What ledger, listings and gaps know of one source.

use std::collections::{HashMap, HashSet};

use jiff::{SignedDuration, Timestamp};

use super::{Stray, Verdict};
use crate::domain::{ContentKey, Day, Ledger, Listed, Mark, Outcome, RecordId};

/// What the topics know of one source. Filled in the order of each topic; to fill in the same once more changes nothing.
#[derive(Debug)]
pub struct Known {
    /// Ids and marks.
    published: Ledger,
    /// Ids that a filter of the operator dropped on purpose.
    filtered: Ledger,
    /// The latest offset of each content in the listings topic.
    listings: HashMap<ContentKey, i64>,
    /// When a repair last put a content back there.
    put_back: HashMap<ContentKey, Timestamp>,
    /// Listings below it wait no more.
    committed: i64,
    /// Contents that an open gap names.
    gaps: HashSet<ContentKey>,
    /// Records too large for their topic, by identity, and those without an `Id` by content and size. Their ids are in the
    /// ledger as well, because the writer is done with them.
    oversize: HashSet<RecordId>,
    oversize_nameless: HashSet<(ContentKey, u64)>,
    /// Contents that were published but for such records.
    in_part: HashSet<ContentKey>,
    /// Spans that nobody listed.
    unlisted: Vec<(Timestamp, Timestamp)>,
    /// Nothing created before it was ever asked for.
    began: Option<Timestamp>,
    /// The ledger has lost what it knew of contents created before.
    knows_from: Timestamp,
}

/// When the service was asked, and how long the connector may take to see a content.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    pub listed_at: Timestamp,
    pub grace: SignedDuration,
}

impl Moment {
    fn is_young(&self, content: &Listed) -> bool {
        self.listed_at.duration_since(content.created) < self.grace
    }
}

/// What the topics say of a content under its id. The ids of its records may be known all the same: contents are ranges,
/// and the records of one come under other ids too (docs/api/contract.md 3.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Published.
    Delivered,
    /// Published but for records that gaps name.
    InPart,
    /// Could not be had, and a gap says so.
    Gap,
    /// Listed and not fetched yet, or put back and not fetched again yet.
    Waiting,
    /// Too young to be known.
    Young,
    /// Nobody knows it under this id: only its records can tell.
    Nobody,
}

impl Standing {
    /// The verdict on a content that nobody looked into.
    pub(super) fn verdict(self) -> Verdict {
        match self {
            Self::Delivered => Verdict::Delivered,
            Self::InPart | Self::Gap => Verdict::Gap,
            Self::Waiting | Self::Young => Verdict::Waiting,
            Self::Nobody => Verdict::Unknown,
        }
    }

    /// The verdict on a content that could not be read. That it was published once is not taken for an answer: whoever
    /// wanted it read wanted to know more.
    pub(super) fn verdict_unreadable(self) -> Verdict {
        match self {
            Self::Gap => Verdict::Gap,
            Self::Waiting | Self::Young => Verdict::Waiting,
            Self::Delivered | Self::InPart | Self::Nobody => Verdict::Unknown,
        }
    }
}

impl Default for Known {
    fn default() -> Self {
        Self {
            published: Ledger::new(),
            filtered: Ledger::new(),
            listings: HashMap::new(),
            put_back: HashMap::new(),
            committed: i64::MAX,
            gaps: HashSet::new(),
            oversize: HashSet::new(),
            oversize_nameless: HashSet::new(),
            in_part: HashSet::new(),
            unlisted: Vec::new(),
            began: None,
            knows_from: Timestamp::MIN,
        }
    }
}

impl Known {
    /// The id of a record that was published, of a ledger entry appended on `day`.
    pub fn published(&mut self, id: RecordId, day: Day) {
        self.published.restore_id(id, day);
    }

    /// The id of a record that was left out on purpose.
    pub fn filtered(&mut self, id: RecordId, day: Day) {
        self.filtered.restore_id(id, day);
    }

    pub fn settled(&mut self, key: ContentKey, mark: Mark) {
        self.published.restore_mark(key, mark);
    }

    pub fn mark(&self, key: &ContentKey) -> Option<&Mark> {
        self.published.mark(key)
    }

    /// A message of the listings topic; `put_back`: when it was appended, if a repair did so.
    pub fn listed(&mut self, key: ContentKey, offset: i64, put_back: Option<Timestamp>) {
        let last = self.listings.entry(key).or_insert(offset);
        *last = offset.max(*last);
        if let Some(appended) = put_back {
            let last = self.put_back.entry(key).or_insert(appended);
            *last = appended.max(*last);
        }
    }

    /// The group's offset in the listings topic; the topic's start when there is none.
    pub fn committed(&mut self, offset: i64) {
        self.committed = offset;
    }

    pub fn gap_opened(&mut self, key: ContentKey) {
        self.gaps.insert(key);
    }

    pub fn gap_closed(&mut self, key: ContentKey) {
        self.gaps.remove(&key);
    }

    /// A record that was too large, of a content that was published else.
    pub fn too_large(&mut self, key: ContentKey, record_id: Option<&str>, size: u64) {
        self.in_part.insert(key);
        match record_id {
            Some(id) => _ = self.oversize.insert(RecordId::of_text(id)),
            None => _ = self.oversize_nameless.insert((key, size)),
        }
    }

    /// Nobody listed what was created in `from <= t < to`.
    pub fn unlisted(&mut self, from: Timestamp, to: Timestamp) {
        self.unlisted.push((from, to));
    }

    pub fn began(&mut self, start_from: Timestamp) {
        self.began = Some(start_from);
    }

    /// Of contents created before, the ledger may have forgotten the records.
    pub fn knows_from(&mut self, from: Timestamp) {
        self.knows_from = self.knows_from.max(from);
    }

    /// From when on the ledger tells of every content.
    pub fn reach(&self) -> Timestamp {
        self.knows_from
    }

    /// Nothing created before was to be published; `None`: everything was.
    pub fn beginning(&self) -> Option<Timestamp> {
        self.began
    }

    /// Ids held.
    pub fn ids(&self) -> usize {
        self.published.ids() + self.filtered.ids()
    }

    pub fn standing(&self, content: &Listed, moment: Moment) -> Standing {
        let key = content.key();
        let waits = self.listings.get(&key).is_some_and(|offset| self.committed <= *offset);
        let mark = self.published.mark(&key);
        let is_put_back = |mark: &Mark| self.put_back.get(&key).is_some_and(|appended| mark.settled < *appended);
        if waits && mark.is_some_and(is_put_back) {
            return Standing::Waiting;
        }
        match mark.map(|mark| mark.outcome) {
            Some(Outcome::Published) if self.in_part.contains(&key) => Standing::InPart,
            Some(Outcome::Published) => Standing::Delivered,
            Some(Outcome::Gap(_)) => Standing::Gap,
            // What moved is the listing: the content waits under a later one.
            Some(Outcome::Moved) | None if waits => Standing::Waiting,
            Some(Outcome::Moved) | None => self.standing_unlisted(&key, content, moment),
        }
    }

    fn standing_unlisted(&self, key: &ContentKey, content: &Listed, moment: Moment) -> Standing {
        let is_unlisted = |(from, to): &(Timestamp, Timestamp)| (*from..*to).contains(&content.created);
        if self.gaps.contains(key) || self.unlisted.iter().any(is_unlisted) {
            Standing::Gap
        } else if moment.is_young(content) {
            Standing::Young
        } else {
            Standing::Nobody
        }
    }

    /// What became of a record, as far as its id tells: delivered, filtered, or a gap of its own.
    pub(super) fn fate_of(&self, content: &ContentKey, id: RecordId, size: u64) -> Option<Verdict> {
        if self.oversize_nameless.contains(&(*content, size)) || self.oversize.contains(&id) {
            Some(Verdict::Gap)
        } else if self.published.knows(id) {
            Some(Verdict::Delivered)
        } else {
            self.filtered.knows(id).then_some(Verdict::Filtered)
        }
    }

    /// The verdict on a record that was not accounted for at the first look.
    pub(super) fn judge(&self, content: &Listed, moment: Moment, stray: &Stray) -> Verdict {
        if let Some(verdict) = self.fate_of(&content.key(), stray.identity, stray.size) {
            return verdict;
        }
        match self.standing(content, moment) {
            Standing::Waiting | Standing::Young => Verdict::Waiting,
            Standing::Gap => Verdict::Gap,
            // It may have grown a moment ago: another listing, under another id, brings the rest.
            _ if moment.is_young(content) => Verdict::Waiting,
            _ if content.created < self.knows_from => Verdict::Unknown,
            Standing::Delivered | Standing::InPart | Standing::Nobody => Verdict::Missing,
        }
    }
}
