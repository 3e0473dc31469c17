//! What the connector tells about itself: logs and metrics.

mod metrics;

pub use self::metrics::Metrics;
