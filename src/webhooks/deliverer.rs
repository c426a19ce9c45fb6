//! Sends the webhooks that are due.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Notify, time::MissedTickBehavior};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    receivers::Receivers,
    retry_schedule::RetrySchedule,
    sender::{Message, Sender},
    signing,
};
use crate::{
    generation::{GenerationId, SigningSecret, TraceContext, linked},
    jitter,
    ledger::{ClaimedDelivery, Next, StoreError, Webhooks},
    metrics::Metrics,
    telemetry::{OpenSpan, SpanKind, Tracer},
};

/// Sends webhooks. Its loop is [`Deliverer::run`].
pub struct Deliverer {
    pub store: Arc<dyn Webhooks>,
    pub sender: Sender,
    pub retry_schedule: RetrySchedule,
    /// Signs messages to URLs that requests name directly, instead of a registered endpoint.
    pub secret: Option<SigningSecret>,
    /// Maximum number of messages in flight at the same time.
    pub max_in_flight: usize,
    /// Longest duration of one attempt.
    pub timeout: Duration,
    /// `http.public_url`: the beginning of the links in messages.
    pub public_url: String,
    pub metrics: Metrics,
    pub tracer: Tracer,
    /// Runs one task for each attempt to send a message.
    pub attempts: TaskTracker,
    pub receivers: Receivers,
}

/// The loop looks for due messages whenever an attempt ends, and at least this often.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// How much longer the claim of a message lasts than an attempt may take. In this time, the outcome of the attempt is
/// stored.
const MARGIN: Duration = Duration::from_secs(10);
/// How long attempts in flight may continue after the `stop` of [`Deliverer::run`].
const STOP_GRACE: Duration = Duration::from_secs(1);
const PURGE_INTERVAL: Duration = Duration::from_secs(60);

