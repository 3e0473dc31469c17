//! The verdicts, added up by source and hour, and everything missing by name.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use jiff::Timestamp;

use super::{Inside, Known, Looked, Moment, Opened};
use crate::domain::{Listed, RecordId, Source};

/// What became of a record, or of a content: then it is the worst of its records', the later here the worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    /// Left out on purpose.
    Filtered,
    Delivered,
    /// Not there, and named as a gap.
    Gap,
    /// To be published yet.
    Waiting,
    /// Nobody can say: it could not be read, or the ledger does not reach so far back.
    Unknown,
    /// It is to be had, and is not there.
    Missing,
}

impl Verdict {
    pub const ALL: [Self; 6] =
        [Self::Filtered, Self::Delivered, Self::Gap, Self::Waiting, Self::Unknown, Self::Missing];
}

/// So many of each verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts([u64; Verdict::ALL.len()]);

impl Counts {
    pub fn add(&mut self, verdict: Verdict, count: u64) {
        self.0[verdict as usize] += count;
    }

    pub fn of(&self, verdict: Verdict) -> u64 {
        self.0[verdict as usize]
    }

    pub fn all(&self) -> u64 {
        self.0.iter().sum()
    }

    pub fn merge(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(ours, theirs)| *ours += theirs);
    }

    fn worst(&self) -> Option<Verdict> {
        Verdict::ALL.into_iter().rev().find(|verdict| 0 < self.of(*verdict))
    }
}

/// An hour of a source, or all of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    pub contents: Counts,
    /// Of the contents that were looked into; a record in two contents counts twice.
    pub records: Counts,
}

impl Cell {
    pub fn merge(&mut self, other: &Self) {
        self.contents.merge(&other.contents);
        self.records.merge(&other.records);
    }
}

/// A record that the service has and the ledger does not.
#[derive(Clone, Debug)]
pub struct MissingRecord {
    /// The first content that was found to hold it.
    pub content: Arc<Listed>,
    pub identity: RecordId,
    pub id: Option<String>,
    /// `CreationTime` in seconds since 1970.
    pub created: Option<i64>,
}

/// What a comparison found.
#[derive(Debug, Default)]
pub struct Findings {
    /// By source and by the hour of `contentCreated`.
    pub hours: BTreeMap<Source, BTreeMap<Timestamp, Cell>>,
    /// Each record once, in the order of the contents.
    pub missing: Vec<MissingRecord>,
    /// Contents that nobody could read, and why.
    pub unreadable: Vec<(Arc<Listed>, String)>,
    /// When the oldest content became available that waits.
    pub waiting_since: Option<Timestamp>,
    /// Of each content, in the order in which they were given.
    pub verdicts: Vec<Verdict>,
}

impl Findings {
    pub fn total(&self) -> Cell {
        let mut total = Cell::default();
        self.hours.values().flat_map(BTreeMap::values).for_each(|cell| total.merge(cell));
        total
    }
}

/// Compares contents with what is known of their sources. A source that nothing is known of has nothing.
pub fn compare(known: &HashMap<Source, Known>, contents: &[Looked], moment: Moment) -> Findings {
    let (nothing, mut found) = (Known::default(), Findings::default());
    let mut named: HashSet<(Source, RecordId)> = HashSet::new();
    for Looked { content, inside } in contents {
        let known = known.get(&content.source).unwrap_or(&nothing);
        let standing = known.standing(content, moment);
        let mut records = Counts::default();
        let verdict = match inside {
            Inside::Unopened => standing.verdict(),
            Inside::Unreadable(why) => {
                let verdict = standing.verdict_unreadable();
                if verdict == Verdict::Unknown {
                    found.unreadable.push((Arc::clone(content), why.clone()));
                }
                verdict
            }
            Inside::Read(opened) => {
                records = judge(known, content, opened, moment, |missing| {
                    if named.insert((content.source, missing.identity)) {
                        found.missing.push(missing);
                    }
                });
                // Nothing in it, nothing lacks.
                records.worst().unwrap_or(Verdict::Delivered)
            }
        };
        if verdict == Verdict::Waiting {
            let since = found.waiting_since.get_or_insert(content.created);
            *since = content.created.min(*since);
        }
        let cell = found.hours.entry(content.source).or_default().entry(hour(content.created)).or_default();
        cell.contents.add(verdict, 1);
        cell.records.merge(&records);
        found.verdicts.push(verdict);
    }
    found
}

/// The verdicts on a content's records; `missing` is told of each that is.
fn judge(
    known: &Known,
    content: &Arc<Listed>,
    opened: &Opened,
    moment: Moment,
    mut missing: impl FnMut(MissingRecord),
) -> Counts {
    let mut records = opened.accounted;
    for stray in &opened.strays {
        let verdict = known.judge(content, moment, stray);
        records.add(verdict, 1);
        if verdict == Verdict::Missing {
            missing(MissingRecord {
                content: Arc::clone(content),
                identity: stray.identity,
                id: stray.id.clone(),
                created: stray.created,
            });
        }
    }
    records
}

/// The beginning of the hour, UTC.
fn hour(time: Timestamp) -> Timestamp {
    let seconds = time.as_second();
    Timestamp::from_second(seconds - seconds.rem_euclid(3_600)).unwrap_or(time)
}
