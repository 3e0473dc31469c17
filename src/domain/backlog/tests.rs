//! The laws of the backlog, against a list of listings with a word beside each.

use std::collections::HashSet;

use bytes::Bytes;
use jiff::SignedDuration;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::domain::{ContentType, TenantId};

#[test]
fn the_offset_is_the_lowest_unsettled_and_counts_the_open_transaction() {
    let mut backlog = Backlog::new(5);
    assert_eq!(backlog.offset_to_commit(), 5);
    for offset in 5..8 {
        assert_eq!(backlog.add(offset, listing(1, offset as u8)), Added::Waits);
    }
    backlog.read_to(10);
    let attempts = start_all(&mut backlog);
    backlog.settled(attempts[1].id);
    assert_eq!(backlog.offset_to_commit(), 5);
    backlog.settled(attempts[0].id);
    assert_eq!(backlog.offset_to_commit(), 7);
    backlog.settled(attempts[2].id);
    assert_eq!(backlog.offset_to_commit(), 10);
    backlog.abort();
    assert_eq!(backlog.offset_to_commit(), 5);
}

#[test]
fn listings_of_one_content_are_one_fetch_that_settles_them_all() {
    let mut backlog = Backlog::new(0);
    assert_eq!(backlog.add(0, listing(1, 1)), Added::Waits);
    assert_eq!(backlog.add(1, listing(2, 1)), Added::Waits, "another source's");
    assert_eq!(backlog.add(2, listing(1, 1)), Added::Joined);
    assert_eq!(backlog.add(2, listing(1, 1)), Added::Known);
    let attempts = start_all(&mut backlog);
    assert_eq!(attempts.len(), 2);
    assert_eq!(backlog.add(3, listing(1, 1)), Added::Joined, "while it is in flight");
    assert!(backlog.settled(attempts[0].id));
    assert_eq!((backlog.offset_to_commit(), backlog.unsettled_len()), (1, 1));
}

/// The copy of a moved listing may be read before the commit that wrote it is known here.
#[test]
fn a_listing_that_comes_after_the_settlement_is_fetched_for_itself() {
    let mut backlog = Backlog::new(0);
    backlog.add(0, listing(1, 1));
    let original = start_all(&mut backlog).remove(0);
    backlog.settled(original.id);
    assert_eq!(backlog.add(4, listing(1, 1)), Added::Waits);
    backlog.commit();
    assert_eq!(backlog.offset_to_commit(), 4);
    assert_eq!(start_all(&mut backlog).len(), 1);
}

#[test]
fn an_abort_joins_what_was_listed_again_and_voids_what_was_in_flight() {
    let mut backlog = Backlog::new(0);
    backlog.add(0, listing(1, 1));
    backlog.add(1, listing(1, 2));
    let attempts = start_all(&mut backlog);
    backlog.settled(attempts[0].id);
    backlog.add(2, listing(1, 1));
    backlog.abort();
    assert!(!backlog.settled(attempts[0].id) && !backlog.settled(attempts[1].id));
    assert!(!backlog.failed(attempts[1].id, at(9)) && !backlog.released(attempts[1].id));
    let again = start_all(&mut backlog);
    assert_eq!(again.len(), 2);
    assert_eq!(backlog.offset_to_commit(), 0);
    backlog.settled(again[0].id);
    assert_eq!((backlog.offset_to_commit(), backlog.unsettled_len()), (1, 1));
}

#[test]
fn sources_take_turns_each_in_the_order_of_its_listings() {
    let mut backlog = Backlog::new(0);
    for (offset, (source, content)) in [(1, 1), (1, 2), (1, 3), (2, 4), (3, 5), (3, 6)].into_iter().enumerate() {
        backlog.add(offset as i64, listing(source, content));
    }
    let order: Vec<_> =
        start_all(&mut backlog).iter().map(|attempt| attempt.listing.content.content_id.clone()).collect();
    assert_eq!(order, ["1", "4", "5", "2", "6", "3"]);
}

#[test]
fn a_source_that_may_not_start_keeps_its_place_and_stops_nobody() {
    let mut backlog = Backlog::new(0);
    backlog.add(0, listing(1, 1));
    backlog.add(1, listing(2, 2));
    let started = backlog.start_next(at(0), |asked| *asked != source(1)).unwrap();
    assert_eq!(started.listing.content.content_id, "2");
    assert_eq!(backlog.start_next(at(0), |asked| *asked != source(1)), None);
    assert_eq!(backlog.start_next(at(0), |_| true).unwrap().listing.content.content_id, "1");
}

