//! What goes wrong, and how often. Chance comes from the seed and the request, so a run can be repeated.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Deserializer, de::Error};

use super::{
    counts::Operation,
    random::{chance, mix, part},
    source::Content,
};
use crate::domain::{ContentType, GapReason, Source};

/// All faults in force. As JSON, the body of `POST /faults`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// The first rule that applies to a request decides.
    pub rules: Vec<Rule>,
    /// Contents that cannot be had, for a while or for ever.
    pub contents: Vec<ContentFault>,
    /// How the quota is enforced.
    pub throttle: ThrottleShape,
}

impl Faults {
    /// One rule for every operation: `failure` at this rate (0 to 1).
    pub fn at_rate(failure: Failure, rate: f64) -> Self {
        Self { rules: vec![Rule { on: None, failure, when: When::Rate(rate) }], ..Self::default() }
    }

    /// One rule: the first `times` tries of every request of `operation` fail.
    pub fn first(operation: Operation, failure: Failure, times: u32) -> Self {
        Self { rules: vec![Rule { on: Some(operation), failure, when: When::First(times) }], ..Self::default() }
    }
}

/// A failure of requests.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Nothing: every operation.
    #[serde(default)]
    pub on: Option<Operation>,
    pub failure: Failure,
    pub when: When,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    Always,
    /// This share of requests (0 to 1).
    Rate(f64),
    /// The first tries of each request, told apart by path, window and page.
    First(u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// 500 with either text of AF50000; any other status with a proxy's page.
    Status(u16),
    /// 401 as for a token that has lapsed.
    Denied,
    Throttled(ThrottleShape),
    /// The connection goes away in the middle of the body.
    Reset,
    /// Half of the body, then nothing more.
    Stall,
    /// Not even headers.
    Silence,
    /// A byte-order mark before the body.
    ByteOrderMark,
    /// A good answer, after which the connection is closed.
    Close,
    /// A good answer, so many milliseconds late.
    Slow(u32),
    /// 400 with the code `AF` and this number. The login service refuses with `AADSTS` and this number.
    Code(u32),
    /// 400 with the free text of a tenant whose audit log is off. Of the login service: no failure.
    AuditOff,
    /// A good listing whose link to the next page leads to another host.
    StrayLink,
}

/// How a throttled request is answered (docs/api/contract.md 4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ThrottleShape {
    /// 403 AF429, as documented.
    #[default]
    Forbidden,
    /// 429 AF429.
    TooMany,
    /// 429 AF429 with `Retry-After` in seconds.
    TooManySeconds(u32),
    /// 429 AF429 with `Retry-After` as a date so many seconds ahead.
    TooManyDate(u32),
}

/// A failure of every content that holds the arrival `index`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContentFault {
    #[serde(deserialize_with = "content_type")]
    pub content_type: ContentType,
    /// Counted from the first of the history.
    pub index: u64,
    pub damage: Damage,
    /// For how many GETs; nothing: for ever.
    #[serde(default)]
    pub times: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Damage {
    /// 404 without a code.
    NotFound,
    /// 400 AF20050.
    Missing,
    /// 400 AF20051.
    Expired,
    /// 400 AF20052.
    InvalidId,
    /// 401.
    Denied,
    Status(u16),
    /// Half of the records and no closing bracket.
    Truncated,
    /// Ends inside a record.
    CutMidRecord,
    NotJson,
    /// A page, with a page's content type.
    Html,
    /// `[]`
    Empty,
    /// A good array of half the records: the next GET has more.
    Shorter,
    Reset,
    Stall,
}

impl Damage {
    /// What a connector has to report when this never ends; nothing where it cannot know.
    pub(super) fn reason(self) -> Option<GapReason> {
        match self {
            Self::NotFound | Self::Missing => Some(GapReason::NotFound),
            Self::InvalidId => Some(GapReason::InvalidId),
            Self::Truncated | Self::CutMidRecord | Self::NotJson | Self::Html => Some(GapReason::Unreadable),
            Self::Expired | Self::Denied | Self::Status(_) | Self::Reset | Self::Stall => Some(GapReason::Expired),
            Self::Empty | Self::Shorter => None,
        }
    }
}

