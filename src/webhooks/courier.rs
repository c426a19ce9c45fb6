//! The loop over what is outgoing.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Notify, time::MissedTickBehavior};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    receivers::Receivers,
    schedule::Schedule,
    sender::{Parcel, Sender},
    signing,
};
use crate::{
    generation::SigningSecret,
    ledger::{ClaimedDelivery, Next, StoreError, Webhooks},
    metrics::Metrics,
};

/// What sends webhooks. Its work is [`Courier::run`].
pub struct Courier {
    pub store: Arc<dyn Webhooks>,
    pub sender: Sender,
    pub schedule: Schedule,
    /// Signs for addresses that a request has named.
    pub secret: Option<SigningSecret>,
    /// Messages under way at the same time.
    pub max_in_flight: usize,
    /// How long one try may take.
    pub timeout: Duration,
    pub metrics: Metrics,
    /// Where the tries run.
    pub tries: TaskTracker,
    pub receivers: Receivers,
}

/// What became due without a wake-up is found at the latest after this time.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// A claim outlasts its try by this time, in which the answer is written.
const MARGIN: Duration = Duration::from_secs(10);
/// Tries under way at the end may still be answered for so long.
const FAREWELL: Duration = Duration::from_secs(1);
const PURGE_INTERVAL: Duration = Duration::from_secs(60);

impl Courier {
    /// Sends until `stop`, then gives back what has not been answered and returns.
    pub async fn run(self, stop: CancellationToken) {
        let courier = Arc::new(self);
        let (done, farewell) = (Arc::new(Notify::new()), CancellationToken::new());
        let mut poll = tokio::time::interval(POLL_INTERVAL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut purge = tokio::time::interval(PURGE_INTERVAL);
        loop {
            for claimed in courier.claim().await {
                let (courier, done, farewell) = (courier.clone(), done.clone(), farewell.clone());
                courier.clone().tries.spawn(async move {
                    let receiver = claimed.receiver.clone();
                    courier.deliver(claimed, &farewell).await;
                    courier.receivers.leave(&receiver);
                    done.notify_one();
                });
            }
            tokio::select! {
                // The next message of the same generation may be due now.
                () = done.notified() => {}
                _ = poll.tick() => courier.count().await,
                _ = purge.tick() => courier.purge().await,
                () = stop.cancelled() => break,
            }
        }
        courier.tries.close();
        if tokio::time::timeout(FAREWELL, courier.tries.wait()).await.is_err() {
            farewell.cancel();
            courier.tries.wait().await;
        }
    }

    /// What is due, as far as there is room. One receiver may have about a quarter of it, so that one that hangs does not keep
    /// the others waiting.
    async fn claim(&self) -> Vec<ClaimedDelivery> {
        let share = self.max_in_flight.div_ceil(4);
        let lease = self.timeout.saturating_add(MARGIN);
        let mut all = Vec::new();
        loop {
            let room = self.max_in_flight.saturating_sub(self.tries.len() + all.len());
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

    /// One try, from its claim to what it has come to.
    async fn deliver(&self, claimed: ClaimedDelivery, farewell: &CancellationToken) {
        let ClaimedDelivery { claim, generation, url, secrets, body, attempts, .. } = claimed;
        let secrets = if secrets.is_empty() { self.secret.iter().cloned().collect() } else { secrets };
        let headers = signing::headers(&secrets, claim.id(), time::OffsetDateTime::now_utc().unix_timestamp(), &body);
        let sent = tokio::select! {
            biased;
            sent = self.sender.send(Parcel { url, headers, body }) => sent,
            () = farewell.cancelled() => {
                // Where this fails too, the claim ends by itself.
                if let Err(error) = self.store.release_delivery(claim).await {
                    tracing::warn!(id = %claim.id(), %error, "a webhook cannot be given back");
                }
                return;
            }
        };
        let next = self.schedule.next(sent.answer.status, attempts, sent.retry_after, random());
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
        // Where this fails, the claim ends by itself and the message is sent again.
        if let Err(error) = self.store.settle_delivery(claim, &sent.answer, next).await {
            tracing::error!(%id, %error, "what a webhook has come to cannot be written");
        }
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

/// The label of the metric.
fn result(next: Next) -> &'static str {
    match next {
        Next::Delivered => "delivered",
        Next::Retry { .. } => "failed",
        Next::Dead => "dead",
        Next::Gone => "gone",
    }
}

/// In 0..1.
fn random() -> f64 {
    getrandom::u32().map_or(0.5, |random| f64::from(random) / f64::from(u32::MAX))
}

impl std::fmt::Debug for Courier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Courier").finish_non_exhaustive()
    }
}
