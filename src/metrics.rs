//! The Prometheus metrics: one struct with a field per metric, passed to its users instead of being global.
//!
//! No label names a tenant, a prompt or a generation: the number of series would grow with use, and the metrics are
//! open to everybody who reaches the operator listener. The values from the database (the queue, dead generations,
//! pending webhooks) are the same in all processes. So queries over several processes use `max` for these values, and
//! `sum` for all others.

mod definition;

use std::time::SystemTime;

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder,
};

use crate::generation::{Record, Status};
use definition::{ANSWERS, BATCHES, ROWS, WORK};

definition::metrics! {
    /// 1, with the version of the program and the role of the process.
    build: IntGaugeVec = "latentd_build_info" ["version", "role"];
    /// Start of the process, in seconds since 1970.
    started: Gauge = "process_start_time_seconds";

    /// Requests answered. Status 499 means that the client disconnected before the answer.
    http_requests: IntCounterVec = "latentd_http_requests_total" ["route", "method", "status"];
    /// Seconds from the arrival of a request to the head of its response.
    http_seconds: HistogramVec = "latentd_http_request_seconds" ["route"] in ANSWERS;
    /// Requests that have arrived and whose response has not begun.
    http_open: IntGauge = "latentd_http_requests_in_flight";
    /// Requests refused with status 4xx or 503, by error code.
    refused: IntCounterVec = "latentd_requests_refused_total" ["code"];
    /// Repeated requests, answered with the generation of the first request.
    repeated: IntCounter = "latentd_requests_replayed_total";
    /// Open event streams.
    event_streams: IntGauge = "latentd_event_streams";
    /// Event streams that readers resumed after an event that they had.
    event_streams_resumed: IntCounter = "latentd_event_streams_resumed_total";
    /// Progress events that were not sent, because newer progress replaced them.
    events_dropped: IntCounter = "latentd_events_dropped_total";

    /// Generations accepted.
    accepted: IntCounterVec = "latentd_generations_accepted_total" ["model"];
    /// Claims of queued generations by the worker of this process.
    claimed: IntCounter = "latentd_generations_claimed_total";
    /// Generations ended, by status, and by error code if they failed.
    finished: IntCounterVec = "latentd_generations_finished_total" ["model", "status", "code"];
    /// Attempts ended: succeeded, failed, canceled, released (back to the queue, uncounted), retry, device_lost, or
    /// fenced (the lease was lost, so the outcome was discarded).
    attempts: IntCounterVec = "latentd_generation_attempts_total" ["outcome"];
    /// Pictures, sounds and films of generations that succeeded.
    images: IntCounterVec = "latentd_images_total" ["model"];
    /// Generations that are dead: given up after crashes, until an operator queues them again. From the database.
    dead: IntGauge = "latentd_dead_generations";

    /// Hits of the safety rules, by policy (off, flag, block) and kind: picture (flagged by the safety checker) or
    /// prompt (refused because of safety.blocked_prompts).
    safety_hits: IntCounterVec = "latentd_safety_hits_total" ["policy", "kind"];

    /// Generations in the queue. From the database.
    queued: IntGauge = "latentd_generations_queued";
    /// Seconds since the acceptance of the queued generation that was accepted first; 0 if none is queued. From the
    /// database.
    queue_oldest: Gauge = "latentd_queue_oldest_seconds";
    /// Estimated seconds that one worker would take for all queued and running generations of a model. From the
    /// database.
    queue_work: GaugeVec = "latentd_queue_estimated_seconds" ["model"];
    /// Seconds from the acceptance of a generation to its first claim.
    queue_wait: HistogramVec = "latentd_queue_wait_seconds" ["priority"] in WORK;
    /// Generations that this process has claimed and not ended yet.
    running: IntGauge = "latentd_generations_running";
    /// Seconds from the claim of a generation to its success.
    run_seconds: Histogram = "latentd_run_seconds" in WORK;
    /// Seconds that an attempt spends in a stage: load (with the wait for memory and for a slot), encode (text),
    /// denoise, decode, save.
    stage_seconds: HistogramVec = "latentd_stage_seconds" ["stage"] in WORK;

    /// Rows of each batch of the denoiser.
    batch_rows: Histogram = "latentd_batch_rows" in ROWS;
    /// Generations in each batch of the denoiser.
    batch_runs: Histogram = "latentd_batch_runs" in ROWS;
    /// Seconds of each batch.
    batch_seconds: HistogramVec = "latentd_batch_seconds" ["device", "network"] in BATCHES;
    /// Rows computed by the denoiser: one row per picture, call and guidance branch.
    steps: IntCounter = "latentd_steps_total";
    /// Rows for which the denoiser computed only its shallow branch.
    shallow_steps: IntCounter = "latentd_shallow_steps_total";
    /// Rows of the denoiser and of classifiers that were read from the log of an earlier attempt instead of being
    /// computed.
    replayed_steps: IntCounter = "latentd_replayed_steps_total";
    /// Rows that the denoiser computed in vain, because the run was ended, by the reason for its end.
    wasted_steps: IntCounterVec = "latentd_wasted_steps_total" ["reason"];
    /// Text encodings requested by runs, by result of the cache: hit or miss.
    text_cache: IntCounterVec = "latentd_text_cache_total" ["result"];

    /// Rows computed by the denoiser, by device.
    device_steps: IntCounterVec = "latentd_device_steps_total" ["device"];
    /// Generations placed on a device. Includes generations whose model is being loaded.
    device_runs: IntGaugeVec = "latentd_device_runs" ["device"];
    /// 1 for a device that is lost and gets no more work.
    device_failed: IntGaugeVec = "latentd_device_failed" ["device"];
    /// Batches that did not fit the memory of their device and were tried again with half of their rows.
    out_of_memory_splits: IntCounterVec = "latentd_out_of_memory_splits_total" ["device"];
    /// Bytes of model weights in memory or being loaded.
    model_bytes: IntGauge = "latentd_model_bytes";
    /// The part of latentd_model_bytes in the memory of each device that has its own.
    device_model_bytes: IntGaugeVec = "latentd_device_model_bytes" ["device"];
    /// Bytes of weights that were copied from the memory of the host to a device for a call, because they are
    /// offloaded.
    offload_copied_bytes: IntCounterVec = "latentd_offload_copied_bytes_total" ["device"];
    /// Bytes of the weights of ControlNets that are in memory or being loaded.
    control_net_bytes: IntGauge = "latentd_control_net_bytes";
    /// Maximum bytes that the process lets weights, generations and everything else take together.
    memory_plan_bytes: IntGauge = "latentd_memory_plan_bytes";
    /// Attempts to load a model, by result: loaded or failed.
    model_loads: IntCounterVec = "latentd_model_loads_total" ["model", "result"];
    /// Models unloaded.
    model_unloads: IntCounterVec = "latentd_model_unloads_total" ["model"];
    /// Seconds of each attempt to load a model.
    model_load_seconds: Histogram = "latentd_model_load_seconds" in WORK;

    /// Seconds that signing a file takes.
    sign_seconds: Histogram = "latentd_sign_seconds" in ANSWERS;
    /// Pictures whose content credentials were verified, by result: none, unreadable, altered, intact or
    /// not_built (this build cannot read them).
    verifications: IntCounterVec = "latentd_verifications_total" ["result"];

    /// Spans of traces, by result: exported, failed (the collector did not take them) or dropped (too many waited).
    trace_spans: IntCounterVec = "latentd_trace_spans_total" ["result"];

    /// Leases lost before their generation ended.
    leases_lost: IntCounter = "latentd_leases_lost_total";
    /// Outcomes rejected because the lease had been lost to another worker.
    fenced_writes: IntCounter = "latentd_fenced_writes_total";
    /// Generations taken back from workers that disappeared.
    reaped: IntCounter = "latentd_reaped_total";
    /// Seconds of each try of an operation of the object store: put, get, list or delete.
    object_store_seconds: HistogramVec = "latentd_object_store_seconds" ["operation"] in ANSWERS;
    /// Failed tries of operations of the object store.
    object_store_failures: IntCounterVec = "latentd_object_store_failures_total" ["operation"];
    /// Connections to the database in use, sampled every 5 seconds.
    database_used: IntGauge = "latentd_database_connections_in_use";
    /// Maximum number of connections that the process opens to the database.
    database_most: IntGauge = "latentd_database_connections_max";

    /// Attempts to deliver webhooks, by result: delivered, failed (tried again), dead, gone.
    webhook_deliveries: IntCounterVec = "latentd_webhook_deliveries_total" ["result"];
    /// Webhooks that have not been delivered yet. From the database.
    webhook_backlog: IntGauge = "latentd_webhook_backlog";
}

