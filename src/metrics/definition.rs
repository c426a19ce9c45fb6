//! How a metric is defined: the macro that makes the struct of all metrics from a table, and the buckets of histograms.

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, Result, core::Collector,
};

/// Seconds from a request to its answer, and of operations of an object store.
pub const ANSWERS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];

/// Seconds of a batch of a network.
pub const BATCHES: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];

/// Seconds of a generation, of its stages and of its wait.
pub const WORK: &[f64] =
    &[0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0];

/// Rows and runs of a batch.
pub const ROWS: &[f64] = &[1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 64.0];

/// Defines the struct `Metrics` from a table. Each entry has the help text (as its doc comment), the field, the kind,
/// the name, the labels if there are any, and the buckets if it is a histogram.
macro_rules! metrics {
    ($(
        $(#[doc = $help:literal])+
        $field:ident: $kind:ident = $name:literal $([$($label:literal),+])? $(in $buckets:ident)?;
    )+) => {
        /// All metrics of `/metrics`. A clone is another handle to the same values.
        #[derive(Clone, Debug)]
        pub struct Metrics {
            registry: Registry,
            $($(#[doc = $help])+ pub $field: $kind,)+
        }

        impl Metrics {
            pub fn new() -> Metrics {
                let registry = Registry::new();
                Metrics {
                    $($field: definition::register(
                        &registry,
                        $name,
                        concat!($($help),+),
                        &[$($($label),+)?],
                        &[$($buckets)?],
                    ),)+
                    registry,
                }
            }
        }
    };
}

pub(super) use metrics;

/// A kind of metric.
pub trait Kind: Collector + Clone + 'static {
    fn made(opts: Opts, labels: &[&str], buckets: Vec<f64>) -> Result<Self>;
}

macro_rules! kinds {
    ($($kind:ident($opts:ident, $labels:ident, $buckets:ident) => $made:expr;)*) => {$(
        impl Kind for $kind {
            fn made($opts: Opts, $labels: &[&str], $buckets: Vec<f64>) -> Result<Self> {
                $made
            }
        }
    )*};
}

kinds! {
    IntCounter(opts, _labels, _buckets) => IntCounter::with_opts(opts);
    IntCounterVec(opts, labels, _buckets) => IntCounterVec::new(opts, labels);
    IntGauge(opts, _labels, _buckets) => IntGauge::with_opts(opts);
    IntGaugeVec(opts, labels, _buckets) => IntGaugeVec::new(opts, labels);
    Gauge(opts, _labels, _buckets) => Gauge::with_opts(opts);
    GaugeVec(opts, labels, _buckets) => GaugeVec::new(opts, labels);
    Histogram(opts, _labels, buckets) => Histogram::with_opts(HistogramOpts::from(opts).buckets(buckets));
    HistogramVec(opts, labels, buckets) => HistogramVec::new(HistogramOpts::from(opts).buckets(buckets), labels);
}

/// Makes a metric and registers it. `help` is the text of doc comments, whose lines begin with a space.
pub fn register<K: Kind>(registry: &Registry, name: &str, help: &str, labels: &[&str], buckets: &[&[f64]]) -> K {
    let metric = K::made(Opts::new(name, help.trim()), labels, buckets.concat());
    let metric = metric.expect("names, labels and buckets are constants that a test constructs");
    registry.register(Box::new(metric.clone())).expect("every name is used once, as a test constructs them all");
    metric
}
