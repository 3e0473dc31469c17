//! What the connector tells about itself: logs and metrics.
//! No secret, token or record body goes into either.

mod logs; // text or JSON, to standard error
mod metrics; // every metric by its name
mod register; // making and registering one

pub(crate) use self::logs::is_filter;
pub use self::{
    logs::{LogError, init_logs},
    metrics::Metrics,
};
