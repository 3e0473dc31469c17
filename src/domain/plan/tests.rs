mod laws; // what holds whatever happens

use super::*;

const NOW: i64 = 1_788_091_200; // a full hour
const MINUTE: i64 = 60;

fn settings() -> PlanSettings {
    let secs = |secs: i64| Duration::from_secs(secs.unsigned_abs());
    PlanSettings {
        window: secs(HOUR),
        poll_interval: secs(MINUTE),
        overlap: secs(3 * HOUR),
        overlap_interval: secs(10 * MINUTE),
        sweep_interval: secs(DAY),
        max_pending: 1000,
    }
}

/// A planner, its clock and everything that it had listed.
struct World {
    planner: Planner,
    /// In milliseconds since 1970.
    clock: i64,
    listed: Vec<(Pass, Span)>,
    /// Listed for the first time, in any pass.
    covered: Unlisted,
}

impl World {
    fn starting(settings: &PlanSettings, floor: Option<i64>) -> Self {
        let planner = Planner::new(settings, at(NOW), floor.map(at), None);
        Self { planner, clock: NOW * 1000, listed: Vec::new(), covered: Unlisted::default() }
    }

    fn now(&self) -> i64 {
        self.clock.div_euclid(1000)
    }

    /// Asks, and checks what holds for every step.
    fn ask(&mut self, pending: usize) -> Option<(Pass, Window)> {
        let now = Timestamp::from_millisecond(self.clock).unwrap();
        match self.planner.next_step(now, pending) {
            Step::List { pass, window } => {
                assert!(window.end() <= now, "{pass:?} asks for the future");
                assert!(SignedDuration::ZERO <= window.start().duration_since(now) + SignedDuration::from_secs(REACH));
                assert!(span(window).unwrap().seconds() <= self.planner.settings.window);
                assert!(pass == Pass::Follow || pending < self.planner.settings.max_pending, "{pass:?} is held");
                Some((pass, window))
            }
            Step::RestUntil(time) => {
                assert!(now < time);
                None
            }
        }
    }

    fn answer(&mut self, pass: Pass, window: Window, found: usize) {
        self.listed.push((pass, span(window).unwrap()));
        self.covered.add(span(window).unwrap());
        self.planner.listed(pass, window, found);
    }

    /// Does all there is to do, without time passing. Gives the passes in order.
    fn drain(&mut self, found: usize) -> Vec<(Pass, Span)> {
        let before = self.listed.len();
        while let Some((pass, window)) = self.ask(0) {
            self.answer(pass, window, found);
            assert!(self.listed.len() - before < 20_000, "the work never ends");
        }
        self.listed[before..].to_vec()
    }

    fn advance(&mut self, seconds: i64) {
        self.clock += seconds * 1000;
    }

    /// Seconds between `start` and `end` that nobody listed.
    fn holes(&self, start: i64, end: i64) -> Unlisted {
        let mut all = Unlisted::of(Span::new(start, end));
        self.covered.spans().iter().for_each(|span| _ = all.remove(*span));
        all
    }
}

#[test]
fn a_start_from_earliest_follows_first_and_then_lists_the_week_oldest_first() {
    let mut world = World::starting(&settings(), None);
    assert!(!world.planner.caught_up());
    let steps = world.drain(1);
    assert_eq!(steps[0], (Pass::Follow, Span { start: NOW - LAP, end: NOW }));
    let mut reached = NOW - REACH;
    for (pass, span) in &steps[1..] {
        assert_eq!((*pass, span.start), (Pass::CatchUp, reached));
        reached = span.end;
    }
    assert_eq!(reached, NOW - LAP);
    assert!(world.planner.caught_up());
    assert_eq!((world.planner.listed_to(), world.planner.unreachable()), (at(NOW), SignedDuration::ZERO));
}

#[test]
fn the_seconds_a_start_takes_are_not_called_lost_but_hours_are() {
    let mut world = World::starting(&settings(), None);
    world.advance(START_GRACE);
    world.ask(0);
    assert_eq!(world.planner.unreachable(), SignedDuration::ZERO);
    world.advance(HOUR);
    world.ask(0);
    assert_eq!(world.planner.unreachable(), SignedDuration::from_secs(HOUR));
    assert_eq!(world.planner.listed_to(), at(world.now() - REACH));
}

