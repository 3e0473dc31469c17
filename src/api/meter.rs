//! What this room tells about itself, for one tenant. The only place that knows the metrics' names and labels.

use std::time::Duration;

use prometheus::{CounterVec, GaugeVec, HistogramVec, IntCounterVec, IntGaugeVec};

use super::error::{ApiError, Operation};
use crate::{domain::Pace, telemetry::Metrics};

/// Counters and gauges of one tenant. Cheap to clone.
///
/// Its series are looked up at each use and not kept: they are removed when the tenant moves to another process, and a
/// kept one would go on unseen when the tenant comes back.
#[derive(Clone, Debug)]
pub struct Meter {
    tenant: String,
    requests: IntCounterVec,
    seconds: HistogramVec,
    errors: IntCounterVec,
    throttled: IntCounterVec,
    throttle_wait: CounterVec,
    quota: IntGaugeVec,
    quota_used: GaugeVec,
    pace: GaugeVec,
    token_expires_in: GaugeVec,
}

impl Meter {
    /// `tenant` is the name from the settings, which is the label.
    pub fn new(metrics: &Metrics, tenant: &str) -> Self {
        Self {
            tenant: tenant.to_owned(),
            requests: metrics.api_requests_total.clone(),
            seconds: metrics.api_request_seconds.clone(),
            errors: metrics.api_errors_total.clone(),
            throttled: metrics.throttled_total.clone(),
            throttle_wait: metrics.throttle_wait_seconds_total.clone(),
            quota: metrics.quota_requests_per_minute.clone(),
            quota_used: metrics.quota_used_ratio.clone(),
            pace: metrics.pace_ratio.clone(),
            token_expires_in: metrics.token_expires_in_seconds.clone(),
        }
    }

    /// One request was sent and `status` came back (`None`: nothing did) after `took`, bodies not counted.
    pub fn request(&self, operation: Operation, status: Option<u16>, took: Duration) {
        let status = status.map_or_else(|| "none".to_owned(), |status| status.to_string());
        self.requests.with_label_values(&[self.tenant.as_str(), operation.as_str(), &status]).inc();
        self.seconds.with_label_values(&[operation.as_str()]).observe(took.as_secs_f64());
    }

    pub fn error(&self, error: &ApiError) {
        self.errors.with_label_values(&[self.tenant.as_str(), error.code()]).inc();
    }

    /// One request was refused for its rate, and the tenant's pause grew by `pause`.
    pub fn throttled(&self, pause: Duration, pace: Pace) {
        self.throttled.with_label_values(&[&self.tenant]).inc();
        self.throttle_wait.with_label_values(&[&self.tenant]).inc_by(pause.as_secs_f64());
        self.pace.with_label_values(&[&self.tenant]).set(pace.ratio());
    }

    /// A permit was given; with it the last minute saw `used` of `per_minute`.
    pub fn spent(&self, used: u32, per_minute: u32, pace: Pace) {
        self.quota.with_label_values(&[&self.tenant]).set(per_minute.into());
        self.quota_used.with_label_values(&[&self.tenant]).set(f64::from(used) / f64::from(per_minute));
        self.pace.with_label_values(&[&self.tenant]).set(pace.ratio());
    }

    /// How long the token in hand still lasts; zero where there is none.
    pub fn token_expires_in(&self, left: Duration) {
        self.token_expires_in.with_label_values(&[&self.tenant]).set(left.as_secs_f64());
    }
}

#[cfg(test)]
impl Meter {
    /// A meter that no registry knows.
    pub fn for_tests(tenant: &str) -> Self {
        use prometheus::{HistogramOpts, Opts};

        let opts = || Opts::new("test", "test");
        Self {
            tenant: tenant.to_owned(),
            requests: IntCounterVec::new(opts(), &["tenant", "operation", "status"]).unwrap(),
            seconds: HistogramVec::new(HistogramOpts::new("test", "test"), &["operation"]).unwrap(),
            errors: IntCounterVec::new(opts(), &["tenant", "code"]).unwrap(),
            throttled: IntCounterVec::new(opts(), &["tenant"]).unwrap(),
            throttle_wait: CounterVec::new(opts(), &["tenant"]).unwrap(),
            quota: IntGaugeVec::new(opts(), &["tenant"]).unwrap(),
            quota_used: GaugeVec::new(opts(), &["tenant"]).unwrap(),
            pace: GaugeVec::new(opts(), &["tenant"]).unwrap(),
            token_expires_in: GaugeVec::new(opts(), &["tenant"]).unwrap(),
        }
    }

    pub fn requests(&self, operation: Operation, status: &str) -> u64 {
        self.requests.with_label_values(&[self.tenant.as_str(), operation.as_str(), status]).get()
    }

    pub fn errors(&self, code: &str) -> u64 {
        self.errors.with_label_values(&[self.tenant.as_str(), code]).get()
    }

    pub fn pace_ratio(&self) -> f64 {
        self.pace.with_label_values(&[&self.tenant]).get()
    }

    /// `None` while nothing was told of it.
    pub fn token_seconds(&self) -> Option<f64> {
        use prometheus::core::Collector;

        self.token_expires_in.collect()[0].get_metric().first().map(|metric| metric.get_gauge().get_value())
    }

    pub fn refusals(&self) -> u64 {
        self.throttled.with_label_values(&[&self.tenant]).get()
    }
}
