//! The share of its request budget that a tenant uses, learned from what the service puts up with.

use std::time::Duration;

/// A ratio of the configured budget, between [`Pace::MIN`] and 1. Halved when the service refuses, raised by a fixed
/// step a minute while it answers (additive increase, multiplicative decrease): tenants that share a quota with other
/// products so settle at a fair share.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Pace(f64);

impl Pace {
    /// The whole budget.
    pub const FULL: Self = Self(1.0);
    /// Never slower than this, or a tenant would take hours to find out that the trouble is over.
    pub const MIN: Self = Self(1.0 / 32.0);
    /// What a minute of answers gives back.
    const GAIN_PER_MINUTE: f64 = 0.05;
    /// Silence proves nothing: an answer after a longer pause earns no more than this much time.
    const EARNED_MAX: Duration = Duration::from_secs(60);

    pub fn ratio(self) -> f64 {
        self.0
    }

    pub fn is_full(self) -> bool {
        Self::FULL <= self
    }

    /// The pace after a burst of refusals.
    #[must_use]
    pub fn refused(self) -> Self {
        Self((self.0 / 2.0).max(Self::MIN.0))
    }

    /// The pace after a good answer, `since_last` after the last change of pace.
    #[must_use]
    pub fn answered(self, since_last: Duration) -> Self {
        let minutes = since_last.min(Self::EARNED_MAX).as_secs_f64() / 60.0;
        Self((self.0 + Self::GAIN_PER_MINUTE * minutes).min(Self::FULL.0))
    }

    /// The distance between requests at this pace, given the distance at the full one.
    pub fn stretch(self, distance: Duration) -> Duration {
        distance.div_f64(self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_refusal_halves_and_ten_minutes_of_answers_give_it_back() {
        let mut pace = Pace::FULL.refused();
        assert_eq!(pace.ratio(), 0.5);
        for _ in 0..9 * 60 {
            pace = pace.answered(Duration::from_secs(1));
        }
        assert!(!pace.is_full());
        for _ in 0..61 {
            pace = pace.answered(Duration::from_secs(1));
        }
        assert!(pace.is_full());
    }

    #[test]
    fn a_long_silence_earns_no_more_than_a_minute() {
        let slow = Pace::FULL.refused();
        assert_eq!(slow.answered(Duration::from_secs(86_400)), slow.answered(Duration::from_secs(60)));
    }

    #[test]
    fn half_the_pace_is_twice_the_distance() {
        assert_eq!(Pace::FULL.refused().stretch(Duration::from_millis(30)), Duration::from_millis(60));
    }

    proptest! {
        #[test]
        fn the_pace_never_leaves_its_bounds(steps in proptest::collection::vec(proptest::option::of(0_u64..600), 0..200)) {
            let mut pace = Pace::FULL;
            for step in steps {
                pace = match step {
                    Some(seconds) => pace.answered(Duration::from_secs(seconds)),
                    None => pace.refused(),
                };
                prop_assert!(Pace::MIN <= pace && pace <= Pace::FULL);
            }
        }
    }
}