#[test]
fn what_is_lost_is_told_once_in_portions_and_at_its_end() {
    let mut world = World::starting(&settings(), None);
    world.advance(START_GRACE + TELL - 1);
    world.ask(0);
    let from = NOW - REACH + START_GRACE;
    assert_eq!(world.planner.take_lost(), None, "it still grows");
    world.advance(1);
    world.ask(0);
    assert_eq!(world.planner.take_lost(), Some((at(from), at(from + TELL))));
    assert_eq!(world.planner.take_lost(), None);
    world.advance(60);
    world.drain(1);
    world.advance(60);
    world.ask(0);
    assert_eq!(world.planner.take_lost(), Some((at(from + TELL), at(from + TELL + 60))), "listed from there on");
    assert_eq!(world.planner.take_lost(), None);
}

#[test]
fn what_passed_while_nobody_listed_is_lost() {
    let listed = NOW - REACH - DAY;
    let mut planner = Planner::new(&settings(), at(NOW), None, Some(at(listed)));
    assert_eq!(planner.accounted_to(), at(listed));
    planner.next_step(at(NOW), 0);
    assert_eq!(planner.take_lost(), Some((at(listed), at(NOW - REACH))));
    assert_eq!((planner.take_lost(), planner.accounted_to()), (None, at(NOW - REACH)));
    // And it goes on without a break, however short after the start.
    planner.next_step(at(NOW + TELL), 0);
    assert_eq!(planner.take_lost(), Some((at(NOW - REACH), at(NOW - REACH + TELL))));
}

#[test]
fn the_minutes_between_the_decision_to_begin_and_the_first_listing_are_not_called_lost() {
    let mut planner = Planner::new(&settings(), at(NOW), None, Some(at(NOW - REACH - START_GRACE)));
    planner.next_step(at(NOW), 0);
    assert_eq!(planner.take_lost(), None);
}

#[test]
fn what_the_owner_before_had_listed_is_listed_again_but_not_lost() {
    let listed = NOW - DAY;
    let mut planner = Planner::new(&settings(), at(NOW), None, Some(at(listed)));
    for (now, lost) in [(NOW + 3 * DAY, None), (listed + REACH + HOUR, Some((at(listed), at(listed + HOUR))))] {
        planner.next_step(at(now), 0);
        assert_eq!(planner.take_lost(), lost);
    }
}

#[test]
fn a_start_past_the_horizon_is_cut_and_counted() {
    let mut world = World::starting(&settings(), Some(NOW - REACH - 1000));
    world.drain(1);
    assert_eq!(world.planner.unreachable(), SignedDuration::from_secs(1000));
    assert!(world.holes(NOW - REACH, NOW).is_empty());
}

#[test]
fn nothing_before_the_floor_is_listed_in_any_pass() {
    for floor in [NOW - DAY - 7, NOW, NOW + 90] {
        let mut world = World::starting(&settings(), Some(floor));
        for _ in 0..3 * 24 {
            world.drain(1);
            world.advance(HOUR);
        }
        world.drain(1);
        assert!(world.listed.iter().all(|(_, span)| floor <= span.start), "{floor}");
        assert!(world.holes(floor, world.now()).is_empty(), "{floor}");
    }
}

#[test]
fn a_floor_in_the_future_lets_the_planner_rest_until_then() {
    let mut world = World::starting(&settings(), Some(NOW + 90));
    assert_eq!(world.planner.next_step(at(NOW), 0), Step::RestUntil(at(NOW + 91)));
    world.advance(91);
    assert_eq!(world.drain(1), [(Pass::Follow, Span { start: NOW + 90, end: NOW + 91 })]);
}

#[test]
fn follow_comes_with_every_poll_interval_and_laps_back() {
    let mut world = World::starting(&settings(), None);
    world.drain(1);
    assert_eq!(world.planner.next_step(at(NOW + 1), 0), Step::RestUntil(at(NOW + MINUTE)));
    world.advance(MINUTE);
    assert_eq!(world.drain(1), [(Pass::Follow, Span { start: NOW - LAP, end: NOW + MINUTE })]);
}

#[test]
fn an_idle_source_is_followed_less_often_until_something_is_found() {
    let mut world = World::starting(&settings(), None);
    world.drain(0);
    world.advance(MINUTE);
    assert_eq!(world.drain(0), []);
    world.advance(IDLE_POLL - MINUTE);
    assert_eq!(world.drain(3)[0].0, Pass::Follow);
    world.advance(MINUTE);
    assert_eq!(world.drain(0)[0].0, Pass::Follow);
    world.advance(DAY);
    world.drain(0);
    world.advance(MINUTE);
    assert_eq!(world.drain(0), []);
}

