//! What was owed against what is in the topics. Plain counting: both sides come in, a verdict goes out.

use std::{collections::HashMap, fmt};

use crate::{
    domain::{ContentType, RecordId},
    simulator::{SourceTruth, TruthRecord},
};

/// How often each record is there, or should be.
///
/// A record is known by its content type and its `Id`; one without a usable `Id` by a hash of its bytes, and several of
/// those may rightly be equal.
pub type Counts = HashMap<(ContentType, RecordId), u64>;

/// What the topics must hold, and what they may.
#[derive(Debug)]
pub struct Owed {
    /// Available when the end was asked for.
    pub due: Counts,
    /// `due`, what came while the pipeline was stopping, and what had expired by then.
    pub may_be: Counts,
}

/// What a reader found in the topics.
#[derive(Clone, Debug, Default)]
pub struct Found {
    pub records: Counts,
    /// Gaps that did not close.
    pub gaps: u64,
}

/// The account. Prints as the line that ends a demo.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub made_available: u64,
    pub published: u64,
    pub missing: u64,
    pub duplicate: u64,
    pub gaps: u64,
    /// Records that are there and may be, though they were not due yet. They count for nothing else.
    pub later: u64,
    /// Records that nobody ever made available.
    pub unknown: u64,
}

impl Owed {
    /// What is due in each source.
    pub fn by(truth: &[SourceTruth]) -> Counts {
        counted(truth.iter().flat_map(|source| source.due.iter().map(move |record| (source, record))))
    }

    /// What is due, and what cannot be had any more but may have been had before.
    pub fn by_or_excused(truth: &[SourceTruth]) -> Counts {
        let due = truth.iter().flat_map(|source| source.due.iter().map(move |record| (source, record)));
        let excused = truth.iter().flat_map(|source| source.excused.iter().map(move |(_, record)| (source, record)));
        counted(due.chain(excused))
    }

    /// Compares. A record beyond `due` that may be there counts for nothing, unless it is there too often.
    pub fn verdict(&self, found: &Found) -> Verdict {
        let times = |counts: &Counts, record| counts.get(record).copied().unwrap_or_default();
        let mut verdict = Verdict { gaps: found.gaps, ..Verdict::default() };
        for (record, due) in &self.due {
            verdict.made_available += due;
            verdict.missing += due.saturating_sub(times(&found.records, record));
        }
        for (record, seen) in &found.records {
            let due = times(&self.due, record);
            let allowed = times(&self.may_be, record).max(due);
            let extra = seen.saturating_sub(allowed);
            if allowed == 0 {
                verdict.unknown += seen;
                continue;
            }
            verdict.duplicate += extra;
            verdict.later += (*seen).min(allowed).saturating_sub(due);
            verdict.published += (*seen).min(due) + if due == 0 { 0 } else { extra };
        }
        verdict
    }
}

impl Verdict {
    /// Whether every record is there once. A demo in which nothing happened has shown nothing.
    pub fn holds(&self) -> bool {
        let Self { made_available, published, missing, duplicate, gaps, later: _, unknown } = *self;
        made_available > 0 && published == made_available && [missing, duplicate, gaps, unknown] == [0; 4]
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { made_available, published, missing, duplicate, gaps, later: _, unknown } = self;
        write!(f, "{made_available} made available, {published} published, ")?;
        write!(f, "{missing} missing, {duplicate} duplicate, {gaps} gaps")?;
        if *unknown > 0 {
            write!(f, ", {unknown} unknown")?;
        }
        Ok(())
    }
}

fn counted<'a>(records: impl Iterator<Item = (&'a SourceTruth, &'a TruthRecord)>) -> Counts {
    let mut counts = Counts::new();
    for (source, record) in records {
        *counts.entry((source.source.content_type, known_by(record))).or_default() += 1;
    }
    counts
}

/// As the topics show it: equal records without an `Id` cannot be told apart there.
fn known_by(record: &TruthRecord) -> RecordId {
    match record.key() {
        Some(_) => record.identity,
        None => record.hashes().into_iter().next().map_or(record.identity, RecordId),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_once_is_what_holds() {
        let verdict = owed(&[(1, 1), (2, 1), (3, 2)], &[]).verdict(&found(&[(1, 1), (2, 1), (3, 2)], 0));
        assert!(verdict.holds());
        assert_eq!(verdict.to_string(), "4 made available, 4 published, 0 missing, 0 duplicate, 0 gaps");
    }

    #[test]
    fn a_missing_record_fails() {
        let verdict = owed(&[(1, 1), (3, 2)], &[]).verdict(&found(&[(3, 1)], 0));
        assert!(!verdict.holds());
        assert_eq!(verdict.to_string(), "3 made available, 1 published, 2 missing, 0 duplicate, 0 gaps");
    }

    #[test]
    fn a_duplicate_fails_and_does_not_hide_a_missing_one() {
        let verdict = owed(&[(1, 1), (2, 1)], &[]).verdict(&found(&[(1, 2)], 0));
        assert!(!verdict.holds());
        assert_eq!(verdict.to_string(), "2 made available, 2 published, 1 missing, 1 duplicate, 0 gaps");
    }

    #[test]
    fn a_gap_fails_though_all_is_there() {
        let verdict = owed(&[(1, 1)], &[]).verdict(&found(&[(1, 1)], 1));
        assert!(!verdict.holds());
        assert_eq!(verdict.to_string(), "1 made available, 1 published, 0 missing, 0 duplicate, 1 gaps");
    }

    #[test]
    fn a_record_of_after_the_end_may_be_there_once() {
        let owed = owed(&[(1, 1)], &[(2, 1)]);
        let once = owed.verdict(&found(&[(1, 1), (2, 1)], 0));
        assert!(once.holds());
        assert_eq!((once.published, once.later), (1, 1));
        let twice = owed.verdict(&found(&[(1, 1), (2, 2)], 0));
        assert!(!twice.holds() && twice.duplicate == 1);
    }

    #[test]
    fn a_record_nobody_made_fails_and_so_does_nothing_at_all() {
        let verdict = owed(&[(1, 1)], &[]).verdict(&found(&[(1, 1), (9, 1)], 0));
        assert!(!verdict.holds());
        assert_eq!(verdict.to_string(), "1 made available, 1 published, 0 missing, 0 duplicate, 0 gaps, 1 unknown");
        assert!(!owed(&[], &[]).verdict(&found(&[], 0)).holds());
    }

    #[test]
    fn the_same_id_in_another_content_type_is_another_record() {
        let mut found = found(&[], 0);
        found.records.insert((ContentType::Dlp, RecordId([1; 16])), 1);
        let verdict = owed(&[(1, 1)], &[]).verdict(&found);
        assert_eq!((verdict.missing, verdict.unknown), (1, 1));
    }

    fn owed(due: &[(u8, u64)], later: &[(u8, u64)]) -> Owed {
        let may_be = due.iter().chain(later).copied().collect::<Vec<_>>();
        Owed { due: counts(due), may_be: counts(&may_be) }
    }

    fn found(records: &[(u8, u64)], gaps: u64) -> Found {
        Found { records: counts(records), gaps }
    }

    fn counts(records: &[(u8, u64)]) -> Counts {
        records.iter().map(|(id, times)| ((ContentType::Exchange, RecordId([*id; 16])), *times)).collect()
    }
}
