//! Every metric, by its name.

use prometheus::{
    CounterVec, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
};

/// All metrics of a process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub registry: Registry,
    // ingestion; labels tenant, content_type
    pub freshness_seconds: GaugeVec,
    pub watermark_age_seconds: GaugeVec,
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
    pub records_without_id_total: IntCounterVec,
    pub gaps_total: IntCounterVec,
    // service; labels tenant, and operation, status
    pub api_requests_total: IntCounterVec,
    /// label operation
    pub api_request_seconds: HistogramVec,
    /// label code (AFnnnnn, AADSTSnnn, or other)
    pub api_errors_total: IntCounterVec,
    pub throttled_total: IntCounterVec,
    pub throttle_wait_seconds_total: CounterVec,
    pub quota_requests_per_minute: IntGaugeVec,
    pub quota_used_ratio: GaugeVec,
    pub pace_ratio: GaugeVec,
    pub token_expires_in_seconds: GaugeVec,
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
