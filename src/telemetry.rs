//! What the connector tells about itself: logs, metrics and traces.
//! No secret, token or record body goes into any.

mod logs; // text or JSON, to standard error
mod metrics; // every metric by its name
mod register; // making and registering one
mod traces; // spans to a collector

pub(crate) use self::logs::is_filter;
pub use self::{
    logs::{LogError, init_logs, init_logs_and_traces},
    metrics::Metrics,
    traces::{Traces, TracesError},
};
