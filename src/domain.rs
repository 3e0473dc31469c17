//! What the connector decides: plain functions and state machines over bytes and time.
//! No socket, no clock, no `async`, no randomness.

mod content;
mod fate;
mod ledger;
mod window;

pub use self::{
    content::{ContentKey, ContentType, Listed, RecordId, Source, TenantId, UnknownContentType},
    fate::{Fate, GapReason},
    ledger::{Day, Ledger, Mark, Outcome, RecheckState, Seen, Want},
    window::{NotAWindow, Window},
};
