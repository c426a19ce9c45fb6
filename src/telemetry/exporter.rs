//! The exporter: sends ended spans to a collector by OTLP over HTTP.

use std::{error::Error, time::Duration};

use prometheus::IntCounterVec;
use reqwest::{Client, Url, header, redirect};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{Span, Tracer, otlp};
use crate::{config::Telemetry, jitter, metrics::Metrics};

/// Sends the spans of this process to a collector. Its loop is [`Exporter::run`].
pub struct Exporter {
    spans: mpsc::Receiver<Span>,
    client: Client,
    url: Url,
    headers: header::HeaderMap,
    /// The attributes of the process.
    resource: Vec<(&'static str, String)>,
    counted: IntCounterVec,
    /// Whether the last request failed; only the first failure is logged.
    fails: bool,
}

/// The maximum number of spans of one request, which then has about 300 kB.
const MAX_SPANS: usize = 512;
/// How long the first span of a request waits for others.
const INTERVAL: Duration = Duration::from_secs(1);
/// Longest duration of one request.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The waits before the first and the second repetition of a request. If the last repetition fails, too, the spans of
/// the request are dropped, so that newer spans get a turn.
const WAITS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3)];

impl Exporter {
    /// The tracer of this process, and its exporter if the settings name a collector.
    ///
    /// # Errors
    /// The HTTP client cannot be set up.
    pub fn new(
        settings: &Telemetry,
        resource: Vec<(&'static str, String)>,
        metrics: &Metrics,
    ) -> Result<(Tracer, Option<Exporter>), reqwest::Error> {
        let Some(url) = settings.traces_url() else { return Ok((Tracer::off(), None)) };
        let builder = || {
            Client::builder().redirect(redirect::Policy::none()).no_proxy().timeout(TIMEOUT).connect_timeout(TIMEOUT)
        };
        // Without certificates of authorities in the system, a collector can still be reached over http.
        let client = builder().build().or_else(|_| builder().tls_certs_only([]).build())?;
        let (tracer, spans) = Tracer::recording(settings.sample_ratio, metrics);
        let (headers, counted) = (settings.headers(), metrics.trace_spans.clone());
        let exporter = Exporter { spans, client, url, headers, resource, counted, fails: false };
        Ok((tracer, Some(exporter)))
    }

    /// Sends spans until `stop`. Then sends the spans that have ended before `stop`, each request once, and ends with
    /// the first request that fails.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut batch = Vec::new();
        while stop.run_until_cancelled(self.fill(&mut batch)).await.is_some() {
            match stop.run_until_cancelled(self.send(&batch)).await {
                Some(is_sent) => self.count(&mut batch, is_sent),
                None => break,
            }
        }
        self.spans.close();
        loop {
            while batch.len() < MAX_SPANS
                && let Ok(span) = self.spans.try_recv()
            {
                batch.push(span);
            }
            if batch.is_empty() {
                return;
            }
            let is_sent = self.post(&batch).await.is_ok();
            self.count(&mut batch, is_sent);
            if !is_sent {
                return;
            }
        }
    }

    /// Collects the spans of the next request. Keeps them in `batch` if the future is dropped.
    async fn fill(&mut self, batch: &mut Vec<Span>) {
        if batch.is_empty() && self.spans.recv_many(batch, MAX_SPANS).await == 0 {
            // All tracers are gone, so only the stop is left to wait for.
            return std::future::pending().await;
        }
        let full = Instant::now() + INTERVAL;
        while batch.len() < MAX_SPANS {
            let room = MAX_SPANS - batch.len();
            match tokio::time::timeout_at(full, self.spans.recv_many(batch, room)).await {
                Ok(count) if count > 0 => {}
                Ok(_) | Err(_) => return,
            }
        }
    }

    /// Sends the spans, with repetitions if the collector may take them later. Returns whether they were sent.
    async fn send(&mut self, batch: &[Span]) -> bool {
        let mut waits = WAITS.iter();
        loop {
            let failure = match self.post(batch).await {
                Ok(()) => {
                    if std::mem::take(&mut self.fails) {
                        tracing::info!("spans are exported again");
                    }
                    return true;
                }
                Err(failure) => failure,
            };
            let wait = waits.next().filter(|_| failure.is_temporary);
            if !std::mem::replace(&mut self.fails, true) {
                tracing::warn!(error = failure.reason, "spans cannot be exported, so some may be lost");
            }
            match wait {
                Some(wait) => tokio::time::sleep(wait.mul_f64(jitter::between(0.8, 1.2))).await,
                None => return false,
            }
        }
    }

    async fn post(&self, batch: &[Span]) -> Result<(), Failure> {
        let body = otlp::body(&self.resource, batch);
        let request = self.client.post(self.url.clone()).headers(self.headers.clone());
        match request.header(header::CONTENT_TYPE, "application/json").body(body).send().await {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => {
                let status = answer.status();
                // The statuses that OTLP calls retryable.
                let is_temporary = matches!(status.as_u16(), 429 | 502..=504);
                Err(Failure { reason: format!("the collector answers {status}"), is_temporary })
            }
            Err(error) => {
                let error = error.without_url();
                let mut cause: &dyn Error = &error;
                while let Some(source) = cause.source() {
                    cause = source;
                }
                Err(Failure { reason: cause.to_string(), is_temporary: true })
            }
        }
    }

    fn count(&self, batch: &mut Vec<Span>, is_sent: bool) {
        let result = if is_sent { "exported" } else { "failed" };
        self.counted.with_label_values(&[result]).inc_by(batch.len() as u64);
        batch.clear();
    }
}

impl std::fmt::Debug for Exporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exporter").field("resource", &self.resource).finish_non_exhaustive()
    }
}

/// Why spans were not sent.
struct Failure {
    reason: String,
    /// Whether a repetition may succeed.
    is_temporary: bool,
}
