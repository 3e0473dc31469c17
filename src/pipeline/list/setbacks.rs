//! How long a source rests after an error, and when a person must look at it. Plain decisions.

use std::time::Duration;

use crate::{
    api::ApiError,
    domain::{Backoff, Fate},
};

/// How long is waited for what. Others than [`Rests::SERVICE`] are for tests that must not wait minutes.
#[derive(Clone, Copy, Debug)]
pub struct Rests {
    /// After passing trouble.
    pub backoff: Backoff,
    /// The longest pause after an internal error that is taken at its word. "Retry in an hour" (AF50000) is about one
    /// request, and must not cost the whole source an hour: it slows down as far as the backoff goes.
    pub asked_max: Duration,
    /// The longest pause after an error that only a person can mend: the person may have acted. The first is as short as
    /// `token`, because a service in trouble also refuses good tokens now and then.
    pub person: Duration,
    /// The same for tokens. Shorter, because it costs nobody a request: the API room asks the authority again only
    /// after a while, or at once when there is another secret.
    pub token: Duration,
    /// From the start of a subscription to the first listing: it is not known everywhere at once.
    pub subscribed: Duration,
    /// Between two starts of one subscription (docs/api/contract.md 3.1).
    pub start_again: Duration,
}

impl Rests {
    pub const SERVICE: Self = Self {
        backoff: Backoff::SERVICE,
        asked_max: Duration::from_secs(300),
        person: Duration::from_secs(300),
        token: Duration::from_secs(15),
        subscribed: Duration::from_secs(5),
        start_again: Duration::from_secs(900),
    };
}

/// An answer that nobody foresaw is taken for passing trouble so many times in a row.
const UNKNOWN_MAX: u32 = 10;

/// The errors of one source since something went well.
#[derive(Debug, Default)]
pub struct Setbacks {
    failures: u32,
    unknown: u32,
}

/// What an error asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setback {
    /// Nothing is tried before.
    pub rest: Duration,
    /// A person must act.
    pub needs_person: bool,
}

impl Setbacks {
    /// One more error. `draw` is uniform in 0..1.
    pub fn met(&mut self, error: &ApiError, rests: &Rests, draw: f64) -> Setback {
        self.failures = self.failures.saturating_add(1);
        // A listing knows no missing contents, so a 404 for one is as little foreseen as an unknown code.
        let is_unknown = matches!(error, ApiError::Unknown(_)) || matches!(error.fate(), Fate::Missing | Fate::Gone(_));
        self.unknown = if is_unknown { self.unknown.saturating_add(1) } else { 0 };
        let backoff = rests.backoff.delay(self.failures, draw);
        let passing = |rest| Setback { rest, needs_person: false };
        match error.fate() {
            Fate::Operator => {
                let is_token = matches!(error, ApiError::Secret { .. } | ApiError::TokenRefused(_));
                Setback { rest: if is_token { rests.token } else { self.person(rests) }, needs_person: true }
            }
            _ if UNKNOWN_MAX < self.unknown => Setback { rest: rests.person, needs_person: true },
            Fate::Retry { after: Some(after) }
                if rests.asked_max < after && matches!(error, ApiError::Unavailable { .. }) =>
            {
                passing(rests.backoff.ceiling(self.failures))
            }
            // A throttled tenant's limiter waits as well, at the same time.
            Fate::Retry { after } | Fate::Throttled { after } => passing(backoff.max(after.unwrap_or_default())),
            Fate::Done
            | Fate::Missing
            | Fate::Unreadable
            | Fate::Gone(_)
            | Fate::Subscribe
            | Fate::Relist
            | Fate::ClampWindow => passing(backoff),
        }
    }

    /// Doubles with each error in a row.
    fn person(&self, rests: &Rests) -> Duration {
        let doublings = self.failures.saturating_sub(1).min(16);
        rests.token.saturating_mul(1 << doublings).min(rests.person)
    }

    /// One more failure that is no error of the API. Returns how long to rest.
    pub fn failed(&mut self, rests: &Rests, draw: f64) -> Duration {
        self.failures = self.failures.saturating_add(1);
        rests.backoff.delay(self.failures, draw)
    }

    /// Something went well.
    pub fn over(&mut self) {
        *self = Self::default();
    }

    /// Errors in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Answer, Operation, TokenAnswer};

    fn answer() -> Box<Answer> {
        Box::new(Answer {
            operation: Operation::List,
            status: 400,
            code: None,
            message: String::new(),
            request_id: None,
        })
    }

    fn met(setbacks: &mut Setbacks, error: &ApiError) -> (u64, bool) {
        let setback = setbacks.met(error, &Rests::SERVICE, 1.0);
        (setback.rest.as_secs(), setback.needs_person)
    }

    #[test]
    fn passing_trouble_backs_off_and_never_less_than_the_service_asks() {
        let mut setbacks = Setbacks::default();
        let down = |after| ApiError::Unavailable { answer: answer(), after };
        let waits: Vec<_> = (0..3).map(|_| met(&mut setbacks, &down(None))).collect();
        assert_eq!(waits, [(1, false), (2, false), (4, false)]);
        assert_eq!(met(&mut setbacks, &down(Some(Duration::from_secs(77)))), (77, false));
        assert_eq!(
            met(&mut setbacks, &down(Some(Duration::from_secs(3_600)))),
            (16, false),
            "not an hour for one page"
        );
        let throttled = ApiError::Throttled { answer: answer(), after: Some(Duration::from_secs(3_600)) };
        assert_eq!(met(&mut setbacks, &throttled), (3_600, false));
        setbacks.over();
        assert_eq!(met(&mut setbacks, &ApiError::PageExpired(answer())), (1, false));
    }

    #[test]
    fn an_answer_nobody_knows_is_for_a_person_only_when_it_stays() {
        let mut setbacks = Setbacks::default();
        for _ in 0..UNKNOWN_MAX {
            assert!(!met(&mut setbacks, &ApiError::Unknown(answer())).1);
        }
        assert_eq!(met(&mut setbacks, &ApiError::Unknown(answer())), (300, true));
        // Another error in between, and the count begins anew.
        assert!(!met(&mut setbacks, &ApiError::Unavailable { answer: answer(), after: None }).1);
        assert!(!met(&mut setbacks, &ApiError::Unknown(answer())).1);
    }

    #[test]
    fn a_refused_token_is_looked_at_more_often_than_a_missing_permission_that_stays() {
        let token = TokenAnswer {
            status: 401,
            code: "AADSTS7000215".to_owned(),
            error: String::new(),
            description: String::new(),
            trace_id: None,
            correlation_id: None,
        };
        assert_eq!(met(&mut Setbacks::default(), &ApiError::TokenRefused(Box::new(token))), (15, true));
        let mut denied = Setbacks::default();
        let waits: Vec<_> = (0..6).map(|_| met(&mut denied, &ApiError::Denied(answer()))).collect();
        assert_eq!(waits, [15, 30, 60, 120, 240, 300].map(|seconds| (seconds, true)));
    }
}
