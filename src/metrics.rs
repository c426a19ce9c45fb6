//! The Prometheus metrics: one struct with a field per metric, passed to its users instead of being global.

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

/// All metrics of `/metrics`. A clone is another handle to the same values.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    /// Requests answered, by route, method and status. Status 499 means that the client left before the answer.
    pub http_requests: IntCounterVec,
    /// Seconds from the arrival of a request to the head of its response, by route.
    pub http_seconds: prometheus::HistogramVec,
    /// Generations accepted.
    pub accepted: IntCounter,
    /// Repeated requests, answered with the generation of the first request.
    pub repeated: IntCounter,
    /// Generations ended, by status.
    pub finished: IntCounterVec,
    /// Requests refused with status 4xx or 503, by error code.
    pub refused: IntCounterVec,
    /// Generations in the queue of the ledger.
    pub queued: IntGauge,
    /// Generations that this process has claimed and not ended yet.
    pub running: IntGauge,
    /// Seconds from the claim of a generation to its success.
    pub run_seconds: Histogram,
    /// Rows of each batch of the denoiser.
    pub batch_rows: Histogram,
    /// Generations in each batch of the denoiser.
    pub batch_runs: Histogram,
    /// Seconds of each batch, by device and network.
    pub batch_seconds: prometheus::HistogramVec,
    /// Rows computed by the denoiser: one row per picture, call and guidance branch.
    pub steps: IntCounter,
    /// Rows computed by the denoiser, by device.
    pub device_steps: IntCounterVec,
    /// Generations placed on a device, by device. Includes those whose model is being loaded.
    pub device_runs: IntGaugeVec,
    /// 1 for a device that is lost, by device.
    pub device_failed: IntGaugeVec,
    /// Batches that did not fit the memory of their device and were tried again with half of their rows, by device.
    pub out_of_memory_splits: IntCounterVec,
    /// Rows for which the denoiser computed only its shallow branch.
    pub shallow_steps: IntCounter,
    /// Rows of the denoiser and of classifiers that were read from the log of an earlier attempt instead of being
    /// computed.
    pub replayed_steps: IntCounter,
    /// Rows that the denoiser computed in vain, because the run was ended, by the reason for its end.
    pub wasted_steps: IntCounterVec,
    /// Attempts to deliver webhooks, by result.
    pub webhook_deliveries: IntCounterVec,
    /// Webhooks that have not been delivered yet.
    pub webhook_backlog: IntGauge,
    /// Text encodings requested by runs, by result of the cache: hit or miss.
    pub text_cache: IntCounterVec,
    /// Bytes of the weights of models that are in memory or being loaded.
    pub model_bytes: IntGauge,
    /// Bytes of weights that were copied to each device for calls, because they are offloaded.
    pub offload_copied_bytes: IntCounterVec,
    /// The part of `model_bytes` in the memory of each device that has its own.
    pub device_model_bytes: IntGaugeVec,
    /// Bytes of the weights of ControlNets that are in memory or being loaded.
    pub control_net_bytes: IntGauge,
    /// The most bytes that the process lets weights, generations and everything else take together.
    pub memory_plan_bytes: IntGauge,
    /// Leases lost before their generation ended.
    pub leases_lost: IntCounter,
    /// Outcomes rejected because the lease had been lost to another worker.
    pub fenced_writes: IntCounter,
    /// Generations taken back from workers that disappeared.
    pub reaped: IntCounter,
    /// Attempts to load a model, by name and result: loaded or failed.
    pub model_loads: IntCounterVec,
    /// Models unloaded, by name.
    pub model_unloads: IntCounterVec,
    /// Seconds of each attempt to load a model.
    pub model_load_seconds: Histogram,
    /// Spans of traces, by result: exported, failed (the collector did not take them) or dropped (too many waited).
    pub trace_spans: IntCounterVec,
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
                "Seconds from the arrival of a request to the head of its response",
                &["route"],
            ),
            accepted: counter("latentd_generations_accepted_total", "Generations accepted"),
            repeated: counter(
                "latentd_requests_replayed_total",
                "Repeated requests, answered with the generation of the first one",
            ),
            finished: counters("latentd_generations_finished_total", "Generations ended, by status", &["status"]),
            refused: counters("latentd_requests_refused_total", "Requests refused with status 4xx or 503", &["code"]),
            queued: gauge("latentd_generations_queued", "Generations in the queue"),
            running: gauge("latentd_generations_running", "Generations claimed by this process and not ended"),
            run_seconds: histogram(
                "latentd_run_seconds",
                "Seconds from the claim of a generation to its success",
                seconds(),
            ),
            batch_rows: histogram("latentd_batch_rows", "Rows of each batch of the denoiser", rows()),
            batch_runs: histogram("latentd_batch_runs", "Generations in each batch of the denoiser", rows()),
            batch_seconds: histograms("latentd_batch_seconds", "Seconds of each batch", &["device", "network"]),
            steps: counter("latentd_steps_total", "Rows computed by the denoiser"),
            device_steps: counters(
                "latentd_device_steps_total",
                "Rows computed by the denoiser, by device",
                &["device"],
            ),
            device_runs: register(
                &registry,
                IntGaugeVec::new(
                    Opts::new("latentd_device_runs", "Generations that load or compute, by device"),
                    &["device"],
                ),
            ),
            device_failed: register(
                &registry,
                IntGaugeVec::new(
                    Opts::new("latentd_device_failed", "1 for a device that has failed and gets no more work"),
                    &["device"],
                ),
            ),
            out_of_memory_splits: counters(
                "latentd_out_of_memory_splits_total",
                "Batches that did not fit the memory of their device and were divided, by device",
                &["device"],
            ),
            shallow_steps: counter(
                "latentd_shallow_steps_total",
                "Denoiser rows with only the shallow branch computed",
            ),
            replayed_steps: counter(
                "latentd_replayed_steps_total",
                "Denoiser rows read from the log of an earlier attempt instead of being computed",
            ),
            wasted_steps: counters(
                "latentd_wasted_steps_total",
                "Denoiser rows computed in vain, by reason",
                &["reason"],
            ),
            webhook_deliveries: counters(
                "latentd_webhook_deliveries_total",
                "Attempts to deliver webhooks, by result: delivered, failed (tried again), dead, gone",
                &["result"],
            ),
            webhook_backlog: gauge("latentd_webhook_backlog", "Webhooks that have not been delivered yet"),
            leases_lost: counter("latentd_leases_lost_total", "Leases lost before their generation ended"),
            fenced_writes: counter(
                "latentd_fenced_writes_total",
                "Outcomes rejected because the lease had been lost to another worker",
            ),
            reaped: counter("latentd_reaped_total", "Generations taken back from workers that disappeared"),
            text_cache: counters("latentd_text_cache_total", "Text encodings, by cache hit or miss", &["result"]),
            model_bytes: gauge("latentd_model_bytes", "Bytes of model weights in memory or being loaded"),
            offload_copied_bytes: counters(
                "latentd_offload_copied_bytes_total",
                "Bytes of weights that were copied from the memory of the host to a device for a call",
                &["device"],
            ),
            device_model_bytes: register(
                &registry,
                IntGaugeVec::new(
                    Opts::new(
                        "latentd_device_model_bytes",
                        "Bytes of model weights in memory or being loaded, by device with memory of its own",
                    ),
                    &["device"],
                ),
            ),
            control_net_bytes: gauge("latentd_control_net_bytes", "Bytes of ControlNets in memory or being loaded"),
            memory_plan_bytes: gauge(
                "latentd_memory_plan_bytes",
                "The most bytes that the process lets weights, generations and everything else take together",
            ),
            model_loads: counters(
                "latentd_model_loads_total",
                "Attempts to load models, by result",
                &["model", "result"],
            ),
            model_unloads: counters("latentd_model_unloads_total", "Models unloaded", &["model"]),
            model_load_seconds: histogram(
                "latentd_model_load_seconds",
                "Seconds of each attempt to load a model",
                seconds(),
            ),
            trace_spans: counters(
                "latentd_trace_spans_total",
                "Spans by result: exported, failed (not taken by the collector), dropped (too many waited)",
                &["result"],
            ),
            registry,
        }
    }

    /// The values in Prometheus' text format.
    pub fn render(&self) -> String {
        // Encoding into a string cannot fail: invalid names would have failed at registration.
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
