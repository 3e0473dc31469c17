//! The simulator's time: the machine's, or one that a test moves by hand.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use jiff::{SignedDuration, Timestamp};

/// Where a simulator's time comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The machine's clock.
    Real,
    /// Stands still at this moment until it is advanced.
    Virtual(Timestamp),
}

/// A running [`Clock`]; clones share their advance.
#[derive(Clone, Debug)]
pub(super) struct Running {
    clock: Clock,
    advanced_ns: Arc<AtomicI64>,
}

impl Running {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, advanced_ns: Arc::default() }
    }

    pub(super) fn now(&self) -> Timestamp {
        let base = match self.clock {
            Clock::Real => Timestamp::now(),
            Clock::Virtual(at) => at,
        };
        // Saturates at the end of time, which no scenario reaches: `advance` is the only way forward.
        let ahead = SignedDuration::from_nanos(self.advanced_ns.load(Ordering::Relaxed));
        base.checked_add(ahead).unwrap_or(Timestamp::MAX)
    }

    /// Moves the clock by `span`, forwards or (for a test of clock faults) backwards.
    pub(super) fn advance(&self, span: SignedDuration) {
        let span_ns = i64::try_from(span.as_nanos()).unwrap_or(i64::MAX);
        let moved = |ahead: i64| Some(ahead.saturating_add(span_ns));
        // The closure always gives a value, so the update cannot be refused.
        let _ = self.advanced_ns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, moved);
    }
}

/// Nanoseconds since 1970, as the arithmetic of arrivals wants them. Good until the year 2262.
pub(super) fn ns(at: Timestamp) -> i64 {
    i64::try_from(at.as_nanosecond()).unwrap_or(if at < Timestamp::UNIX_EPOCH { i64::MIN } else { i64::MAX })
}

/// The moment that [`ns`] stands for.
pub(super) fn at_ns(ns: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(ns)).expect("jiff's range is wider than an i64 of nanoseconds")
}

/// As the API writes times: milliseconds and `Z`.
pub(super) fn wire_ms(ns: i64) -> String {
    at_ns(ns).strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_virtual_clock_moves_only_when_advanced() {
        let start: Timestamp = "2026-08-30T12:00:00Z".parse().unwrap();
        let clock = Running::new(Clock::Virtual(start));
        let same = clock.clone();
        assert_eq!(clock.now(), start);
        clock.advance(SignedDuration::from_hours(26));
        assert_eq!(same.now(), start + SignedDuration::from_hours(26));
        assert_eq!(wire_ms(ns(start) + 7_999_999), "2026-08-30T12:00:00.007Z");
    }
}
