//! When contents arrive, as arithmetic: arrival `i` has a moment and nothing is stored, so a week of
//! them costs as little as one.

use std::time::Duration;

use jiff::{Timestamp, civil, tz::TimeZone};

use super::{
    clock::{at_ns, ns},
    random::mix,
    scenario::{History, Live},
};

/// The moments of one source's arrivals. Arrival numbers start with the history's first.
#[derive(Debug)]
pub(super) struct Arrivals {
    start_ns: i64,
    history: u64,
    history_gap_ns: i64,
    live_gap_ns: Option<i64>,
    seed: u64,
}

impl Arrivals {
    pub(super) fn new(start: Timestamp, history: History, live: Live, seed: u64) -> Self {
        let gap = |span: Duration, count: f64| (span.as_nanos() as f64 / count).max(4.0) as i64;
        let history_gap_ns = gap(history.span, history.arrivals.max(1) as f64);
        let live_gap_ns =
            (live.arrivals_per_minute > 0.0).then(|| gap(Duration::from_secs(60), live.arrivals_per_minute));
        Self { start_ns: ns(start), history: history.arrivals, history_gap_ns, live_gap_ns, seed }
    }

    /// How many arrivals were there before the simulator started.
    pub(super) fn history(&self) -> u64 {
        self.history
    }

    /// When the last event of arrival `i` became available. Strictly increasing in `i`.
    pub(super) fn at(&self, i: u64) -> i64 {
        self.nominal(i) + self.jitter(i)
    }

    /// When the first event of arrival `i` came: after arrival `i - 1`, before `i`.
    pub(super) fn begin(&self, i: u64) -> i64 {
        self.at(i) - self.gap(i) / 4
    }

    /// How many arrivals have a moment before `ns`.
    pub(super) fn before(&self, ns: i64) -> u64 {
        let live = match self.live_gap_ns {
            Some(gap) if ns > self.start_ns => (ns - self.start_ns) / gap + 1,
            _ => 0,
        };
        let (mut low, mut high) = (0, self.history + live.unsigned_abs());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.at(middle) < ns { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// How many arrivals have become available by `now`, this moment included.
    pub(super) fn until(&self, now_ns: i64) -> u64 {
        self.before(now_ns.saturating_add(1))
    }

    /// The arrival that ended exactly then.
    pub(super) fn ended(&self, ns: i64) -> Option<u64> {
        Some(self.before(ns)).filter(|&i| self.exists(i) && self.at(i) == ns)
    }

    /// The arrival that began exactly then.
    pub(super) fn began(&self, ns: i64) -> Option<u64> {
        Some(self.before(ns)).filter(|&i| self.exists(i) && self.begin(i) == ns)
    }

    fn exists(&self, i: u64) -> bool {
        i < self.history || self.live_gap_ns.is_some()
    }

    fn gap(&self, i: u64) -> i64 {
        if i < self.history { self.history_gap_ns } else { self.live_gap_ns.unwrap_or(self.history_gap_ns) }
    }

    fn nominal(&self, i: u64) -> i64 {
        let steps = if i < self.history {
            -((self.history - i) as i64)
        } else {
            // One step late, so that the first live arrival is clear of the history.
            (i - self.history + 1) as i64
        };
        self.start_ns.saturating_add(self.gap(i).saturating_mul(steps))
    }

    /// Less than a quarter of the gap, so that neither order nor `begin` is disturbed.
    fn jitter(&self, i: u64) -> i64 {
        (mix(self.seed, &[0xA7, i]) % (self.gap(i) / 4).unsigned_abs().max(1)) as i64
    }
}

/// A moment as content ids carry it: `yyyyMMddHHmmss` and nine digits of nanoseconds.
pub(super) fn stamp(ns: i64) -> String {
    at_ns(ns).strftime("%Y%m%d%H%M%S%9f").to_string()
}

/// The moment of a [`stamp`], or nothing when it is none.
pub(super) fn parse_stamp(text: &str) -> Option<i64> {
    if text.len() != 23 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let small = |from: usize, to: usize| text[from..to].parse::<i8>().ok();
    let civil = civil::DateTime::new(
        text[..4].parse().ok()?,
        small(4, 6)?,
        small(6, 8)?,
        small(8, 10)?,
        small(10, 12)?,
        small(12, 14)?,
        text[14..].parse().ok()?,
    );
    Some(ns(civil.ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrivals() -> Arrivals {
        let start = "2026-08-30T12:00:00Z".parse().unwrap();
        let history = History { arrivals: 500, span: Duration::from_secs(3_600), records: 1 };
        Arrivals::new(start, history, Live { arrivals_per_minute: 90.0, records: 1 }, 3)
    }

    #[test]
    fn arrivals_follow_each_other_and_are_found_by_their_moments() {
        let arrivals = arrivals();
        for i in 0..1_000 {
            assert!(arrivals.begin(i) < arrivals.at(i) && arrivals.at(i) < arrivals.begin(i + 1), "{i}");
            assert_eq!(arrivals.before(arrivals.at(i)), i);
            assert_eq!(arrivals.until(arrivals.at(i)), i + 1);
            assert_eq!((arrivals.ended(arrivals.at(i)), arrivals.began(arrivals.begin(i))), (Some(i), Some(i)));
            assert_eq!(arrivals.ended(arrivals.at(i) + 1), None);
        }
        assert!(arrivals.at(499) < arrivals.start_ns && arrivals.start_ns < arrivals.at(500));
    }

    #[test]
    fn a_stamp_is_read_back_to_the_nanosecond() {
        let ns = parse_stamp("20260829074832071144651").unwrap();
        assert_eq!(stamp(ns), "20260829074832071144651");
        for bad in ["", "2026082907483207114465", "20261329074832071144651", "2026082907483207114465x", "٢٠٢٦"] {
            assert_eq!(parse_stamp(bad), None, "{bad}");
        }
    }
}
