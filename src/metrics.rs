//! The metrics, one struct with a field each; passed in, never global.

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

/// Everything that `/metrics` shows. Cloning gives another handle to the same numbers.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    /// Requests answered, by route, method and status.
    pub http_requests: IntCounterVec,
    /// Seconds until a response's head was sent, by route.
    pub http_seconds: prometheus::HistogramVec,
    /// Generations accepted.
    pub accepted: IntCounter,
    /// Requests answered with the generation that the same request had made before.
    pub replayed: IntCounter,
    /// Generations ended, by status.
    pub finished: IntCounterVec,
    /// Requests refused before any work, by error code.
    pub refused: IntCounterVec,
    /// Generations that wait.
    pub queued: IntGauge,
    /// Generations that compute.
    pub running: IntGauge,
    /// Seconds from the beginning of a run to its pictures.
    pub run_seconds: Histogram,
    /// Rows of each network call.
    pub batch_rows: Histogram,
    /// Different generations in each network call.
    pub batch_runs: Histogram,
    /// Seconds of each network call, by device and network.
    pub batch_seconds: prometheus::HistogramVec,
    /// Rows × denoiser calls computed.
    pub steps: IntCounter,
    /// The same, by device.
    pub device_steps: IntCounterVec,
    /// Generations in hand, by device.
    pub device_runs: IntGaugeVec,
    /// Those of them that computed the denoiser's shallow branch alone.
    pub shallow_steps: IntCounter,
    /// Rows × denoiser calls whose answers an earlier run of their generation had left.
    pub replayed_steps: IntCounter,
    /// Rows × denoiser calls computed and not used, by reason.
    pub wasted_steps: IntCounterVec,
    /// Tries of webhooks, by what they came to.
    pub webhook_deliveries: IntCounterVec,
    /// Webhooks that are still to be delivered.
    pub webhook_backlog: IntGauge,
    /// Text encodings asked for, by whether the cache had them.
    pub text_cache: IntCounterVec,
    /// Bytes of the weights that are in memory or being read.
    pub model_bytes: IntGauge,
    /// Leases that were lost before their generation had ended.
    pub leases_lost: IntCounter,
    /// Outcomes that were thrown away since the lease was another's.
    pub fenced_writes: IntCounter,
    /// Generations taken back from workers that are gone.
    pub reaped: IntCounter,
    /// Models read, by name and by whether that went well.
    pub model_loads: IntCounterVec,
    /// Models that made room for others, by name.
    pub model_unloads: IntCounterVec,
    /// Seconds that reading a model took.
    pub model_load_seconds: Histogram,
}

impl Metrics {
    pub fn new() -> Metrics {
        let registry = Registry::new();
        let seconds = || vec![0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];
        let rows = || vec![1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 64.0];
        let counter = |name, help| register(&registry, IntCounter::new(name, help));
        let counters =
            |name, help, labels: &[&str]| register(&registry, IntCounterVec::new(Opts::new(name, help), labels));
        let gauge = |name, help| register(&registry, IntGauge::new(name, help));
        let histogram = |name, help, buckets| {
            register(&registry, Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets)))
        };
        let histograms = |name, help, labels: &[&str]| {
            let opts = HistogramOpts::new(name, help).buckets(seconds());
            register(&registry, prometheus::HistogramVec::new(opts, labels))
        };
        Metrics {
            http_requests: counters("latentd_http_requests_total", "Requests answered", &["route", "method", "status"]),
            http_seconds: histograms(
                "latentd_http_request_seconds",
                "Seconds until a response's head was sent",
                &["route"],
            ),
            accepted: counter("latentd_generations_accepted_total", "Generations accepted"),
            replayed: counter(
                "latentd_requests_replayed_total",
                "Requests answered with the generation that the same request had made before",
            ),
            finished: counters("latentd_generations_finished_total", "Generations ended, by status", &["status"]),
            refused: counters("latentd_requests_refused_total", "Requests refused before any work", &["code"]),
            queued: gauge("latentd_generations_queued", "Generations that wait"),
            running: gauge("latentd_generations_running", "Generations that compute"),
            run_seconds: histogram(
                "latentd_run_seconds",
                "Seconds from the beginning of a run to its pictures",
                seconds(),
            ),
            batch_rows: histogram("latentd_batch_rows", "Rows of each network call", rows()),
            batch_runs: histogram("latentd_batch_runs", "Different generations in each network call", rows()),
            batch_seconds: histograms("latentd_batch_seconds", "Seconds of each network call", &["device", "network"]),
            steps: counter("latentd_steps_total", "Rows times denoiser calls computed"),
            device_steps: counters(
                "latentd_device_steps_total",
                "Rows times denoiser calls computed, by device",
                &["device"],
            ),
            device_runs: register(
                &registry,
                IntGaugeVec::new(
                    Opts::new("latentd_device_runs", "Generations that load or compute, by device"),
                    &["device"],
                ),
            ),
            shallow_steps: counter(
                "latentd_shallow_steps_total",
                "Rows times denoiser calls that computed the shallow branch alone",
            ),
            replayed_steps: counter(
                "latentd_replayed_steps_total",
                "Rows times denoiser calls answered from the log of an earlier run",
            ),
            wasted_steps: counters(
                "latentd_wasted_steps_total",
                "Rows times denoiser calls computed and not used",
                &["reason"],
            ),
            webhook_deliveries: counters(
                "latentd_webhook_deliveries_total",
                "Tries of webhooks by what they came to: delivered, failed (tried again), dead, gone",
                &["result"],
            ),
            webhook_backlog: gauge("latentd_webhook_backlog", "Webhooks that are still to be delivered"),
            leases_lost: counter("latentd_leases_lost_total", "Leases lost before their generation had ended"),
            fenced_writes: counter(
                "latentd_fenced_writes_total",
                "Outcomes thrown away since the lease was another worker's",
            ),
            reaped: counter("latentd_reaped_total", "Generations taken back from workers that are gone"),
            text_cache: counters("latentd_text_cache_total", "Text encodings asked for", &["result"]),
            model_bytes: gauge("latentd_model_bytes", "Bytes of the weights that are in memory or being read"),
            model_loads: counters("latentd_model_loads_total", "Models read", &["model", "result"]),
            model_unloads: counters("latentd_model_unloads_total", "Models that made room for others", &["model"]),
            model_load_seconds: histogram("latentd_model_load_seconds", "Seconds that reading a model took", seconds()),
            registry,
        }
    }

    /// The numbers in Prometheus' text format.
    pub fn render(&self) -> String {
        // Writing families of our own registry into a string has no way to fail; a metric with a broken name would
        // have failed at its registration.
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics::new()
    }
}

fn register<C: prometheus::core::Collector + Clone + 'static>(registry: &Registry, made: prometheus::Result<C>) -> C {
    let metric = made.expect("names, labels and buckets are constants that a test constructs");
    registry.register(Box::new(metric.clone())).expect("every name is used once, as a test constructs them all");
    metric
}

#[cfg(test)]
mod tests {
    use super::Metrics;

    #[test]
    fn every_metric_registers_under_a_name_of_its_own() {
        let metrics = Metrics::new();
        metrics.steps.inc_by(3);
        assert!(metrics.render().contains("latentd_steps_total 3"));
    }
}
