//! The laws of the ledger, against a model made of plain maps.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::*;
use crate::domain::GapReason;

#[test]
fn an_abort_undoes_ids_and_marks_and_a_commit_keeps_them() {
    let mut ledger = Ledger::new();
    let (r, c) = (id(1), key(1));
    for settle in [Ledger::abort, Ledger::commit] {
        assert_eq!(ledger.see(r, Day(10)), Seen::New);
        assert_eq!(ledger.see(r, Day(10)), Seen::Repeat);
        ledger.settle(c, published(at(10, 0)));
        assert!(ledger.mark(&c).is_some() && ledger.committed_mark(&c).is_none());
        settle(&mut ledger);
    }
    assert_eq!(ledger.see(r, Day(10)), Seen::Repeat);
    assert_eq!(ledger.committed_mark(&c), Some(&published(at(10, 0))));
    assert_eq!(ledger.ids(), 1);
}

/// Rule 12: day 0, day 5, day 10 with eight days of memory.
#[test]
fn a_repeat_refreshes_its_id() {
    let mut ledger = Ledger::new();
    for (day, expected) in [(0, Seen::New), (5, Seen::Refresh), (5, Seen::Repeat), (10, Seen::Refresh)] {
        assert_eq!(ledger.see(id(1), Day(day)), expected, "day {day}");
        ledger.commit();
        assert!(ledger.forget(Day(day), 8, None, at(-30, 0)));
    }
    assert!(ledger.forget(Day(19), 8, None, at(-30, 0)));
    assert_eq!(ledger.see(id(1), Day(19)), Seen::New);
}

#[test]
fn an_aborted_refresh_is_asked_for_again() {
    let mut ledger = Ledger::new();
    ledger.restore_id(id(1), Day(3));
    assert_eq!(ledger.see(id(1), Day(4)), Seen::Refresh);
    ledger.abort();
    assert_eq!(ledger.see(id(1), Day(4)), Seen::Refresh);
}

/// Rule 23: whatever the layer, the day and the restart, a filtered id is known, and known as filtered.
#[test]
fn a_filtered_id_stays_filtered_and_an_abort_undoes_it() {
    let mut ledger = Ledger::new();
    for end in [Ledger::abort, Ledger::commit] {
        assert_eq!(ledger.see(id(1), Day(0)), Seen::New);
        ledger.filter(id(1), Day(0));
        assert_eq!(ledger.see(id(1), Day(0)), Seen::Repeat);
        end(&mut ledger);
    }
    assert_eq!(ledger.see(id(1), Day(0)), Seen::Repeat);
    for _ in 0..2 {
        assert_eq!(ledger.see(id(1), Day(5)), Seen::RefreshFiltered);
        assert_eq!(ledger.see(id(1), Day(5)), Seen::Repeat);
        ledger.abort();
    }
    ledger.restore_filtered(id(2), Day(3));
    assert_eq!(ledger.see(id(2), Day(3)), Seen::Repeat);
    assert_eq!(ledger.see(id(2), Day(5)), Seen::RefreshFiltered);
    ledger.forget(Day(20), 8, None, at(-30, 0));
    ledger.commit();
    ledger.forget(Day(20), 8, None, at(-30, 0));
    ledger.forget(Day(21), 8, None, at(-30, 0));
    assert_eq!(ledger.ids(), 0);
    assert_eq!(ledger.see(id(2), Day(21)), Seen::New);
}

/// Rule 13: a long backlog keeps the ids around its oldest content, and a day before that content.
#[test]
fn an_unsettled_content_keeps_the_days_that_it_may_repeat() {
    let mut ledger = Ledger::new();
    for day in 0..30 {
        ledger.restore_id(id(day as u32), Day(day));
    }
    ledger.forget(Day(30), 2, Some(at(10, 23)), at(-30, 0));
    assert_eq!(ledger.ids(), 21); // days 9 to 29
    ledger.forget(Day(30), 2, None, at(-30, 0));
    assert_eq!(ledger.ids(), 2); // days 28 and 29
}

#[test]
fn a_large_ledger_forgets_in_portions() {
    let mut ledger = Ledger::new();
    for n in 0..400_000 {
        ledger.restore_id(id(n), Day(if n % 4 == 0 { 9 } else { 0 }));
    }
    let portions = (1..100).find(|_| ledger.forget(Day(10), 8, None, at(-30, 0))).unwrap();
    assert!(portions > 1);
    assert_eq!(ledger.ids(), 100_000);
}

