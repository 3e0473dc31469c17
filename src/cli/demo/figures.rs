//! What the metrics say, in the few figures that a person watches.

use prometheus::{IntCounterVec, core::Collector};

use crate::telemetry::Metrics;

/// The pipeline at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Figures {
    /// Records committed so far.
    pub records: u64,
    /// Records that came again and were left out.
    pub repeats: u64,
    /// Contents listed and not yet settled.
    pub backlog: i64,
    /// Seconds since the newest content of the source that is furthest behind was created; none before the first.
    pub freshness_seconds: Option<f64>,
    /// Share of the tenant's requests used in the last minute, 0 to 1.
    pub budget_used: f64,
    pub gaps: u64,
    pub transactions: u64,
}

impl Figures {
    pub fn of(metrics: &Metrics) -> Self {
        Self {
            records: total(&metrics.records_published_total),
            repeats: total(&metrics.records_duplicate_total),
            backlog: values(&metrics.backlog_contents).sum::<f64>() as i64,
            freshness_seconds: values(&metrics.freshness_seconds).reduce(f64::max),
            budget_used: values(&metrics.quota_used_ratio).fold(0.0, f64::max),
            gaps: total(&metrics.gaps_total),
            transactions: metrics.transactions_total.with_label_values(&["committed"]).get(),
        }
    }
}

/// Collected rather than asked for by label: asking brings a series into being.
fn values(gauges: &impl Collector) -> impl Iterator<Item = f64> {
    let families = gauges.collect();
    families.into_iter().flat_map(|mut family| family.take_metric()).map(|metric| metric.get_gauge().get_value())
}

fn total(counters: &IntCounterVec) -> u64 {
    let families = counters.collect();
    let counts = families.iter().flat_map(|family| family.get_metric()).map(|metric| metric.get_counter().get_value());
    counts.sum::<f64>() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_add_up_the_sources_and_show_the_one_furthest_behind() {
        let metrics = Metrics::new();
        assert_eq!(Figures::of(&metrics), Figures::default());
        for (kind, records, age) in [("Audit.Exchange", 3, 7.0), ("DLP.All", 4, 2.0)] {
            metrics.records_published_total.with_label_values(&["contoso", kind]).inc_by(records);
            metrics.backlog_contents.with_label_values(&["contoso", kind]).set(5);
            metrics.freshness_seconds.with_label_values(&["contoso", kind]).set(age);
            metrics.gaps_total.with_label_values(&["contoso", kind, "expired"]).inc();
        }
        metrics.transactions_total.with_label_values(&["aborted"]).inc();
        let expected = Figures { records: 7, backlog: 10, freshness_seconds: Some(7.0), gaps: 2, ..Figures::default() };
        assert_eq!(Figures::of(&metrics), expected);
    }
}
