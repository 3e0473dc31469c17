//! What an error means for the work.

use std::time::Duration;

/// What the caller must do about a call that did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The service says it is already so (AF20024): count it as done.
    Done,
    /// Passing trouble: again, after the backoff or at least `after`.
    Retry { after: Option<Duration> },
    /// The service asks this tenant, and all its calls, to wait.
    Throttled { after: Option<Duration> },
    /// Not there now (404, AF20050): a few tries over minutes, then a gap.
    Missing,
    /// Came, but is no JSON array: a few tries, then a gap.
    Unreadable,
    /// Will never come: a gap at once.
    Gone(GapReason),
    /// No running subscription (AF20022, AF20023): start it, then list again.
    Subscribe,
    /// The page link went bad (AF20031) or pointed elsewhere: list the window again from its start.
    Relist,
    /// The window is too wide, too old or reversed for the service's clock (AF20030, AF20055).
    ClampWindow,
    /// A person must act. Tried again slowly, because the person may have acted.
    Operator,
}

/// Why something is missing in Kafka. The names are labels of `gaps_total` and words of the gaps topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GapReason {
    /// AF20051, or the content's expiration passed before it could be fetched.
    Expired,
    /// 404 or AF20050, several times over minutes.
    NotFound,
    /// AF20052: the service calls the content id invalid.
    InvalidId,
    /// The blob is no JSON array, several times.
    Unreadable,
    /// A record is larger than the topic takes.
    Oversize,
    /// The listings' committed offset fell behind the log's start.
    ListingsLost,
    /// Nobody listed for so long that the service lists the oldest part no more.
    Unlisted,
}

impl GapReason {
    pub const ALL: [Self; 7] = [
        Self::Expired,
        Self::NotFound,
        Self::InvalidId,
        Self::Unreadable,
        Self::Oversize,
        Self::ListingsLost,
        Self::Unlisted,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::NotFound => "not_found",
            Self::InvalidId => "invalid_id",
            Self::Unreadable => "unreadable",
            Self::Oversize => "oversize",
            Self::ListingsLost => "listings_lost",
            Self::Unlisted => "unlisted",
        }
    }

    /// Whether a later sweep may try the content again (once a day).
    pub fn may_close(self) -> bool {
        matches!(self, Self::NotFound | Self::Unreadable)
    }
}
