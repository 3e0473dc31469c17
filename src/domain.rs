//! What the connector decides: plain functions and state machines over bytes and time.
//! No socket, no clock, no `async`, no randomness.

mod backoff; // how long to wait before the next try
mod content;
mod fate;
mod pace; // how much of its budget a tenant uses
mod window;

pub use self::{
    backoff::Backoff,
    content::{ContentKey, ContentType, Listed, RecordId, Source, TenantId, UnknownContentType},
    fate::{Fate, GapReason},
    pace::Pace,
    window::{NotAWindow, Window},
};
