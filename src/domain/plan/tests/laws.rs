//! What holds of the planner whatever happens.

use proptest::prelude::*;

use super::*;

/// What happens to a planner between two questions.
#[derive(Clone, Debug)]
struct Event {
    advance_millis: i64,
    succeeds: bool,
    pending: usize,
    found: usize,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let advance = prop_oneof![
        8 => 0_i64..2_000,
        4 => 0_i64..90_000,
        1 => 0_i64..4_000_000,
        1 => 0_i64..90_000_000,
    ];
    let event = (advance, prop::bool::weighted(0.8), prop_oneof![3 => 0_usize..10, 1 => 0_usize..20], 0_usize..2)
        .prop_map(|(advance_millis, succeeds, pending, found)| Event { advance_millis, succeeds, pending, found });
    prop::collection::vec(event, 1..400)
}

fn any_settings() -> impl Strategy<Value = PlanSettings> {
    let secs = |secs: i64| Duration::from_secs(secs.unsigned_abs());
    (MINUTE..23 * HOUR, 1..600_i64, 0..DAY, 1..HOUR, HOUR..2 * DAY).prop_map(
        move |(window, poll, overlap, overlap_every, sweep_every)| PlanSettings {
            window: secs(window),
            poll_interval: secs(poll),
            overlap: secs(overlap),
            overlap_interval: secs(overlap_every),
            sweep_interval: secs(sweep_every),
            max_pending: 10,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Every second from the start to now is listed after it is over, or was counted as out of reach;
    /// and follow is asked for as soon as it is due, or the turn after.
    #[test]
    fn no_second_is_left_out_and_follow_is_on_time(
        settings in any_settings(),
        floor in prop::option::of(-8 * DAY..HOUR),
        events in events(),
    ) {
        let mut world = World::starting(&settings, floor.map(|floor| NOW + floor));
        let start = floor.map_or(NOW - REACH, |floor| NOW + floor);
        let interval = i64::try_from(settings.poll_interval.as_secs()).unwrap().max(IDLE_POLL);
        let (mut followed_at, mut was_follow) = (start.max(NOW), false);
        for event in events {
            let step = world.ask(event.pending);
            let late = world.now() - followed_at;
            prop_assert!(late <= interval || was_follow || matches!(step, Some((Pass::Follow, _))), "{late} s late");
            was_follow = false;
            if let Some((pass, window)) = step {
                was_follow = pass == Pass::Follow;
                if event.succeeds {
                    world.answer(pass, window, event.found);
                    followed_at = if was_follow { world.now() } else { followed_at };
                } else {
                    world.planner.failed(pass, window);
                }
            }
            let mut unlisted = world.holes(start, world.planner.listed_to().as_second());
            unlisted.remove(Span { start, end: world.planner.horizon });
            prop_assert!(unlisted.is_empty(), "the mark has passed {unlisted:?}");
            world.clock += event.advance_millis;
        }
        world.advance(interval);
        world.drain(1);
        let missing = world.holes(start, world.now().max(start));
        let in_reach = missing.spans().iter().filter(|span| world.planner.horizon < span.end);
        prop_assert_eq!(in_reach.count(), 0);
        let uncounted = missing.seconds() - world.planner.unreachable().as_secs();
        prop_assert!((0..=START_GRACE).contains(&uncounted), "{uncounted} s are neither listed nor counted");
        prop_assert!(world.planner.caught_up());
    }

    /// First listings neither overlap nor leave a gap, whatever fails in between.
    #[test]
    fn catch_up_windows_tile_the_gap(window in MINUTE..23 * HOUR, gap in 1..REACH, fails in prop::collection::vec(any::<bool>(), 1..50)) {
        let settings = PlanSettings { window: Duration::from_secs(window.unsigned_abs()), ..settings() };
        let mut world = World::starting(&settings, Some(NOW - gap));
        let mut fails = fails.into_iter();
        while let Some((pass, window)) = world.ask(0) {
            if fails.next() == Some(true) {
                world.planner.failed(pass, window);
            } else {
                world.answer(pass, window, 0);
            }
        }
        let mut left = Unlisted::of(Span::new(NOW - gap, NOW));
        for (_, span) in world.listed.iter().filter(|(pass, _)| *pass == Pass::CatchUp) {
            prop_assert_eq!(left.remove(*span), span.seconds());
        }
        // Follow may have listed the last seconds first.
        prop_assert!(left.seconds() <= LAP);
        prop_assert!(world.holes(NOW - gap, NOW).is_empty());
    }
}