#[test]
fn marks_stay_as_long_as_the_listings() {
    let mut ledger = Ledger::new();
    ledger.restore_mark(key(1), published(at(1, 0)));
    ledger.restore_mark(key(2), published(at(5, 0)));
    ledger.forget(Day(26), 1, None, at(5, 0));
    assert_eq!((ledger.mark(&key(1)), ledger.mark(&key(2))), (None, Some(&published(at(5, 0)))));
}

#[test]
fn only_a_sweep_brings_a_settled_content_back() {
    use Origin::{Follow, Sweep};
    use config::Recheck::{All, Off};
    let wanted = |outcome, origin, recheck, hour| {
        let mut ledger = Ledger::new();
        ledger.restore_mark(key(1), Mark::new(outcome, at(1, 0), at(1, 0), 7));
        ledger.wanted(&key(1), origin, recheck, at(1, hour))
    };
    assert_eq!(wanted(Outcome::Published, Follow, All, 2), Want::No);
    assert_eq!(wanted(Outcome::Published, Sweep, Off, 2), Want::No);
    assert_eq!(wanted(Outcome::Published, Sweep, All, 2), Want::Recheck);
    assert_eq!(wanted(Outcome::Moved, Follow, All, 2), Want::New);
    for reason in GapReason::ALL {
        let gap = Outcome::Gap(reason);
        let later = if reason.may_close() { Want::GapAgain } else { Want::No };
        assert_eq!(wanted(gap, Follow, All, 48), Want::No);
        assert_eq!(wanted(gap, Sweep, All, 22), Want::No);
        assert_eq!(wanted(gap, Sweep, All, 24), later);
    }
    assert_eq!(Ledger::new().wanted(&key(1), Follow, All, at(1, 0)), Want::New);
}

#[test]
fn a_repair_brings_every_settled_content_back() {
    let mut ledger = Ledger::new();
    let mut wanted = |outcome| {
        ledger.restore_mark(key(1), Mark::new(outcome, at(1, 0), at(9, 0), 7));
        ledger.wanted(&key(1), Origin::Repair, config::Recheck::Off, at(9, 0))
    };
    assert_eq!(wanted(Outcome::Published), Want::Recheck);
    assert_eq!(wanted(Outcome::Moved), Want::New);
    for reason in GapReason::ALL {
        assert_eq!(wanted(Outcome::Gap(reason)), Want::GapAgain);
    }
}

/// Its records would be published a second time.
#[test]
fn a_repair_does_not_bring_back_what_is_older_than_the_memory() {
    let mut ledger = Ledger::new();
    for day in [6, 7] {
        ledger.restore_mark(key(day), Mark::new(Outcome::Published, at(day as i32, 5), at(9, 0), 7));
    }
    let wanted = |ledger: &Ledger, n| ledger.wanted(&key(n), Origin::Repair, config::Recheck::Off, at(9, 0));
    assert_eq!([wanted(&ledger, 6), wanted(&ledger, 7)], [Want::Recheck; 2]);
    // The ids of days before 6 go, and a content of day 6 needs those of day 5.
    assert!(ledger.forget(Day(9), 3, None, at(-30, 0)));
    assert_eq!([wanted(&ledger, 6), wanted(&ledger, 7)], [Want::No, Want::Recheck]);
}

/// Rule 21: once, then no more; sampled after a thousand without a find; all again at the first find.
#[test]
fn rechecks_become_a_sample_until_one_finds_something() {
    let mut ledger = Ledger::new();
    let due = |ledger: &Ledger| {
        let is_due =
            |n: &u32| ledger.wanted(&key(*n), Origin::Sweep, config::Recheck::Sampled, at(1, 5)) == Want::Recheck;
        (10_000..12_000).filter(is_due).count()
    };
    (10_000..12_000).for_each(|n| ledger.restore_mark(key(n), published(at(1, 0))));
    for n in 0..1_000 {
        if n % 100 == 0 || n == 999 {
            assert_eq!(due(&ledger), 2_000, "after {n} rechecks");
        }
        ledger.settle(key(n), published(at(1, 0)).rechecked(at(1, 5), Found::default()));
        ledger.commit();
    }
    assert!((10..90).contains(&due(&ledger)), "{}", due(&ledger));
    ledger.settle(key(0), published(at(1, 0)).rechecked(at(1, 5), Found { published: 0, filtered: 3 }));
    assert!(due(&ledger) < 90, "not before the commit");
    ledger.commit();
    assert_eq!(due(&ledger), 2_000);
    assert_eq!(ledger.wanted(&key(0), Origin::Sweep, config::Recheck::All, at(9, 0)), Want::No);
}

