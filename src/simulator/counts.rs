//! What callers did: requests by operation and status, how many at once, how many in any sliding minute.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde::Deserialize;
use uuid::Uuid;

use crate::domain::TenantId;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    Token,
    Start,
    Stop,
    Subscriptions,
    Content,
    Notifications,
    Blob,
    /// No path of this API.
    Unknown,
}

impl Operation {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Subscriptions => "subscriptions",
            Self::Content => "content",
            Self::Notifications => "notifications",
            Self::Blob => "blob",
            Self::Unknown => "unknown",
        }
    }

    /// As AF429 names it.
    pub(super) fn method(self) -> &'static str {
        match self {
            Self::Token | Self::Unknown => "None",
            Self::Start => "StartSubscription",
            Self::Stop => "StopSubscription",
            Self::Subscriptions => "ListSubscriptions",
            Self::Content => "GetContents",
            Self::Notifications => "ListNotifications",
            Self::Blob => "GetBlob",
        }
    }
}

/// Everything counted since the start.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// By operation and status as sent; what was cut off later counts as sent.
    pub requests: BTreeMap<(Operation, u16), u64>,
    /// Tokens given out.
    pub tokens: u64,
    /// Start and stop calls that arrived, whatever the answer.
    pub starts: u64,
    pub stops: u64,
    /// The most requests that were open at once, bodies included.
    pub concurrent_max: usize,
    /// The most requests in any sliding minute, by publisher (nil when absent) and tenant. Exact.
    pub sliding_minute_max: BTreeMap<(Uuid, TenantId), usize>,
    pub missing_publisher: u64,
    /// Requests after a throttle answer and before the `Retry-After` it named had passed.
    pub impatient: u64,
    /// GETs by content id.
    pub blob_gets: BTreeMap<String, u64>,
    /// Requests that asked a webhook whether it is one, by the status of the answer (0: none came).
    pub validations: BTreeMap<u16, u64>,
    /// Requests with notifications, by the status of the answer (0: none came).
    pub notifications: BTreeMap<u16, u64>,
    /// Ids of the contents whose notification was taken.
    pub announced: BTreeSet<String>,
    /// Webhooks disabled for their failures.
    pub webhooks_disabled: u64,
    /// Tokens sent to a path that is none of this API.
    pub tokens_on_unknown_paths: u64,
}

impl Counts {
    /// Requests of `operation`, whatever the answer.
    pub fn of(&self, operation: Operation) -> u64 {
        self.requests.iter().filter(|((of, _), _)| *of == operation).map(|(_, count)| count).sum()
    }
}

/// A throttle answer takes its time to reach the caller; what was sent meanwhile is not held against it.
const ON_THE_WAY: Duration = Duration::from_millis(200);
const MINUTE: Duration = Duration::from_secs(60);

/// The counting itself. Clones count together.
#[derive(Clone, Debug, Default)]
pub(super) struct Counter(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    counts: Counts,
    open: usize,
    gates: BTreeMap<(Uuid, TenantId), Gate>,
}

/// The last minute of one publisher in one tenant.
#[derive(Debug, Default)]
struct Gate {
    /// When, and whether it was let through.
    requests: VecDeque<(Instant, bool)>,
    let_through: usize,
    /// When a throttle answer was given, and until when it bars.
    barred: Option<(Instant, Instant)>,
}

/// An open request; counted as such until dropped.
#[derive(Debug)]
pub(super) struct Open(Counter);

impl Counter {
    pub(super) fn counts(&self) -> Counts {
        self.state().counts.clone()
    }

    pub(super) fn note(&self, note: impl FnOnce(&mut Counts)) {
        note(&mut self.state().counts);
    }

    pub(super) fn open(&self) -> Open {
        let mut state = self.state();
        state.open += 1;
        state.counts.concurrent_max = state.counts.concurrent_max.max(state.open);
        Open(self.clone())
    }

    /// Counts a request against its sliding minute; false when more than `quota` would be let through.
    pub(super) fn admit(&self, publisher: Uuid, tenant: TenantId, quota: u32, now: Instant) -> bool {
        let mut state = self.state();
        let State { counts, gates, .. } = &mut *state;
        let gate = gates.entry((publisher, tenant)).or_default();
        while let Some(&(at, let_through)) = gate.requests.front().filter(|(at, _)| now.duration_since(*at) >= MINUTE) {
            debug_assert!(at <= now);
            gate.let_through -= usize::from(let_through);
            gate.requests.pop_front();
        }
        let is_admitted = gate.let_through < quota as usize;
        gate.requests.push_back((now, is_admitted));
        gate.let_through += usize::from(is_admitted);
        let max = counts.sliding_minute_max.entry((publisher, tenant)).or_default();
        *max = gate.requests.len().max(*max);
        if gate.barred.is_some_and(|(answered, until)| answered + ON_THE_WAY < now && now < until) {
            counts.impatient += 1;
        }
        is_admitted
    }

    /// Remembers that the caller was told to wait.
    pub(super) fn barred(&self, publisher: Uuid, tenant: TenantId, wait: Duration, now: Instant) {
        self.state().gates.entry((publisher, tenant)).or_default().barred = Some((now, now + wait));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.state().open -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s51_a_minute_slides_over_the_requests_and_is_kept_per_publisher() {
        let (counter, tenant, start) = (Counter::default(), TenantId(Uuid::nil()), Instant::now());
        let admit = |publisher: u128, seconds| {
            counter.admit(Uuid::from_u128(publisher), tenant, 3, start + Duration::from_secs(seconds))
        };
        assert!([0, 20, 40].into_iter().all(|at| admit(1, at)));
        assert!(!admit(1, 59), "the fourth within a minute");
        assert!(admit(2, 59), "another publisher");
        assert!(admit(1, 60), "the first is a minute old");
        assert_eq!(counter.counts().sliding_minute_max[&(Uuid::from_u128(1), tenant)], 4);
    }

    #[test]
    fn s51_who_comes_back_before_the_time_it_was_told_is_counted() {
        let (counter, tenant, start) = (Counter::default(), TenantId(Uuid::nil()), Instant::now());
        counter.barred(Uuid::nil(), tenant, Duration::from_secs(10), start);
        for millis in [100, 5_000, 10_000] {
            counter.admit(Uuid::nil(), tenant, 9, start + Duration::from_millis(millis));
        }
        assert_eq!(counter.counts().impatient, 1);
    }
}
