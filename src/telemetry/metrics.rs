//! Every metric, by its name. Base units, and labels from closed sets: a tenant, a content type, never an id of a content.

use std::collections::HashMap;

use prometheus::{
    CounterVec, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
    TextEncoder,
    core::{Collector, MetricVec, MetricVecBuilder},
};

use super::register::Register;
use crate::domain::{ContentType, GapReason};

/// All metrics of a process. Cheap to clone.
///
/// The label `tenant` is always [`Tenant::name`](crate::config::Tenant::name); `content_type` is [`ContentType::as_str`].
#[derive(Clone, Debug)]
pub struct Metrics {
    pub registry: Registry,
    // ingestion; labels tenant, content_type
    pub freshness_seconds: GaugeVec,
    pub watermark_age_seconds: GaugeVec,
    pub delivered_age_seconds: GaugeVec,
    pub backlog_contents: IntGaugeVec,
    pub oldest_backlog_expires_in_seconds: GaugeVec,
    /// label content_type
    pub event_delay_seconds: HistogramVec,
    // work; labels tenant, content_type (and outcome: published | moved | gap; reason of the gap)
    pub listings_total: IntCounterVec,
    pub contents_total: IntCounterVec,
    pub records_published_total: IntCounterVec,
    pub record_bytes_published_total: IntCounterVec,
    pub records_duplicate_total: IntCounterVec,
    pub records_filtered_total: IntCounterVec,
    pub records_without_id_total: IntCounterVec,
    pub gaps_total: IntCounterVec,
    // service; labels tenant, and operation, status
    pub api_requests_total: IntCounterVec,
    /// label operation
    pub api_request_seconds: HistogramVec,
    /// label code: see `ApiError::code`
    pub api_errors_total: IntCounterVec,
    pub throttled_total: IntCounterVec,
    pub throttle_wait_seconds_total: CounterVec,
    pub quota_requests_per_minute: IntGaugeVec,
    pub quota_used_ratio: GaugeVec,
    pub pace_ratio: GaugeVec,
    pub token_expires_in_seconds: GaugeVec,
    // webhook; label outcome, see WEBHOOK_OUTCOMES and NOTIFICATION_OUTCOMES
    pub webhook_requests_total: IntCounterVec,
    pub webhook_notifications_total: IntCounterVec,
    /// labels tenant, content_type
    pub webhook_missed_total: IntCounterVec,
    /// no label; there only where the receiver ends TLS itself
    pub webhook_certificate_expires_in_seconds: GaugeVec,
    // kafka
    /// label outcome: committed | aborted | unknown
    pub transactions_total: IntCounterVec,
    pub transaction_commit_seconds: Histogram,
    pub producer_queue_bytes: IntGauge,
    pub producer_recreated_total: IntCounter,
    pub ledger_ids: IntGaugeVec,
    pub ledger_bytes: IntGaugeVec,
    pub ledger_restore_seconds: Histogram,
    pub partitions_owned: IntGauge,
    pub partitions_restored: IntGauge,
    pub rebalances_total: IntCounter,
}

/// Labels of one source.
const SOURCE: &[&str] = &["tenant", "content_type"];
/// From a minute to the week that a content can be fetched.
const EVENT_DELAYS: &[f64] =
    &[60., 120., 300., 600., 1_200., 1_800., 3_600., 7_200., 14_400., 28_800., 86_400., 172_800., 345_600., 604_800.];
const REQUESTS: &[f64] = &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1., 2.5, 5., 10., 30., 60.];
const COMMITS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1., 2.5, 5., 10., 30.];
const RESTORES: &[f64] = &[0.1, 0.25, 0.5, 1., 2.5, 5., 10., 30., 60., 120., 300., 600.];

impl Metrics {
    /// What `outcome` of `contents_total` may be.
    pub const CONTENT_OUTCOMES: [&str; 3] = ["published", "moved", "gap"];
    /// What `outcome` of `transactions_total` may be.
    pub const TRANSACTION_OUTCOMES: [&str; 3] = ["committed", "aborted", "unknown"];

    /// What `outcome` of `webhook_requests_total` may be.
    pub const WEBHOOK_OUTCOMES: [&str; 9] = [
        "validated",
        "taken",
        "not_now",
        "unauthorised",
        "unreadable",
        "too_large",
        "too_many",
        "too_slow",
        "not_a_post",
    ];
    /// What `outcome` of `webhook_notifications_total` may be.
    pub const NOTIFICATION_OUTCOMES: [&str; 5] = ["taken", "not_now", "foreign", "elsewhere", "unreadable"];