#[test]
fn what_failed_waits_for_its_time_and_counts_what_was_released_does_not() {
    let mut backlog = Backlog::new(0);
    backlog.add(0, listing(1, 1));
    let first = backlog.start_next(at(0), |_| true).unwrap();
    assert!(backlog.released(first.id));
    let second = backlog.start_next(at(0), |_| true).unwrap();
    assert_eq!(second.listing.attempts, 0);
    assert!(backlog.failed(second.id, at(30)));
    assert_eq!(backlog.next_wakeup(), Some(at(30)));
    assert_eq!(backlog.start_next(at(29), |_| true), None);
    let third = backlog.start_next(at(30), |_| true).unwrap();
    assert_eq!((third.listing.attempts, backlog.next_wakeup()), (1, None));
    assert!(backlog.is_pending(&source(1), &third.listing.content.key()));
}

#[test]
fn what_is_stale_is_handed_out_though_it_is_delayed() {
    let mut backlog = Backlog::new(0);
    for content in 0..4 {
        backlog.add(i64::from(content), listing(1, content));
    }
    for _ in 0..3 {
        let failing = backlog.start_next(at(0), |_| true).unwrap();
        backlog.failed(failing.id, at(500));
    }
    let stale = backlog.start_stale(2, |listing| listing.attempts > 0);
    let contents: Vec<_> = stale.iter().map(|attempt| attempt.listing.content.content_id.as_str()).collect();
    assert_eq!(contents, ["0", "1"]);
    stale.iter().for_each(|attempt| assert!(backlog.settled(attempt.id)));
    assert_eq!((backlog.offset_to_commit(), backlog.waiting(&source(1))), (2, 2));
}

#[test]
fn the_oldest_are_told_until_their_settlement_is_committed() {
    let mut backlog = Backlog::new(0);
    backlog.add(0, listing(1, 9));
    backlog.add(1, listing(1, 3));
    assert_eq!((backlog.oldest_created(&source(1)), backlog.uncommitted(&source(1)).count()), (Some(at(3)), 2));
    let attempts = start_all(&mut backlog);
    backlog.settled(attempts[1].id);
    assert_eq!((backlog.oldest_created(&source(1)), backlog.uncommitted(&source(1)).count()), (Some(at(3)), 2));
    backlog.commit();
    assert_eq!((backlog.oldest_created(&source(1)), backlog.uncommitted(&source(1)).count()), (Some(at(9)), 1));
    assert_eq!(backlog.uncommitted(&source(2)).count(), 0);
}

#[derive(Clone, Debug)]
enum Step {
    Add { source: u8, content: u8, hole: i64 },
    Start,
    Settle(prop::sample::Index),
    Fail(prop::sample::Index, i64),
    Release(prop::sample::Index),
    Stale(usize),
    Commit,
    Abort,
    Pass(i64),
}

fn step() -> impl Strategy<Value = Step> {
    use prop::sample::Index;
    prop_oneof![
        8 => (0_u8..3, 0_u8..6, 0_i64..3).prop_map(|(source, content, hole)| Step::Add { source, content, hole }),
        8 => Just(Step::Start),
        5 => any::<Index>().prop_map(Step::Settle),
        3 => (any::<Index>(), 0_i64..50).prop_map(|(which, delay)| Step::Fail(which, delay)),
        1 => any::<Index>().prop_map(Step::Release),
        1 => (0_usize..3).prop_map(Step::Stale),
        2 => Just(Step::Commit),
        2 => Just(Step::Abort),
        2 => (0_i64..40).prop_map(Step::Pass),
    ]
}

#[derive(Clone, Copy, PartialEq)]
enum Word {
    Unsettled,
    Open,
    Settled,
}

/// Every listing ever added, and the attempts that are out.
#[derive(Default)]
struct Model {
    listings: Vec<(i64, (Source, ContentKey), Word)>,
    out: Vec<Attempt>,
    next: i64,
}

impl Model {
    fn contents(&self) -> HashSet<(Source, ContentKey)> {
        self.listings.iter().filter(|(_, _, word)| *word == Word::Unsettled).map(|(_, content, _)| *content).collect()
    }

    fn turn(&mut self, from: Word, to: Word) {
        self.listings.iter_mut().filter(|(_, _, word)| *word == from).for_each(|(_, _, word)| *word = to);
    }

    fn settle(&mut self, content: (Source, ContentKey)) {
        let of_it =
            |(_, other, word): &&mut (i64, (Source, ContentKey), Word)| *other == content && *word == Word::Unsettled;
        self.listings.iter_mut().filter(of_it).for_each(|(_, _, word)| *word = Word::Open);
    }

