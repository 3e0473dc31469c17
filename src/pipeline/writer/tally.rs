//! What the open transaction will have done once it is committed. Metrics count commits, not attempts.

use std::collections::HashMap;

use jiff::Timestamp;

use super::{Partition, Writer};
use crate::domain::{GapReason, Source};

#[derive(Default)]
pub struct Tally {
    /// To be written to the ledger.
    pub ids: u64,
    /// Of records.
    pub bytes: u64,
    pub sources: HashMap<Source, SourceTally>,
}

#[derive(Default)]
pub struct SourceTally {
    pub published: u64,
    pub bytes: u64,
    pub duplicates: u64,
    pub filtered: u64,
    pub without_id: u64,
    /// Seconds between an event and its publishing.
    pub delays: Vec<u32>,
    pub outcomes: Vec<&'static str>,
    pub gaps: Vec<GapReason>,
    /// `contentCreated` of the newest content published.
    pub newest: Option<Timestamp>,
}

impl Writer {
    /// Adds a committed transaction to the metrics.
    pub(super) fn account(&mut self, tally: Tally) {
        for (source, done) in tally.sources {
            self.account_source(source, &done);
            let newest = done.newest;
            for state in self.partitions.values_mut() {
                if let Partition::Owned(owned) = state
                    && owned.ledgers.contains_key(&source)
                {
                    let known = owned.newest.entry(source).or_insert(Timestamp::MIN);
                    *known = (*known).max(newest.unwrap_or(Timestamp::MIN));
                }
            }
        }
    }

    fn account_source(&self, source: Source, done: &SourceTally) {
        let (metrics, labels) = (&self.parts.metrics, self.labels(source));
        metrics.records_published_total.with_label_values(&labels).inc_by(done.published);
        metrics.record_bytes_published_total.with_label_values(&labels).inc_by(done.bytes);
        metrics.records_duplicate_total.with_label_values(&labels).inc_by(done.duplicates);
        metrics.records_filtered_total.with_label_values(&labels).inc_by(done.filtered);
        metrics.records_without_id_total.with_label_values(&labels).inc_by(done.without_id);
        let [tenant, kind] = labels;
        for outcome in &done.outcomes {
            metrics.contents_total.with_label_values(&[tenant, kind, outcome]).inc();
        }
        for reason in &done.gaps {
            metrics.gaps_total.with_label_values(&[tenant, kind, reason.as_str()]).inc();
        }
        let delays = metrics.event_delay_seconds.with_label_values(&[kind]);
        done.delays.iter().for_each(|seconds| delays.observe(f64::from(*seconds)));
    }
}
