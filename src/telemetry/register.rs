//! Making a metric and registering it, in one call.

use prometheus::{
    CounterVec, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, core::Collector,
};

/// Why neither making nor registering can fail: everything that goes in is a constant of this room.
const CONSTANT: &str = "names, labels and buckets are constants that every test of this room builds";

/// A registry under construction.
pub(super) struct Register {
    namespace: &'static str,
    registry: Registry,
}

impl Register {
    pub(super) fn new(namespace: &'static str) -> Self {
        Self { namespace, registry: Registry::new() }
    }

    pub(super) fn into_registry(self) -> Registry {
        self.registry
    }

    /// CPU, memory, file descriptors and start time of this process, under the names everybody knows.
    pub(super) fn process(&self) {
        #[cfg(target_os = "linux")]
        self.registry
            .register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))
            .expect("nothing else in this registry carries the prefix `process_`");
    }

    pub(super) fn build_info(&self, version: &str) {
        let opts =
            self.opts("build_info", "Always 1; the label says which build this is.").const_label("version", version);
        self.keep(IntGauge::with_opts(opts).expect(CONSTANT)).set(1);
    }

    pub(super) fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.keep(IntCounter::with_opts(self.opts(name, help)).expect(CONSTANT))
    }

    pub(super) fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.keep(IntCounterVec::new(self.opts(name, help), labels).expect(CONSTANT))
    }

    pub(super) fn seconds_counters(&self, name: &str, help: &str, labels: &[&str]) -> CounterVec {
        self.keep(CounterVec::new(self.opts(name, help), labels).expect(CONSTANT))
    }

    pub(super) fn int_gauge(&self, name: &str, help: &str) -> IntGauge {
        self.keep(IntGauge::with_opts(self.opts(name, help)).expect(CONSTANT))
    }

    pub(super) fn int_gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.keep(IntGaugeVec::new(self.opts(name, help), labels).expect(CONSTANT))
    }

    pub(super) fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
        self.keep(GaugeVec::new(self.opts(name, help), labels).expect(CONSTANT))
    }

    pub(super) fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        self.keep(Histogram::with_opts(self.histogram_opts(name, help, buckets)).expect(CONSTANT))
    }

    pub(super) fn histograms(&self, name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> HistogramVec {
        self.keep(HistogramVec::new(self.histogram_opts(name, help, buckets), labels).expect(CONSTANT))
    }

    fn opts(&self, name: &str, help: &str) -> Opts {
        Opts::new(name, help).namespace(self.namespace)
    }

    fn histogram_opts(&self, name: &str, help: &str, buckets: &[f64]) -> HistogramOpts {
        HistogramOpts::new(name, help).namespace(self.namespace).buckets(buckets.to_vec())
    }

    fn keep<M: Collector + Clone + 'static>(&self, metric: M) -> M {
        self.registry.register(Box::new(metric.clone())).expect(CONSTANT);
        metric
    }
}