    fn offset(&self) -> i64 {
        let unsettled = self.listings.iter().filter(|(_, _, word)| *word == Word::Unsettled);
        unsettled.map(|(offset, _, _)| *offset).min().unwrap_or(self.next)
    }
}

proptest! {
    #[test]
    fn nothing_is_lost_nothing_is_passed_and_a_content_is_out_once(steps in prop::collection::vec(step(), 0..300)) {
        let (mut backlog, mut model, mut now) = (Backlog::new(0), Model::default(), 0);
        let mut void: Vec<AttemptId> = Vec::new();
        for step in steps {
            match step {
                Step::Add { source: of, content, hole } => {
                    let (offset, listing) = (model.next + hole, listing(of, content));
                    let content = (source(of), listing.content.key());
                    let joins = model.contents().contains(&content);
                    let expected = if joins { Added::Joined } else { Added::Waits };
                    prop_assert_eq!(backlog.add(offset, listing), expected);
                    model.listings.push((offset, content, Word::Unsettled));
                    model.next = offset + 1;
                }
                Step::Start => model.out.extend(backlog.start_next(at(now), |_| true)),
                Step::Stale(max) => model.out.extend(backlog.start_stale(max, |_| true)),
                Step::Settle(which) if !model.out.is_empty() => {
                    let attempt = model.out.swap_remove(which.index(model.out.len()));
                    prop_assert!(backlog.settled(attempt.id));
                    model.settle(content_of(&attempt));
                    void.push(attempt.id);
                }
                Step::Fail(which, delay) if !model.out.is_empty() => {
                    let attempt = model.out.swap_remove(which.index(model.out.len()));
                    prop_assert!(backlog.failed(attempt.id, at(now + delay)));
                    void.push(attempt.id);
                }
                Step::Release(which) if !model.out.is_empty() => {
                    let attempt = model.out.swap_remove(which.index(model.out.len()));
                    prop_assert!(backlog.released(attempt.id));
                    void.push(attempt.id);
                }
                Step::Settle(_) | Step::Fail(..) | Step::Release(_) => {}
                Step::Commit => {
                    backlog.commit();
                    model.turn(Word::Open, Word::Settled);
                }
                Step::Abort => {
                    backlog.abort();
                    model.turn(Word::Open, Word::Unsettled);
                    void.extend(model.out.drain(..).map(|attempt| attempt.id));
                }
                Step::Pass(seconds) => now += seconds,
            }
            prop_assert_eq!(backlog.offset_to_commit(), model.offset());
            let out: HashSet<_> = model.out.iter().map(content_of).collect();
            prop_assert_eq!(out.len(), model.out.len(), "a content is out twice");
            let waiting: usize = (0..3).map(|of| backlog.waiting(&source(of))).sum();
            prop_assert_eq!(waiting, model.contents().len());
            prop_assert!(backlog.jobs().all(|(_, _, job)| job.offsets.is_sorted()));
            prop_assert!(void.iter().all(|attempt| !backlog.settled(*attempt)));
        }
        backlog.abort();
        model.turn(Word::Open, Word::Unsettled);
        let left: HashSet<_> = std::iter::from_fn(|| backlog.start_next(at(now + 1_000), |_| true))
            .map(|attempt| (attempt.id, content_of(&attempt)))
            .collect();
        prop_assert_eq!(left.iter().map(|(_, content)| *content).collect::<HashSet<_>>(), model.contents());
        left.iter().for_each(|(attempt, _)| _ = backlog.settled(*attempt));
        backlog.commit();
        prop_assert_eq!((backlog.offset_to_commit(), backlog.unsettled_len()), (model.next, 0));
    }
}

fn start_all(backlog: &mut Backlog) -> Vec<Attempt> {
    std::iter::from_fn(|| backlog.start_next(at(0), |_| true)).collect()
}

fn content_of(attempt: &Attempt) -> (Source, ContentKey) {
    (attempt.listing.content.source, attempt.listing.content.key())
}

fn source(n: u8) -> Source {
    Source { tenant: TenantId(Uuid::from_u128(n.into())), content_type: ContentType::General }
}

/// Content `n` was created `n` seconds after the epoch and expires 100 seconds later.
fn listing(of: u8, n: u8) -> Listing {
    let content = Listed {
        source: source(of),
        content_id: n.to_string(),
        content_uri: String::new(),
        created: at(n.into()),
        expires: at(i64::from(n) + 100),
        raw: Bytes::new(),
    };
    Listing { content: content.into(), origin: Origin::Follow, first_listed: at(0), appended: at(0), attempts: 0 }
}

fn at(second: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(second)
}