const OPERATIONS: [&str; 4] = ["put", "get", "list", "delete"];

impl Metrics {
    /// Sets what is known at the start of a process, and makes the series whose labels are known at 0: a rate needs the
    /// value before the first event, too.
    pub fn note_start(&self, version: &str, role: &str) {
        self.build.with_label_values(&[version, role]).set(1);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.started.set(now.as_secs_f64());
        let counters: [(&IntCounterVec, &[&str]); 7] = [
            (&self.attempts, &["succeeded", "failed", "canceled", "released", "retry", "device_lost", "fenced"]),
            (&self.wasted_steps, &["canceled", "disconnected", "lost", "timed_out"]),
            (&self.text_cache, &["hit", "miss"]),
            (&self.object_store_failures, &OPERATIONS),
            (&self.webhook_deliveries, &["delivered", "failed", "dead", "gone"]),
            (&self.trace_spans, &["exported", "failed", "dropped"]),
            (&self.verifications, &["none", "unreadable", "altered", "intact", "not_built"]),
        ];
        for (counters, values) in counters {
            values.iter().for_each(|value| drop(counters.with_label_values(&[value])));
        }
        for labels in
            [["flag", "picture"], ["block", "picture"], ["off", "prompt"], ["flag", "prompt"], ["block", "prompt"]]
        {
            self.safety_hits.with_label_values(&labels);
        }
        let histograms: [(&HistogramVec, &[&str]); 3] = [
            (&self.queue_wait, &["low", "normal", "high"]),
            (&self.stage_seconds, &["load", "encode", "denoise", "decode", "save"]),
            (&self.object_store_seconds, &OPERATIONS),
        ];
        for (histograms, values) in histograms {
            values.iter().for_each(|value| drop(histograms.with_label_values(&[value])));
        }
    }

