//! Waiting for a condition. How long it took is never asserted; only that it came to be.

use std::{
    thread,
    time::{Duration, Instant},
};

/// How often a condition is looked at.
const PERIOD: Duration = Duration::from_millis(20);

/// Whether `condition` came true before `within` had passed.
pub fn comes_true(within: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + within;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(PERIOD);
    }
}

/// Returns when `condition` is true; panics with `what` when it is not so `within` the time.
pub fn until(what: &str, within: Duration, condition: impl FnMut() -> bool) {
    assert!(comes_true(within, condition), "waited {within:?} in vain until {what}");
}
