//! Makes the registry of webhook endpoints and the deliverer of webhook messages.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use tokio_util::task::TaskTracker;

use crate::{
    config,
    ledger::Webhooks,
    metrics::Metrics,
    telemetry::Tracer,
    webhooks::{Deliverer, EndpointRegistry, Guard, Receivers, Resolver, RetrySchedule, Sender, SystemResolver},
};

/// `public_url` is the beginning of the links in messages. `most` is the number of messages in flight that the limit of
/// open files allows. `patience` is the longest time that a call to the store may take; `None` means no limit.
pub(super) fn webhooks(
    settings: &config::Webhooks,
    public_url: &str,
    most: usize,
    store: Arc<dyn Webhooks>,
    patience: Option<Duration>,
    (metrics, tracer): (&Metrics, &Tracer),
) -> Result<(EndpointRegistry, Deliverer)> {
    let (guard, resolver): (_, Arc<dyn Resolver>) = (Arc::new(Guard::new(settings)), Arc::new(SystemResolver));
    let sender = Sender::new(guard.clone(), resolver.clone(), settings.timeout_s.into());
    let deliverer = Deliverer {
        store: store.clone(),
        sender: sender.context("webhooks cannot be sent")?,
        retry_schedule: RetrySchedule::new(settings.waits()),
        secret: settings.secret.clone(),
        max_in_flight: most,
        timeout: settings.timeout_s.into(),
        public_url: public_url.to_owned(),
        metrics: metrics.clone(),
        tracer: tracer.clone(),
        attempts: TaskTracker::new(),
        receivers: Receivers::default(),
    };
    Ok((EndpointRegistry::new(store, patience, guard, resolver, settings), deliverer))
}
