//! The settings, checked: what the operator wrote becomes [`Settings`] here and nowhere else.
//! One table of keys drives reading, the environment, the example and the documentation; all faults are told at once.

mod build; // every key read, then the rules between keys
mod environment; // O365FEED_… and AZURE_…
mod example; // the example file and the table
mod fault; // what is wrong, where, and what was meant
mod keys; // the table of all keys
mod kind; // what a key may hold
mod load; // file and environment, merged
mod reader; // what was written, else the default
mod settings; // the result
mod tenant; // clouds, addresses, credentials
mod units; // 90s, 128MiB
mod webhook; // where notifications come in
mod written; // texts with their places
mod yaml; // the file

pub(crate) use self::kind::{is_loopback, receiver};
pub use self::{
    example::{example, table},
    fault::ConfigErrors,
    load::load,
    settings::{
        AuthId, Cloud, Credential, Dedupe, Delivery, Fetch, Headers, Http, Kafka, ListingSettings, Log, LogFormat,
        Quota, Recheck, Redact, Settings, StartFrom, Subscriptions, Tenant, TimestampSource, Tls, Traces, Webhook,
    },
};