fn content_type<'de, D: Deserializer<'de>>(reader: D) -> Result<ContentType, D::Error> {
    String::deserialize(reader)?.parse().map_err(D::Error::custom)
}

/// The faults in force and what has been tried under them.
#[derive(Debug)]
pub(super) struct FaultBook {
    seed: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    faults: Faults,
    tries: HashMap<(Operation, u64), u32>,
    damaged: HashMap<(Source, u64), u32>,
}

impl FaultBook {
    pub(super) fn new(seed: u64, faults: Faults) -> Self {
        Self { seed, state: Mutex::new(State { faults, ..State::default() }) }
    }

    pub(super) fn faults(&self) -> Faults {
        self.state().faults.clone()
    }

    /// Puts others in force. Every request counts as not yet tried.
    pub(super) fn replace(&self, faults: Faults) {
        *self.state() = State { faults, ..State::default() };
    }

    /// What this try of the request `key` meets, and how many came before it.
    pub(super) fn failure(&self, operation: Operation, key: &str) -> Option<(Failure, u32)> {
        let mut state = self.state();
        if state.faults.rules.is_empty() {
            return None;
        }
        let key = part(key);
        let tries = state.tries.entry((operation, key)).or_default();
        let before = *tries;
        *tries += 1;
        let applies = |(place, rule): &(usize, &Rule)| {
            rule.on.is_none_or(|on| on == operation)
                && match rule.when {
                    When::Always => true,
                    When::First(times) => before < times,
                    When::Rate(rate) => {
                        let roll = mix(self.seed, &[10, *place as u64, operation as u64, key, u64::from(before)]);
                        chance(roll, rate)
                    }
                }
        };
        state.faults.rules.iter().enumerate().find(applies).map(|(_, rule)| (rule.failure, before))
    }

    /// What this GET of a content meets.
    pub(super) fn damage(&self, source: Source, content: Content) -> Option<Damage> {
        let mut state = self.state();
        let holds = |fault: &&ContentFault| {
            fault.content_type == source.content_type && (content.first..=content.last).contains(&fault.index)
        };
        let fault = state.faults.contents.iter().find(holds)?.clone();
        let gets = state.damaged.entry((source, fault.index)).or_default();
        *gets += 1;
        fault.times.is_none_or(|times| *gets <= times).then_some(fault.damage)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_depends_on_the_seed_and_the_request_and_not_on_the_order() {
        let met = |seed, keys: &[&str]| -> Vec<(String, bool)> {
            let book = FaultBook::new(seed, Faults::at_rate(Failure::Reset, 0.5));
            let mut met: Vec<_> =
                keys.iter().map(|key| (key.to_string(), book.failure(Operation::Blob, key).is_some())).collect();
            met.sort();
            met
        };
        let keys = ["a", "b", "c", "d", "e", "f", "g", "h"];
        let turned: Vec<_> = keys.iter().rev().copied().collect();
        assert_eq!(met(1, &keys), met(1, &turned));
        assert_ne!(met(1, &keys), met(2, &keys));
    }

    #[test]
    fn faults_are_read_from_json_and_a_misspelt_one_is_refused() {
        let text = r#"{"rules":[{"on":"blob","failure":{"status":503},"when":{"rate":0.01}},{"failure":"denied","when":{"first":1}}],
            "contents":[{"content_type":"DLP.All","index":3,"damage":"missing","times":2}],"throttle":{"too_many_seconds":7}}"#;
        let faults: Faults = serde_json::from_str(text).unwrap();
        assert_eq!(faults.rules[0].failure, Failure::Status(503));
        assert_eq!(faults.contents[0].content_type, ContentType::Dlp);
        assert_eq!(faults.throttle, ThrottleShape::TooManySeconds(7));
        assert!(serde_json::from_str::<Faults>(r#"{"rule":[]}"#).is_err());
    }
}
