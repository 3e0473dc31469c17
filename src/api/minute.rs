//! How much of a minute's budget is used, for the metric.

use tokio::time::Instant;

/// How many requests the last minute saw, by the second.
pub struct MinuteCount {
    epoch: Instant,
    slots: [(u64, u32); 60],
}

impl MinuteCount {
    pub fn since(epoch: Instant) -> Self {
        Self { epoch, slots: [(0, 0); 60] }
    }

    fn second(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.epoch).as_secs()
    }

    pub fn add(&mut self, now: Instant) {
        let second = self.second(now);
        let slot = &mut self.slots[(second % 60) as usize];
        if slot.0 != second {
            *slot = (second, 0);
        }
        slot.1 = slot.1.saturating_add(1);
    }

    pub fn in_the_last_minute(&self, now: Instant) -> u32 {
        let second = self.second(now);
        self.slots.iter().filter(|(at, _)| second < at + 60).map(|(_, count)| count).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_last_minute_is_counted_and_older_ones_are_not() {
        let mut used = MinuteCount::since(Instant::now());
        used.add(Instant::now());
        advance(Duration::from_secs(30)).await;
        used.add(Instant::now());
        assert_eq!(used.in_the_last_minute(Instant::now()), 2);
        advance(Duration::from_secs(31)).await;
        assert_eq!(used.in_the_last_minute(Instant::now()), 1);
    }
}
