//! The desk of webhooks, and what sends them.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use tokio_util::task::TaskTracker;

use crate::{
    config,
    ledger::Webhooks,
    metrics::Metrics,
    webhooks::{Courier, Guard, Receivers, Registry, Resolver, Schedule, Sender, SystemResolver},
};

pub(super) fn webhooks(
    settings: &config::Webhooks,
    store: Arc<dyn Webhooks>,
    patience: Option<Duration>,
    metrics: &Metrics,
) -> Result<(Registry, Courier)> {
    let (guard, resolver): (_, Arc<dyn Resolver>) = (Arc::new(Guard::new(settings)), Arc::new(SystemResolver));
    let sender = Sender::new(guard.clone(), resolver.clone(), settings.timeout_s.into());
    let courier = Courier {
        store: store.clone(),
        sender: sender.context("webhooks cannot be sent")?,
        schedule: Schedule::new(settings.waits()),
        secret: settings.secret.clone(),
        max_in_flight: settings.max_in_flight.get(),
        timeout: settings.timeout_s.into(),
        metrics: metrics.clone(),
        tries: TaskTracker::new(),
        receivers: Receivers::default(),
    };
    Ok((Registry::new(store, patience, guard, resolver, settings), courier))
}
