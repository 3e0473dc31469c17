//! What a tenant may spend, what was spent, and what holds it back. Plain decisions over the time that is passed in.

use std::{num::NonZeroU32, time::Duration};

use governor::{
    Quota, RateLimiter,
    clock::Clock,
    middleware::NoOpMiddleware,
    state::{InMemoryState, NotKeyed},
};
use tokio::time::Instant;

use super::Permit;
use crate::{
    api::minute::MinuteCount,
    domain::{Backoff, Pace},
};

type Bucket = RateLimiter<NotKeyed, InMemoryState, TokioClock, NoOpMiddleware<Duration>>;

/// How requests are spread so that any 60 s hold at most `per_minute`: `burst + 60 s / distance <= per_minute`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    pub(super) per_minute: u32,
    burst: NonZeroU32,
    pub(super) distance: Duration,
}

impl Budget {
    /// The service counts when requests arrive, we when they leave. This much may they be delayed on the way, each
    /// differently, without a minute of arrivals holding too many.
    const TRANSIT: Duration = Duration::from_secs(1);

    pub(super) fn of(per_minute: u32) -> Self {
        // The settings allow no less than 60; with less than 2 there would be nothing left beside the burst.
        let per_minute = per_minute.max(2);
        let burst = NonZeroU32::new(per_minute / 50).unwrap_or(NonZeroU32::MIN);
        let span = Duration::from_secs(60) + Self::TRANSIT;
        let distance = span / (per_minute - burst.get()) + Duration::from_nanos(1);
        Self { per_minute, burst, distance }
    }

    fn empty_bucket(self) -> Bucket {
        let quota = Quota::with_period(self.distance)
            .expect("a distance of at least a nanosecond is no zero period")
            .allow_burst(self.burst);
        let bucket = RateLimiter::direct_with_clock(quota, TokioClock(Instant::now()));
        bucket.check_n(self.burst).expect("a burst fits its own bucket").expect("a new bucket is full");
        bucket
    }
}

/// governor's own waiting does not follow tokio's clock; asking it with this clock and sleeping on tokio's does.
#[derive(Clone, Debug)]
struct TokioClock(Instant);

impl Clock for TokioClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

/// What was spent and what holds us back. Changed only under the lock.
pub(super) struct Spend {
    pub(super) budget: Budget,
    bucket: Bucket,
    pub(super) pace: Pace,
    paced_at: Instant,
    /// Below the full pace, the earliest time of the next request.
    next_paced: Instant,
    pub(super) paused_until: Instant,
    /// When the first refusal of the latest burst came.
    refused_at: Option<Instant>,
    /// Bursts of refusals without a good answer between them.
    bursts: u32,
    pub(super) used: MinuteCount,
}

impl Spend {
    pub(super) fn new(budget: Budget) -> Self {
        let now = Instant::now();
        Self {
            budget,
            bucket: budget.empty_bucket(),
            pace: Pace::FULL,
            paced_at: now,
            next_paced: now,
            paused_until: now,
            refused_at: None,
            bursts: 0,
            used: MinuteCount::since(now),
        }
    }

    pub(super) fn start_empty(&mut self) {
        self.bucket = self.budget.empty_bucket();
    }

    /// One request at `now`, or when to ask again.
    pub(super) fn take(&mut self, now: Instant) -> Result<(), Instant> {
        let held_until = self.paused_until.max(self.next_paced);
        if now < held_until {
            return Err(held_until);
        }
        if let Err(not_yet) = self.bucket.check() {
            // At least the timer's own step, so that rounding never makes us spin.
            let wait = not_yet.wait_time_from(self.bucket.clock().now()).max(Duration::from_millis(1));
            return Err(now + wait);
        }
        if !self.pace.is_full() {
            self.next_paced = now + self.pace.stretch(self.budget.distance);
        }
        self.used.add(now);
        Ok(())
    }

    pub(super) fn refuse(&mut self, permit: &Permit, now: Instant, after: Option<Duration>, draw: f64) {
        // Whatever was sent before the first refusal came back belongs to the same burst.
        let is_new_burst = self.refused_at.is_none_or(|at| at < permit.taken_at);
        if is_new_burst {
            self.refused_at = Some(now);
            self.bursts = self.bursts.saturating_add(1);
            self.pace = self.pace.refused();
            self.paced_at = now;
        }
        let wait = match (after, is_new_burst) {
            (Some(after), _) => after,
            (None, true) => Backoff::SERVICE.delay(self.bursts, draw),
            (None, false) => Duration::ZERO,
        };
        self.paused_until = self.paused_until.max(now + wait);
    }

    pub(super) fn reward(&mut self, permit: &Permit, now: Instant) {
        // An answer to something sent before the refusal says nothing about the time after it.
        if self.refused_at.is_some_and(|at| permit.taken_at <= at) {
            return;
        }
        self.bursts = 0;
        if !self.pace.is_full() {
            self.pace = self.pace.answered(now - self.paced_at);
        }
        self.paced_at = now;
    }
}
