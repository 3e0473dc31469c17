//! How often each number of seconds came, in a fixed number of counters.

/// Exact below [`Histogram::EXACT`]; above, each doubling is cut into [`Histogram::STEPS`] equal parts.
#[derive(Clone, Debug, Default)]
pub(super) struct Histogram {
    counts: Vec<u64>,
    count: u64,
    max: u64,
}

impl Histogram {
    const EXACT: u64 = 128;
    const STEPS: u64 = Self::EXACT / 2;

    pub(super) fn add(&mut self, seconds: u64) {
        let bucket = Self::bucket(seconds);
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += 1;
        self.count += 1;
        self.max = self.max.max(seconds);
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn max(&self) -> u64 {
        self.max
    }

    /// The smallest value that at least `share` (0..=1) of all are not above; too large by less than 1 in [`Self::STEPS`].
    /// 0 when nothing was added.
    pub(super) fn percentile(&self, share: f64) -> u64 {
        let rank = ((self.count as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if rank <= seen {
                return Self::largest(bucket).min(self.max);
            }
        }
        self.max
    }

    fn bucket(seconds: u64) -> usize {
        if seconds < Self::EXACT {
            return seconds as usize;
        }
        let doublings = u64::from(seconds.ilog2() - Self::EXACT.ilog2());
        let step = (seconds >> (doublings + 1)) - Self::STEPS;
        (Self::EXACT + doublings * Self::STEPS + step) as usize
    }

    /// The largest number of seconds in a bucket.
    fn largest(bucket: usize) -> u64 {
        let bucket = bucket as u64;
        if bucket < Self::EXACT {
            return bucket;
        }
        let (doublings, step) = ((bucket - Self::EXACT) / Self::STEPS, (bucket - Self::EXACT) % Self::STEPS);
        // One below the next step; in u128, because the last one ends where u64 does.
        let next = u128::from(step + 1 + Self::STEPS) << (doublings + 1);
        u64::try_from(next - 1).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn short_times_are_exact() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.percentile(0.5), 0);
        (1..=100).for_each(|seconds| histogram.add(seconds));
        assert_eq!([0.0, 0.5, 0.9, 0.99, 1.0].map(|share| histogram.percentile(share)), [1, 50, 90, 99, 100]);
        assert_eq!((histogram.count(), histogram.max()), (100, 100));
    }

    proptest! {
        #[test]
        fn a_percentile_is_that_of_the_sorted_values_within_a_step(
            mut values in prop::collection::vec(0_u64..10_000_000, 1..200),
            share in 0.0_f64..=1.0,
        ) {
            let mut histogram = Histogram::default();
            values.iter().for_each(|value| histogram.add(*value));
            values.sort_unstable();
            let rank = ((values.len() as f64 * share).ceil() as usize).max(1);
            let (exact, told) = (values[rank - 1], histogram.percentile(share));
            prop_assert!(exact <= told && told - exact <= exact / Histogram::STEPS, "{exact} {told}");
        }

        #[test]
        fn a_value_lies_in_its_bucket(value: u64) {
            let bucket = Histogram::bucket(value);
            prop_assert!(value <= Histogram::largest(bucket));
            prop_assert!(bucket == 0 || Histogram::largest(bucket - 1) < value);
            prop_assert!(bucket < 4_000);
        }
    }
}
