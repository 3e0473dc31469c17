//! What the connector decides: plain functions and state machines over bytes and time.
//! No socket, no clock, no `async`, no randomness.

mod content;
mod fate;
mod plan; // which window of a source is listed next
mod record; // cut from a blob, with the facts that routing needs
mod schedule; // time that is still to be listed
mod split; // a blob into records, while it arrives
mod window;

pub use self::{
    content::{ContentKey, ContentType, Listed, RecordId, Source, TenantId, UnknownContentType},
    fate::{Fate, GapReason},
    plan::{Pass, PlanSettings, Planner, Step},
    record::{Batch, RecordRef},
    split::{NotAnArray, Splitter},
    window::{NotAWindow, Window},
};
