//! The settings, checked: what the operator wrote becomes [`Settings`] here and nowhere else.

mod settings;

pub use self::settings::{
    Cloud, Credential, Dedupe, Delivery, Fetch, Headers, Http, Kafka, ListingSettings, Log, LogFormat, Quota, Recheck,
    Settings, StartFrom, Subscriptions, Tenant, TimestampSource,
};