    /// Makes the series of the ends of this model's generations at 0, before the first generation ends.
    pub fn expect_end(&self, model: &str) {
        for labels in [[model, "succeeded", ""], [model, "failed", "out_of_memory"]] {
            self.finished.with_label_values(&labels);
        }
    }

    /// Counts a generation that has ended.
    pub fn count_end(&self, record: &Record) {
        let code = match &record.status {
            Status::Failed { problem } => problem.code.as_str(),
            _ => "",
        };
        self.finished.with_label_values(&[record.job.model.as_str(), record.status.as_str(), code]).inc();
        if let Status::Succeeded { artifacts } = &record.status {
            self.images.with_label_values(&[&record.job.model]).inc_by(artifacts.len() as u64);
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

#[cfg(test)]
mod tests {
    use super::Metrics;

    #[test]
    fn every_metric_registers_under_a_name_of_its_own() {
        let metrics = Metrics::new();
        metrics.steps.inc_by(3);
        metrics.queue_wait.with_label_values(&["high"]).observe(1900.0);
        let text = metrics.render();
        assert!(text.contains("latentd_steps_total 3"));
        assert!(text.contains("latentd_queue_wait_seconds_bucket{priority=\"high\",le=\"1800\"} 0"));
        assert!(text.contains("latentd_queue_wait_seconds_bucket{priority=\"high\",le=\"+Inf\"} 1"));
    }
}