    /// A registry of its own with every metric in it, the process metrics (`process_…`, on Linux) and
    /// `o365feed_build_info{version}`. Counters without a tenant start at 0; for the others see [`Self::init_source`].
    #[must_use]
    pub fn new() -> Self {
        let r = Register::new("o365feed");
        r.process();
        r.build_info(env!("CARGO_PKG_VERSION"));
        let metrics = Self {
            freshness_seconds: r.gauges(
                "freshness_seconds",
                "Now minus contentCreated of the newest content published, in seconds.",
                SOURCE,
            ),
            watermark_age_seconds: r.gauges(
                "watermark_age_seconds",
                "Age in seconds of the moment before which everything has been listed.",
                SOURCE,
            ),
            delivered_age_seconds: r.gauges(
                "delivered_age_seconds",
                "Age in seconds of the moment before which everything is published, or named as a gap.",
                SOURCE,
            ),
            backlog_contents: r.int_gauges("backlog_contents", "Contents listed and not yet settled.", SOURCE),
            oldest_backlog_expires_in_seconds: r.gauges(
                "oldest_backlog_expires_in_seconds",
                "Time left until the first waiting content can no longer be fetched, in seconds.",
                SOURCE,
            ),
            event_delay_seconds: r.histograms(
                "event_delay_seconds",
                "CreationTime of a record until it was published, in seconds.",
                &["content_type"],
                EVENT_DELAYS,
            ),
            listings_total: r.counters("listings_total", "Contents appended to the listings topic.", SOURCE),
            contents_total: r.counters(
                "contents_total",
                "Contents settled, by outcome: published, moved to the end of the listings, or a gap.",
                &["tenant", "content_type", "outcome"],
            ),
            records_published_total: r.counters("records_published_total", "Records committed to Kafka.", SOURCE),
            record_bytes_published_total: r.counters(
                "record_bytes_published_total",
                "Bytes of the records committed to Kafka, before compression.",
                SOURCE,
            ),
            records_duplicate_total: r.counters(
                "records_duplicate_total",
                "Records that came again and were not published again.",
                SOURCE,
            ),
            records_filtered_total: r.counters(
                "records_filtered_total",
                "Records that filter.drop kept from being published.",
                SOURCE,
            ),
            records_without_id_total: r.counters(
                "records_without_id_total",
                "Records without a usable Id, known by a hash of their bytes instead.",
                SOURCE,
            ),
            gaps_total: r.counters(
                "gaps_total",
                "Contents and records that could not be had, by reason; the gaps topic names each.",
                &["tenant", "content_type", "reason"],
            ),
            api_requests_total: r.counters(
                "api_requests_total",
                "Requests to Microsoft, by operation and HTTP status (none: no answer came).",
                &["tenant", "operation", "status"],
            ),
            api_request_seconds: r.histograms(
                "api_request_seconds",
                "Request sent until the headers of the answer arrived, in seconds; the body is not in it.",
                &["operation"],
                REQUESTS,
            ),
            api_errors_total: r.counters(
                "api_errors_total",
                "Calls that ended badly, by code (AFnnnnn, AADSTSnnn or one of a few words).",
                &["tenant", "code"],
            ),
            throttled_total: r.counters("throttled_total", "Answers that asked to slow down.", &["tenant"]),
            throttle_wait_seconds_total: r.seconds_counters(
                "throttle_wait_seconds_total",
                "Pauses after answers that asked to slow down, in seconds; waiting for our own budget is not in it.",
                &["tenant"],
            ),
            quota_requests_per_minute: r.int_gauges(
                "quota_requests_per_minute",
                "Requests a minute that the tenant may make.",
                &["tenant"],
            ),
            quota_used_ratio: r.gauges(
                "quota_used_ratio",
                "Share of the quota used in the last minute, 0 to 1.",
                &["tenant"],
            ),
            pace_ratio: r.gauges(
                "pace_ratio",
                "Share of the quota that the pace allows now, 0 to 1; halved by every throttling.",
                &["tenant"],
            ),
            token_expires_in_seconds: r.gauges(
                "token_expires_in_seconds",
                "Time left of the access token in use, in seconds; 0 where there is none.",
                &["tenant"],
            ),
            webhook_requests_total: r.counters(
                "webhook_requests_total",
                "Requests to the receiver of notifications, by outcome.",
                &["outcome"],
            ),
            webhook_notifications_total: r.counters(
                "webhook_notifications_total",
                "Contents that notifications named, by outcome; foreign ones are of no source of the settings.",
                &["outcome"],
            ),
            webhook_missed_total: r.counters(
                "webhook_missed_total",
                "Contents that polling found and no notification named within webhook.missed_after.",
                SOURCE,
            ),
            webhook_certificate_expires_in_seconds: r.gauges(
                "webhook_certificate_expires_in_seconds",
                "Time left of the certificate that the receiver of notifications shows, in seconds.",
                &[],
            ),
            transactions_total: r.counters(
                "transactions_total",
                "Kafka transactions ended, by outcome: committed, aborted or unknown.",
                &["outcome"],
            ),
            transaction_commit_seconds: r.histogram(
                "transaction_commit_seconds",
                "Duration of a commit, from its first call to the broker's answer, in seconds.",
                COMMITS,
            ),
            producer_queue_bytes: r
                .int_gauge("producer_queue_bytes", "Bytes handed to the producer, not yet acknowledged."),
            producer_recreated_total: r
                .counter("producer_recreated_total", "Producers replaced after an error they could not recover from."),
            ledger_ids: r.int_gauges("ledger_ids", "Record ids held in memory against repeats.", SOURCE),
            ledger_bytes: r.int_gauges("ledger_bytes", "Memory that the record ids take, in bytes.", SOURCE),
            ledger_restore_seconds: r.histogram(
                "ledger_restore_seconds",
                "Time to read the ledger of one partition after taking it, in seconds.",
                RESTORES,
            ),
            partitions_owned: r.int_gauge("partitions_owned", "Partitions of the listings that this process owns."),
            partitions_restored: r
                .int_gauge("partitions_restored", "Owned partitions whose ledger is read, so that work goes on."),
            rebalances_total: r.counter("rebalances_total", "Partitions that came, and each time that some went."),
            registry: r.into_registry(),
        };
        for outcome in Self::TRANSACTION_OUTCOMES {
            metrics.transactions_total.with_label_values(&[outcome]);
        }
        for outcome in Self::WEBHOOK_OUTCOMES {
            metrics.webhook_requests_total.with_label_values(&[outcome]);
        }
        for outcome in Self::NOTIFICATION_OUTCOMES {
            metrics.webhook_notifications_total.with_label_values(&[outcome]);
        }
        metrics
    }

