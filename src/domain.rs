//! What the connector decides: plain functions and state machines over bytes and time.
//! No socket, no clock, no `async`, no randomness.

mod backlog; // the listings of one partition that wait
mod backoff; // how long to wait before trying again
mod content; // tenant, source, listed content, identities
mod fate; // what an error means for the work
mod filter; // which records are meant, as an expression
mod ledger; // what of a source is in Kafka already
mod pace; // how much of the budget is used after refusals
mod plan; // which window of a source is listed next
pub mod reconcile; // what the service offers, held against what the topics know
mod record; // cut from a blob, with the facts that routing needs
mod redact; // sensitive text out of a record
mod schedule; // time that is still to be listed
mod split; // a blob into records, while it arrives
mod window; // the span that one listing call asks for

pub use self::{
    backlog::{Added, Attempt, AttemptId, Backlog, Listing, Origin},
    backoff::Backoff,
    content::{ContentKey, ContentType, Listed, RecordId, Source, TenantId, UnknownContentType},
    fate::{Fate, GapReason},
    filter::{Expression, Filter, NotAnExpression, Route, Subject, Way},
    ledger::{Day, Found, Ledger, Mark, Outcome, RecheckState, Seen, Want},
    pace::Pace,
    plan::{Pass, PlanSettings, Planner, Step},
    record::{Batch, RecordRef, creation_time, member_name},
    redact::{REDACTED_MEMBER, redacted},
    split::{NotAnArray, Splitter},
    window::{NotAWindow, Window},
};
