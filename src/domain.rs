//! What the connector decides: plain functions and state machines over bytes and time.
//! No socket, no clock, no `async`, no randomness.

mod backlog;
mod content;
mod fate;
mod ledger;
mod window;

pub use self::{
    backlog::{Added, Attempt, AttemptId, Backlog, Listing, Origin},
    content::{ContentKey, ContentType, Listed, RecordId, Source, TenantId, UnknownContentType},
    fate::{Fate, GapReason},
    ledger::{Day, Ledger, Mark, Outcome, RecheckState, Seen, Want},
    window::{NotAWindow, Window},
};