impl Deliverer {
    /// Sends due messages until `stop` is canceled. Then waits for the attempts in flight, at most `STOP_GRACE`, gives
    /// back the claims of messages that their receivers have not answered, and returns.
    pub async fn run(self, stop: CancellationToken) {
        let deliverer = Arc::new(self);
        let (done, give_up) = (Arc::new(Notify::new()), CancellationToken::new());
        let mut poll = tokio::time::interval(POLL_INTERVAL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut purge = tokio::time::interval(PURGE_INTERVAL);
        loop {
            for claimed in deliverer.claim().await {
                let (deliverer, done, give_up) = (deliverer.clone(), done.clone(), give_up.clone());
                deliverer.clone().attempts.spawn(async move {
                    let receiver = claimed.receiver.clone();
                    deliverer.deliver(claimed, &give_up).await;
                    deliverer.receivers.leave(&receiver);
                    done.notify_one();
                });
            }
            tokio::select! {
                // The next message of the same generation may be due now.
                () = done.notified() => {}
                _ = poll.tick() => deliverer.count().await,
                _ = purge.tick() => deliverer.purge().await,
                () = stop.cancelled() => break,
            }
        }
        deliverer.attempts.close();
        if tokio::time::timeout(STOP_GRACE, deliverer.attempts.wait()).await.is_err() {
            give_up.cancel();
            deliverer.attempts.wait().await;
        }
    }

    /// Claims due messages until [`Deliverer::max_in_flight`] messages are in flight. A receiver that has at least a
    /// quarter of these messages gets no more for now, so that a receiver that hangs does not delay the others.
    async fn claim(&self) -> Vec<ClaimedDelivery> {
        let share = self.max_in_flight.div_ceil(4);
        let lease = self.timeout.saturating_add(MARGIN);
        let mut all = Vec::new();
        loop {
            let room = self.max_in_flight.saturating_sub(self.attempts.len() + all.len());
            if room == 0 {
                return all;
            }
            match self.store.claim_deliveries(room.min(share), lease, &self.receivers.busy(share)).await {
                Ok(claimed) if claimed.is_empty() => return all,
                Ok(claimed) => {
                    claimed.iter().for_each(|one| self.receivers.enter(&one.receiver));
                    all.extend(claimed);
                }
                Err(error) => {
                    tracing::error!(%error, "webhooks cannot be claimed");
                    return all;
                }
            }
        }
    }

    /// Makes one attempt to send the claimed message, and stores the outcome.
    async fn deliver(&self, claimed: ClaimedDelivery, give_up: &CancellationToken) {
        let ClaimedDelivery { claim, generation, url, secrets, body, attempts, trace, .. } = claimed;
        let secrets = if secrets.is_empty() { self.secret.iter().cloned().collect() } else { secrets };
        let body = linked(body, &self.public_url);
        let mut headers =
            signing::headers(&secrets, claim.id(), time::OffsetDateTime::now_utc().unix_timestamp(), &body);
        let mut span = trace.map(|trace| self.open_span(&trace, generation, attempts));
        headers.extend(span.iter().flat_map(trace_headers));
        let sent = tokio::select! {
            biased;
            sent = self.sender.send(Message { url, headers, body }) => sent,
            () = give_up.cancelled() => {
                // If the claim cannot be given back, it expires by itself.
                if let Err(error) = self.store.release_delivery(claim).await {
                    tracing::warn!(id = %claim.id(), %error, "the claim of a webhook cannot be given back");
                }
                return;
            }
        };
        if let Some(span) = &mut span {
            note_answer(span, sent.answer.status);
        }
        let next = self.retry_schedule.next(sent.answer.status, attempts, sent.retry_after, jitter::between(0.0, 1.0));
        self.metrics.webhook_deliveries.with_label_values(&[result(next)]).inc();
        let (id, status, error) = (claim.id(), sent.answer.status, sent.answer.error.as_deref());
        match next {
            Next::Delivered => tracing::debug!(%id, %generation, "webhook delivered"),
            Next::Retry { after } => {
                tracing::info!(%id, %generation, attempts, status, error, after_s = after.as_secs(), "webhook failed")
            }
            Next::Dead => tracing::warn!(%id, %generation, attempts, status, error, "webhook given up"),
            Next::Gone => tracing::warn!(%id, %generation, "a receiver is gone: its endpoint gets no more webhooks"),
        }
        // If the outcome cannot be stored, the claim expires by itself and the message is sent again.
        if let Err(error) = self.store.settle_delivery(claim, &sent.answer, next).await {
            tracing::error!(%id, %error, "the outcome of a webhook cannot be stored");
        }
    }

    /// Begins the span of a try, below the request of the generation.
    fn open_span(&self, trace: &TraceContext, generation: GenerationId, attempts: u32) -> OpenSpan {
        let mut span = self.tracer.open(Some(trace), "webhook", SpanKind::Client);
        span.set("latentd.generation.id", generation.to_string());
        span.set("latentd.webhook.attempts", attempts);
        span
    }

    async fn count(&self) {
        if let Ok(backlog) = self.store.backlog().await {
            self.metrics.webhook_backlog.set(i64::try_from(backlog).unwrap_or(i64::MAX));
        }
    }

    async fn purge(&self) {
        let purged: Result<(), StoreError> = self.store.purge_deliveries().await;
        if let Err(error) = purged {
            tracing::error!(%error, "old webhooks cannot be erased");
        }
    }
}

/// The headers by which the receiver continues the trace.
fn trace_headers(span: &OpenSpan) -> Vec<(&'static str, String)> {
    let context = span.context();
    let state = Some(context.tracestate()).filter(|state| !state.is_empty());
    let state = state.map(|state| ("tracestate", state.to_owned()));
    std::iter::once(("traceparent", context.traceparent())).chain(state).collect()
}

fn note_answer(span: &mut OpenSpan, status: Option<u16>) {
    match status {
        Some(status) => span.set("http.response.status_code", u32::from(status)),
        None => span.fail("no_answer"),
    }
    if status.is_some_and(|status| !(200..300).contains(&status)) {
        span.fail("refused");
    }
}

/// The label of an outcome in the metric of webhook deliveries.
fn result(next: Next) -> &'static str {
    match next {
        Next::Delivered => "delivered",
        Next::Retry { .. } => "failed",
        Next::Dead => "dead",
        Next::Gone => "gone",
    }
}

impl std::fmt::Debug for Deliverer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deliverer").finish_non_exhaustive()
    }
}