#[derive(Clone, Debug)]
enum Step {
    See(u32),
    SeeAndFilter(u32),
    Restore(u32),
    RestoreFiltered(u32),
    Settle(u32, u32),
    Commit,
    Abort,
    NextDay,
    Forget { window: u16, unsettled: Option<i32> },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => (0_u32..40).prop_map(Step::See),
        10 => (0_u32..40).prop_map(Step::SeeAndFilter),
        2 => (0_u32..40).prop_map(Step::RestoreFiltered),
        5 => (0_u32..40).prop_map(Step::Restore),
        5 => (0_u32..10, 0_u32..100).prop_map(|(n, records)| Step::Settle(n, records)),
        4 => Just(Step::Commit),
        2 => Just(Step::Abort),
        2 => Just(Step::NextDay),
        2 => (0_u16..6, prop::option::of(0_i32..20))
            .prop_map(|(window, unsettled)| Step::Forget { window, unsettled }),
    ]
}

proptest! {
    #[test]
    fn it_agrees_with_plain_maps(steps in prop::collection::vec(step(), 0..400)) {
        let mut ledger = Ledger::new();
        // The day of each id, and whether it was filtered.
        let (mut ids, mut marks) = (HashMap::<u32, (i32, bool)>::new(), HashMap::<u32, Mark>::new());
        let (mut open_ids, mut open_marks) = (ids.clone(), marks.clone());
        let (mut today, mut reached) = (0, None);
        for step in steps {
            match step {
                Step::See(n) | Step::SeeAndFilter(n) => {
                    let known = open_ids.get(&n).or_else(|| ids.get(&n)).copied();
                    let expected = match known {
                        None => Seen::New,
                        Some((day, false)) if day < today => Seen::Refresh,
                        Some((day, true)) if day < today => Seen::RefreshFiltered,
                        Some(_) => Seen::Repeat,
                    };
                    prop_assert_eq!(ledger.see(id(n), Day(today)), expected);
                    let filters = expected == Seen::New && matches!(step, Step::SeeAndFilter(_));
                    if filters {
                        ledger.filter(id(n), Day(today));
                    }
                    if expected != Seen::Repeat {
                        open_ids.insert(n, (today, filters || expected == Seen::RefreshFiltered));
                    }
                }
                Step::Restore(n) => {
                    ledger.restore_id(id(n), Day(today));
                    ids.insert(n, (today, false));
                }
                Step::RestoreFiltered(n) => {
                    ledger.restore_filtered(id(n), Day(today));
                    ids.insert(n, (today, true));
                }
                Step::Settle(n, records) => {
                    let mark = Mark::new(Outcome::Published, at(today, 0), at(today, 2), records);
                    ledger.settle(key(n), mark);
                    open_marks.insert(n, mark);
                }
                Step::Commit => {
                    ledger.commit();
                    ids.extend(open_ids.drain());
                    marks.extend(open_marks.drain());
                }
                Step::Abort => {
                    ledger.abort();
                    (open_ids, open_marks) = Default::default();
                }
                Step::NextDay => today += 1,
                Step::Forget { window, unsettled } => {
                    prop_assert!(ledger.forget(Day(today), window, unsettled.map(|day| at(day, 5)), at(-30, 0)));
                    let cutoff = unsettled.map_or(i32::MAX, |oldest| oldest - 1).min(today - i32::from(window));
                    // What is committed late under an earlier day goes with the next day.
                    if reached.replace(cutoff) != Some(cutoff) {
                        ids.retain(|_, (day, _)| *day >= cutoff);
                    }
                }
            }
            prop_assert_eq!(ledger.ids(), ids.len());
        }
        for n in 0..10 {
            prop_assert_eq!(ledger.committed_mark(&key(n)), marks.get(&n));
            prop_assert_eq!(ledger.mark(&key(n)), open_marks.get(&n).or_else(|| marks.get(&n)));
        }
    }
}

fn published(settled: Timestamp) -> Mark {
    Mark::new(Outcome::Published, settled, settled, 7)
}

fn at(day: i32, hour: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_hours(24 * i64::from(day) + hour)
}

fn id(n: u32) -> RecordId {
    RecordId(u128::from(n).to_be_bytes())
}

fn key(n: u32) -> ContentKey {
    ContentKey::of(&n.to_string())
}
