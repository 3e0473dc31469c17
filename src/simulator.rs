//! A faithful stand-in for the Office 365 Management Activity API, in one process or as a server of its own.
//! It makes every record from a seed, can say exactly which records a client owes, and fails on demand.
//!
//! Nothing here uses the client's wire types: one misreading must not hide on both sides.

mod answer; // what goes back: envelopes, headers, damaged bodies
mod arrivals; // when contents arrive, as arithmetic
mod assertion; // what stands for a client secret
mod blob; // a content on its way out, in chunks
mod clock; // the machine's time, or a test's
mod control; // the second port: truth, counts, faults, clock
mod counts; // what callers did
mod fault; // what goes wrong, and how often
mod feed; // the operations of the API
mod gzip; // stored blocks
mod notifier; // what is sent to webhooks
mod random; // chance as a hash
mod records; // the bytes of every record
mod samples; // the composed records of docs/api/samples
mod scenario; // what is simulated
mod server; // two ports and what they share
mod source; // listings, content ids, subscriptions
mod template; // a record with holes
#[cfg(test)]
mod tests; // over HTTP, one a line of the contract
mod token; // the login service
mod truth; // what is owed
mod webhook; // where notifications go, and which
mod window; // startTime and endTime as the service reads them

pub use self::{
    clock::Clock,
    control::Control,
    counts::{Counts, Operation},
    fault::{ContentFault, Damage, Failure, Faults, Rule, ThrottleShape, When},
    scenario::{
        BigArrival, Disabled, Duplicates, Federation, History, IdModel, Layout, Live, RepeatedStart, Scenario,
        SourceScenario, TenantScenario, WideWindow,
    },
    server::Simulator,
    truth::{SourceTruth, Truth, TruthRecord, half_hash},
    webhook::Notifier,
};