#[test]
fn while_too_many_contents_wait_only_follow_goes_on() {
    let mut world = World::starting(&settings(), None);
    for _ in 0..100 {
        if let Some((pass, window)) = world.ask(1000) {
            assert_eq!(pass, Pass::Follow);
            world.answer(pass, window, 1);
        }
        world.advance(10);
    }
    assert_eq!(world.listed.len(), 17); // once a minute
    assert_eq!(world.planner.next_step(at(world.now() - 1), 1000), Step::RestUntil(at(world.now() - 1 + HOLD)));
    assert_eq!(world.ask(999).unwrap().0, Pass::CatchUp);
}

#[test]
fn overlap_and_sweep_come_again_in_their_intervals() {
    let mut world = World::starting(&settings(), None);
    world.drain(1);
    for minute in 1..=25 * 60 {
        world.advance(MINUTE);
        let steps = world.drain(1);
        let of = |wanted| steps.iter().filter(|(pass, _)| *pass == wanted).map(|(_, span)| *span).collect::<Vec<_>>();
        let (overlap, sweep) = (of(Pass::Overlap), of(Pass::Sweep));
        assert_eq!(overlap.is_empty(), minute % 10 != 0, "minute {minute}");
        assert_eq!(sweep.is_empty(), minute != 24 * 60, "minute {minute}");
        if let (Some(first), true) = (overlap.first(), sweep.is_empty()) {
            assert_eq!(first.start, world.now() - 3 * HOUR);
        }
        if let Some(first) = sweep.first() {
            assert_eq!(first.start, world.now() - REACH);
        }
    }
}

#[test]
fn a_start_that_does_not_reach_back_the_week_is_followed_by_a_sweep() {
    let mut world = World::starting(&settings(), Some(NOW - 5 * HOUR));
    let steps = world.drain(1);
    let passes: Vec<Pass> = steps.iter().map(|(pass, _)| *pass).collect();
    assert_eq!(passes[..6], [vec![Pass::Follow], vec![Pass::CatchUp; 5]].concat());
    assert_eq!(passes[6..], [Pass::Sweep; 5]);
}

#[test]
fn two_days_asleep_are_caught_up_in_windows_while_follow_stays_fresh() {
    let mut world = World::starting(&settings(), None);
    world.drain(1);
    world.advance(2 * DAY);
    let woken = world.now();
    let first = world.ask(0).unwrap();
    assert_eq!((first.0, span(first.1)), (Pass::Follow, Span::new(woken - HOUR, woken)));
    world.answer(first.0, first.1, 1);
    assert_eq!(world.planner.listed_to(), at(NOW));
    let mut reached = NOW;
    let mut others = 0;
    while !world.planner.caught_up() {
        let (pass, window) = world.ask(0).unwrap();
        let span = span(window).unwrap();
        match pass {
            Pass::CatchUp => {
                assert_eq!(span.start, reached);
                reached = span.end;
            }
            Pass::Follow => others += 1,
            Pass::Overlap | Pass::Sweep => {}
        }
        world.answer(pass, window, 1);
        world.advance(20);
    }
    assert!(10 < others);
    assert!(world.holes(NOW - REACH, woken).is_empty());
}

#[test]
fn asleep_for_longer_than_the_reach_is_counted() {
    let mut world = World::starting(&settings(), None);
    world.drain(1);
    world.advance(REACH + 1000);
    world.drain(1);
    assert_eq!(world.planner.unreachable(), SignedDuration::from_secs(1000));
    assert_eq!(world.planner.take_lost(), Some((at(NOW), at(NOW + 1000))));
    assert_eq!(world.planner.listed_to(), at(world.now()));
}

#[test]
fn a_clock_put_back_by_days_begins_the_planner_again() {
    let mut world = World::starting(&settings(), None);
    world.drain(1);
    world.advance(3 * DAY);
    world.drain(1);
    world.advance(-3 * DAY + MINUTE);
    assert!(matches!(world.ask(0), Some((Pass::Follow, _)))); // `ask` looks for windows in the future
    assert!(!world.planner.caught_up());
    world.drain(1);
    assert_eq!((world.planner.listed_to(), world.planner.unreachable()), (at(NOW + MINUTE), SignedDuration::ZERO));
}

#[test]
fn a_clock_put_back_a_little_stands_still() {
    let mut world = World::starting(&settings(), None);
    world.drain(1);
    assert!(matches!(world.planner.next_step(at(NOW - LAP), 0), Step::RestUntil(time) if time == at(NOW + MINUTE)));
    assert!(world.planner.caught_up());
}

