//! How often and how long a command tries again: long enough for passing trouble, and not for longer than a person would wait.

use std::{slice::Iter, time::Duration};

use crate::domain::{Backoff, Fate};

/// The failures of one call in a row.
#[derive(Debug)]
pub(in crate::cli) struct Patience {
    passing: u32,
    /// Passing failures that are waited out.
    most: u32,
    missing: Iter<'static, Duration>,
    unreadable: Iter<'static, Duration>,
}

/// Passing failures in a row after which a command gives up: some five minutes.
const MOST: u32 = 9;

/// The same for one content of many: half a minute.
const MOST_OF_A_LOOK: u32 = 5;

/// A content that was just listed may take a moment to be there.
const MISSING: [Duration; 3] = [Duration::from_secs(2), Duration::from_secs(10), Duration::from_secs(30)];

/// A body that is no JSON array is most often one that was cut off.
const UNREADABLE: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(15)];

/// No wait is longer, whatever the service asks for about one request; pauses of the whole tenant are the limiter's.
const LONGEST: Duration = Duration::from_secs(120);

impl Default for Patience {
    fn default() -> Self {
        Self { passing: 0, most: MOST, missing: MISSING.iter(), unreadable: UNREADABLE.iter() }
    }
}

impl Patience {
    /// For a content that a person named: that it is not there is an answer.
    pub(in crate::cli) fn short() -> Self {
        Self { missing: [].iter(), ..Self::default() }
    }

    /// For contents that are only looked into, each among many: those that cannot be had are told, and must not add up to hours.
    pub(in crate::cli) fn of_a_look() -> Self {
        let (missing, unreadable) = (MISSING[..2].iter(), UNREADABLE[..2].iter());
        Self { passing: 0, most: MOST_OF_A_LOOK, missing, unreadable }
    }

    /// How long to wait before the next try; `None`: it is of no use. `draw` is uniform in 0..1.
    pub(in crate::cli) fn wait(&mut self, fate: Fate, draw: f64) -> Option<Duration> {
        match fate {
            Fate::Retry { .. } | Fate::Throttled { .. } => {
                self.passing += 1;
                let asked = match fate {
                    Fate::Retry { after } => after.unwrap_or_default(),
                    // The limiter holds every request of the tenant back for as long as it takes.
                    _ => Duration::ZERO,
                };
                let wait = Backoff::SERVICE.delay(self.passing, draw).max(asked).min(LONGEST);
                (self.passing <= self.most).then_some(wait)
            }
            Fate::Missing => self.missing.next().copied(),
            Fate::Unreadable => self.unreadable.next().copied(),
            Fate::Done | Fate::Gone(_) | Fate::Subscribe | Fate::Relist | Fate::ClampWindow | Fate::Operator => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::GapReason;

    #[test]
    fn passing_trouble_is_waited_out_and_the_rest_is_not() {
        let tries = |mut patience: Patience, fate| (0..100).take_while(|_| patience.wait(fate, 1.0).is_some()).count();
        let count = |fate| tries(Patience::default(), fate);
        assert_eq!(count(Fate::Retry { after: None }), MOST as usize);
        assert_eq!(count(Fate::Throttled { after: None }), MOST as usize);
        assert_eq!((count(Fate::Missing), count(Fate::Unreadable)), (MISSING.len(), UNREADABLE.len()));
        for fate in [
            Fate::Gone(GapReason::Expired),
            Fate::Subscribe,
            Fate::Relist,
            Fate::ClampWindow,
            Fate::Operator,
            Fate::Done,
        ] {
            assert_eq!(count(fate), 0);
        }
        assert_eq!((tries(Patience::short(), Fate::Missing), tries(Patience::of_a_look(), Fate::Missing)), (0, 2));
        assert_eq!(tries(Patience::of_a_look(), Fate::Retry { after: None }), MOST_OF_A_LOOK as usize);
    }

    #[test]
    fn nobody_waits_for_an_hour_because_one_answer_said_so() {
        let hour = Fate::Retry { after: Some(Duration::from_secs(3_600)) };
        assert_eq!(Patience::default().wait(hour, 0.0), Some(LONGEST));
    }
}
