//! Holds what the service offers against what the topics know, and says of each content and record what became of it.
//! The door is [`compare`]. Listing, fetching and reading topics happen elsewhere; in here is only the judgement.

mod findings; // verdicts, added up by hour, and everything missing by name
mod known; // what the topics know of one source
mod opened; // what a look inside a content found

pub use self::{
    findings::{Cell, Counts, Findings, MissingRecord, Verdict, compare},
    known::{Known, Moment, Standing},
    opened::{Inside, Looked, Opened, Stray},
};

#[cfg(test)]
mod tests;