#[test]
fn a_refusal_for_age_brings_the_horizon_nearer_and_no_further_than_its_limit() {
    let mut world = World::starting(&settings(), None);
    let (pass, window) = world.ask(0).unwrap();
    world.planner.clamp(); // follow is not too old, whatever the service says
    world.answer(pass, window, 1);
    let mut oldest = Vec::new();
    for _ in 0..8000 {
        let (pass, window) = world.ask(0).unwrap();
        if window.start() == at(world.planner.horizon) {
            oldest.push(window.start().as_second() - (NOW - REACH));
            world.planner.clamp();
        }
        world.planner.failed(pass, window);
    }
    assert_eq!(oldest[..3], [0, TIGHTEN, 2 * TIGHTEN]);
    assert_eq!(oldest.last(), Some(&TIGHTENED_MAX));
}

#[test]
fn a_window_that_always_fails_stops_nobody() {
    let mut world = World::starting(&settings(), Some(NOW - 2 * DAY));
    let is_cursed = |span: Span| span.start < NOW - 30 * HOUR && NOW - 30 * HOUR < span.end + 1;
    for _ in 0..4 * 24 * 60 {
        for _ in 0..10 {
            match world.ask(0) {
                Some((pass, window)) if is_cursed(span(window).unwrap()) => world.planner.failed(pass, window),
                Some((pass, window)) => world.answer(pass, window, 1),
                None => break,
            }
        }
        world.advance(MINUTE);
    }
    assert_eq!(world.holes(NOW - 2 * DAY, world.now() - MINUTE).seconds(), HOUR);
    assert!(!world.planner.caught_up());
    let swept = world.listed.iter().filter(|(pass, span)| *pass == Pass::Sweep && NOW < span.start).count();
    assert!(24 < swept, "{swept}");
}

#[test]
fn after_a_success_catch_up_returns_to_what_expires_first() {
    let mut world = World::starting(&settings(), Some(NOW - 5 * HOUR));
    let mut starts = Vec::new();
    while let Some((pass, window)) = world.ask(0) {
        let hours = (window.start().as_second() - NOW) / HOUR;
        if pass == Pass::CatchUp {
            starts.push(hours);
        }
        match starts.len() {
            1 | 2 if pass == Pass::CatchUp => world.planner.failed(pass, window),
            _ => world.answer(pass, window, 1),
        }
    }
    assert_eq!(starts, [-5, -4, -3, -5, -4, -2, -1]);
}

#[test]
fn an_overlap_window_that_always_fails_does_not_keep_the_next_overlap_away() {
    let mut world = World::starting(&settings(), None);
    world.drain(1);
    for _ in 0..60 {
        world.advance(MINUTE);
        for _ in 0..10 {
            match world.ask(0) {
                Some((Pass::Overlap, window)) if window.start() < at(NOW - HOUR) => {
                    world.planner.failed(Pass::Overlap, window);
                }
                Some((pass, window)) => world.answer(pass, window, 1),
                None => break,
            }
        }
    }
    let newest = world.listed.iter().filter(|(pass, _)| *pass == Pass::Overlap).map(|(_, span)| span.end).max();
    assert!(newest.is_some_and(|end| NOW + 40 * MINUTE < end), "{newest:?}");
}

#[test]
fn a_follow_that_takes_longer_than_its_interval_lets_every_pass_go_on() {
    let mut world = World::starting(&settings(), None);
    for _ in 0..2500 {
        let (pass, window) = world.ask(0).unwrap();
        world.answer(pass, window, 1);
        world.advance(if pass == Pass::Follow { 2 * MINUTE } else { 1 });
    }
    for wanted in [Pass::Follow, Pass::CatchUp, Pass::Overlap, Pass::Sweep] {
        assert!(world.listed.iter().any(|(pass, _)| *pass == wanted), "{wanted:?}");
    }
    assert!(world.planner.caught_up());
}

#[test]
fn no_settings_and_no_time_make_it_panic_or_spin() {
    let all = |span| PlanSettings {
        window: span,
        poll_interval: span,
        overlap: span,
        overlap_interval: span,
        sweep_interval: span,
        max_pending: 0,
    };
    for settings in [all(Duration::ZERO), all(Duration::MAX), settings()] {
        for start in [Timestamp::MIN, Timestamp::UNIX_EPOCH, Timestamp::MAX] {
            for floor in [None, Some(Timestamp::MIN), Some(Timestamp::MAX)] {
                let mut planner = Planner::new(&settings, start, floor, None);
                for now in [start, Timestamp::MAX, Timestamp::MIN, start, Timestamp::MAX] {
                    if let Step::List { pass, window } = planner.next_step(now, 0) {
                        planner.listed(pass, window, 1);
                    }
                    _ = (planner.listed_to(), planner.unreachable());
                }
            }
        }
    }
}
