//! How long to wait before the next try, decided from a number that the caller drew.

use std::time::Duration;

/// Full jitter: the ceiling doubles with every failure, and the wait is drawn from nothing up to the ceiling.
/// Many callers that failed together so come back apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The first ceiling.
    base: Duration,
    /// No wait is longer.
    max: Duration,
}

impl Backoff {
    /// 1 s doubling to 5 min: what the service's answers are met with (docs/api/contract.md 4).
    pub const SERVICE: Self = Self { base: Duration::from_secs(1), max: Duration::from_secs(300) };

    pub const fn new(base: Duration, max: Duration) -> Self {
        Self { base, max }
    }

    /// The wait after `failures` failures in a row (0 counts as 1).
    ///
    /// `draw` is uniform in 0..1 and comes from the caller; what lies outside is moved to the nearer end.
    pub fn delay(&self, failures: u32, draw: f64) -> Duration {
        let draw = if draw.is_nan() { 1.0 } else { draw.clamp(0.0, 1.0) };
        self.ceiling(failures).mul_f64(draw)
    }

    /// The longest wait that [`Backoff::delay`] can give.
    pub fn ceiling(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        self.base.saturating_mul(1 << doublings).min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_ceiling_doubles_until_it_meets_the_maximum() {
        let seconds: Vec<u64> = (0..12).map(|n| Backoff::SERVICE.ceiling(n).as_secs()).collect();
        assert_eq!(seconds, [1, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(Backoff::SERVICE.ceiling(u32::MAX).as_secs(), 300);
    }

    proptest! {
        #[test]
        fn a_wait_lies_between_nothing_and_the_ceiling(failures: u32, draw: f64) {
            let wait = Backoff::SERVICE.delay(failures, draw);
            prop_assert!(wait <= Backoff::SERVICE.ceiling(failures));
        }

        #[test]
        fn the_draw_spreads_waits_evenly(failures in 1_u32..40, draw in 0.0..1.0) {
            let ceiling = Backoff::SERVICE.ceiling(failures).as_secs_f64();
            let wait = Backoff::SERVICE.delay(failures, draw).as_secs_f64();
            prop_assert!((wait - ceiling * draw).abs() < 1e-6);
        }
    }
}