    /// Everything as the text format 0.0.4 of Prometheus, for `/metrics`.
    #[must_use]
    pub fn render(&self) -> String {
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .expect("only an empty family cannot be written, and gather leaves those out")
    }

    /// Brings the counters of a source into being at 0, so that `rate()` sees the first increment.
    pub fn init_source(&self, tenant: &str, content_type: ContentType) {
        let source = [tenant, content_type.as_str()];
        for counters in [
            &self.listings_total,
            &self.records_published_total,
            &self.record_bytes_published_total,
            &self.records_duplicate_total,
            &self.records_filtered_total,
            &self.records_without_id_total,
            &self.webhook_missed_total,
        ] {
            counters.with_label_values(&source);
        }
        for outcome in Self::CONTENT_OUTCOMES {
            self.contents_total.with_label_values(&[source[0], source[1], outcome]);
        }
        for reason in GapReason::ALL {
            self.gaps_total.with_label_values(&[source[0], source[1], reason.as_str()]);
        }
        self.throttled_total.with_label_values(&[tenant]);
        self.throttle_wait_seconds_total.with_label_values(&[tenant]);
    }

    /// Removes the gauges of a tenant that nobody here knows anything of at this moment: an age that stands still, while time goes
    /// on, looks well; and when its partition moves on, two processes must not both show it. What was counted stays: a counter
    /// that began anew above 0 would hide its first increments from `increase()`.
    pub fn forget_state(&self, tenant: &str) {
        for gauges in [
            &self.freshness_seconds,
            &self.watermark_age_seconds,
            &self.delivered_age_seconds,
            &self.oldest_backlog_expires_in_seconds,
            &self.quota_used_ratio,
            &self.pace_ratio,
            &self.token_expires_in_seconds,
        ] {
            forget(gauges, tenant);
        }
        for gauges in [&self.backlog_contents, &self.quota_requests_per_minute, &self.ledger_ids, &self.ledger_bytes] {
            forget(gauges, tenant);
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn forget<T: MetricVecBuilder>(series: &MetricVec<T>, tenant: &str)
where
    MetricVec<T>: Collector,
{
    for family in series.collect() {
        for metric in family.get_metric() {
            let labels: HashMap<&str, &str> = metric.get_label().iter().map(|l| (l.name(), l.value())).collect();
            if labels.get("tenant") == Some(&tenant) {
                // Fails only when somebody else removed the series in between, which is what we want.
                let _ = series.remove(&labels);
            }
        }
    }
}

#[cfg(test)]
mod tests;
