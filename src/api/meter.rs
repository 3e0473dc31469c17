//! What this room tells about itself, for one tenant. The only place that knows the metrics' names and labels.

use std::time::Duration;

use prometheus::{Counter, CounterVec, Gauge, GaugeVec, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec};

use super::error::{ApiError, Operation};
use crate::{domain::Pace, telemetry::Metrics};

/// Counters and gauges of one tenant. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Meter {
    tenant: String,
    requests: IntCounterVec,
    seconds: HistogramVec,
    errors: IntCounterVec,
    throttled: IntCounter,
    throttle_wait: Counter,
    quota_used: Gauge,
    pace: Gauge,
    token_expires_in: Gauge,
    quota: prometheus::IntGauge,
}

/// The vectors that a [`Meter`] takes its tenant's share of.
struct Vectors<'a> {
    requests: &'a IntCounterVec,
    seconds: &'a HistogramVec,
    errors: &'a IntCounterVec,
    throttled: &'a IntCounterVec,
    throttle_wait: &'a CounterVec,
    quota: &'a IntGaugeVec,
    quota_used: &'a GaugeVec,
    pace: &'a GaugeVec,
    token_expires_in: &'a GaugeVec,
}

impl Meter {
    /// `tenant` is the name from the settings, which is the label.
    pub fn new(metrics: &Metrics, tenant: &str) -> Self {
        Self::of(
            &Vectors {
                requests: &metrics.api_requests_total,
                seconds: &metrics.api_request_seconds,
                errors: &metrics.api_errors_total,
                throttled: &metrics.throttled_total,
                throttle_wait: &metrics.throttle_wait_seconds_total,
                quota: &metrics.quota_requests_per_minute,
                quota_used: &metrics.quota_used_ratio,
                pace: &metrics.pace_ratio,
                token_expires_in: &metrics.token_expires_in_seconds,
            },
            tenant,
        )
    }

    fn of(vectors: &Vectors<'_>, tenant: &str) -> Self {
        Self {
            tenant: tenant.to_owned(),
            requests: vectors.requests.clone(),
            seconds: vectors.seconds.clone(),
            errors: vectors.errors.clone(),
            throttled: vectors.throttled.with_label_values(&[tenant]),
            throttle_wait: vectors.throttle_wait.with_label_values(&[tenant]),
            quota: vectors.quota.with_label_values(&[tenant]),
            quota_used: vectors.quota_used.with_label_values(&[tenant]),
            pace: vectors.pace.with_label_values(&[tenant]),
            token_expires_in: vectors.token_expires_in.with_label_values(&[tenant]),
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
    pub fn throttled(&self, pause: Duration) {
        self.throttled.inc();
        self.throttle_wait.inc_by(pause.as_secs_f64());
    }

    pub fn budget(&self, requests_per_minute: u32) {
        self.quota.set(requests_per_minute.into());
    }

    pub fn quota_used(&self, in_the_last_minute: u32, per_minute: u32) {
        self.quota_used.set(f64::from(in_the_last_minute) / f64::from(per_minute));
    }

    pub fn pace(&self, pace: Pace) {
        self.pace.set(pace.ratio());
    }

    /// How long the token in hand still lasts.
    pub fn token_expires_in(&self, left: Duration) {
        self.token_expires_in.set(left.as_secs_f64());
    }
}

#[cfg(test)]
impl Meter {
    /// A meter that no registry knows.
    pub fn for_tests(tenant: &str) -> Self {
        use prometheus::{HistogramOpts, Opts};

        let opts = || Opts::new("test", "test");
        Self::of(
            &Vectors {
                requests: &IntCounterVec::new(opts(), &["tenant", "operation", "status"]).unwrap(),
                seconds: &HistogramVec::new(HistogramOpts::new("test", "test"), &["operation"]).unwrap(),
                errors: &IntCounterVec::new(opts(), &["tenant", "code"]).unwrap(),
                throttled: &IntCounterVec::new(opts(), &["tenant"]).unwrap(),
                throttle_wait: &CounterVec::new(opts(), &["tenant"]).unwrap(),
                quota: &IntGaugeVec::new(opts(), &["tenant"]).unwrap(),
                quota_used: &GaugeVec::new(opts(), &["tenant"]).unwrap(),
                pace: &GaugeVec::new(opts(), &["tenant"]).unwrap(),
                token_expires_in: &GaugeVec::new(opts(), &["tenant"]).unwrap(),
            },
            tenant,
        )
    }

    pub fn requests(&self, operation: Operation, status: &str) -> u64 {
        self.requests.with_label_values(&[self.tenant.as_str(), operation.as_str(), status]).get()
    }

    pub fn errors(&self, code: &str) -> u64 {
        self.errors.with_label_values(&[self.tenant.as_str(), code]).get()
    }

    pub fn refusals(&self) -> u64 {
        self.throttled.get()
    }
}
