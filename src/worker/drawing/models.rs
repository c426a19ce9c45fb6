//! Loads the models of a claimed generation and waits for memory and a slot.

use std::{
    pin::pin,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use tokio::sync::OwnedSemaphorePermit;

use super::{Drawing, ended_early};
use crate::{
    catalogue::{Acquired, Catalogue, CatalogueError, ControlLease, ModelLease, OnDevice},
    device::Fault,
    engine::{Reason, RunError},
    generation::{Job, Work},
    kernels::arena,
    ledger::Outcome,
    metrics::Metrics,
    service::{Candidate, Placed, TakenMemory},
    worker::executor::{Claimed, RunReporter, failed},
};

impl Drawing {
    /// Chooses the device that computes a generation; `None` if all devices have failed.
    pub(super) fn place(&self, job: &Job) -> Option<Placed> {
        let cost = self.catalogue.plan(job).map_or(1.0, |plan| plan.cost);
        self.devices.place(cost, |device| {
            let standing = self.catalogue.standing_on(&job.model, device);
            standing.map_or_else(Candidate::default, |OnDevice { is_there, has_room }| Candidate { is_there, has_room })
        })
    }

    /// Acquires the model, the refiner if there is one, room for the ControlNets, memory and a slot. The error is the
    /// outcome of a generation that cannot get all of these. A cancel ends the wait at once; a load that has begun
    /// continues for later generations.
    pub(super) async fn load_models(
        &self,
        claimed: &Claimed,
        work: &Work,
        tell: &RunReporter,
        placed: &Placed,
    ) -> Result<(ModelLease, Option<ModelLease>, Room), Outcome> {
        if let Some(reason) = claimed.cancel.reason() {
            return Err(ended_early(RunError::Canceled(reason), work));
        }
        let ready = async {
            let job = &claimed.record.job;
            let (lease, refiner) = match work.draw().and_then(|draw| draw.refiner.as_ref()) {
                None => (self.acquire(claimed, placed, &job.model, None).await?, None),
                Some(refiner) => {
                    self.catalogue.check_together(placed.device, &job.model, &refiner.model).map_err(unavailable)?;
                    // Only one generation at a time holds a model while it waits for another model, so that no two
                    // generations wait for each other.
                    let _turn = self.slots.pair().await.ok_or(Outcome::Released)?;
                    let lease = self.acquire(claimed, placed, &job.model, None).await?;
                    let refiner = self.acquire(claimed, placed, &refiner.model, Some(&lease)).await?;
                    (lease, Some(refiner))
                }
            };
            let control_nets = Arc::new(self.control_nets(job, &lease).await?);
            let room = self.room(job, placed, control_nets).await?;
            Ok((lease, refiner, room))
        };
        tokio::select! {
            biased;
            () = tell.until_canceled() => {
                Err(ended_early(RunError::Canceled(claimed.cancel.reason().unwrap_or(Reason::Lost)), work))
            }
            ready = ready => ready,
        }
    }

    /// Waits until there is memory for the ControlNets in addition to the ControlNets of other generations, for at most
    /// `start_timeout_s`.
    async fn control_nets(&self, job: &Job, model: &ModelLease) -> Result<ControlLease, Outcome> {
        let mut lease = pin!(self.catalogue.lease_control_nets(job, &model.model().device));
        if let Poll::Ready(lease) = futures::poll!(lease.as_mut()) {
            return Ok(lease);
        }
        // A generation that waits does not compute, so another generation may be claimed meanwhile.
        let _waiting = self.slots.wait();
        self.wake.notify_one();
        tokio::time::timeout(patience(job), lease).await.map_err(|_| busy("the ControlNets", "ControlNets"))
    }

    /// Waits for the memory that the generation needs, then for a slot.
    async fn room(&self, job: &Job, placed: &Placed, control_nets: Arc<ControlLease>) -> Result<Room, Outcome> {
        let plan = self.catalogue.plan(job).unwrap_or_default();
        let plan = self.catalogue.devices().get(placed.device).map_or(plan, |device| plan.on_host(device));
        // A generation that waits for memory does not compute, so another generation may be claimed meanwhile.
        let waiting = self.memory.is_short_of(placed.device, plan).then(|| self.slots.wait());
        if waiting.is_some() {
            self.wake.notify_one();
        }
        let memory = self.memory.take(placed.device, plan).await;
        drop(waiting);
        let slot = self.slots.compute().await.ok_or(Outcome::Released)?;
        Ok(Room { control_nets, _memory: memory, _slot: slot })
    }

    async fn acquire(
        &self,
        claimed: &Claimed,
        placed: &Placed,
        name: &str,
        held: Option<&ModelLease>,
    ) -> Result<ModelLease, Outcome> {
        let mut acquire = pin!(self.catalogue.acquire_beside(placed.device, name, held));
        let first = futures::poll!(acquire.as_mut());
        if let Poll::Ready(Ok(Acquired::Ready(lease))) = first {
            return Ok(lease);
        }
        // The generation does not compute while it waits for its model, so another generation may be claimed meanwhile.
        let _waiting = self.slots.wait();
        self.wake.notify_one();
        let acquired = match first {
            Poll::Ready(acquired) => acquired,
            Poll::Pending => {
                let patience = patience(&claimed.record.job);
                tokio::time::timeout(patience, acquire)
                    .await
                    .map_err(|_| busy(&format!("the model {name:?}"), "models"))?
            }
        };
        let failed = |error: CatalogueError| {
            let text = error.to_string();
            self.not_loaded(claimed, placed.device, &text, |_| unavailable(error))
        };
        read(acquired.map_err(failed)?, &self.metrics).await?.map_err(failed)
    }

    /// The outcome of a generation after something could not be loaded into the memory of a device. If the cause is not
    /// the device (neither too little memory nor a lost device), `other` makes the outcome from the error's text. A
    /// device that was lost during the load gets no more generations, and another device computes this generation.
    pub(super) fn not_loaded(
        &self,
        claimed: &Claimed,
        device: usize,
        error: &str,
        other: impl FnOnce(String) -> Outcome,
    ) -> Outcome {
        match Fault::of_text(error) {
            Fault::Call => other(error.to_owned()),
            // There may be enough memory later, when other generations have ended.
            Fault::OutOfMemory => failed("out_of_memory", error.to_owned(), true),
            Fault::Lost => {
                // Another generation has lost the device before.
                if self.devices.loads().get(device).is_some_and(|load| load.failed) {
                    return Outcome::Released;
                }
                tracing::error!(device, "a device is lost: {error}");
                self.devices.fail(device);
                self.catalogue.unload_from(device);
                claimed.device_lost(&format!("a device was lost: {error}"))
            }
        }
    }
}

/// The memory and the slot of a generation while it computes.
#[derive(Debug)]
pub(super) struct Room {
    pub control_nets: Arc<ControlLease>,
    _memory: TakenMemory,
    _slot: OwnedSemaphorePermit,
}

/// Loads the model if `acquired` says that this generation must load it. Returns the guard that keeps the model in
/// memory, or why the model cannot be loaded. The outer error is the outcome after a panic.
async fn read(acquired: Acquired, metrics: &Metrics) -> Result<Result<ModelLease, CatalogueError>, Outcome> {
    let ticket = match acquired {
        Acquired::Ready(lease) => return Ok(Ok(lease)),
        Acquired::Cold(ticket) => ticket,
    };
    let seconds = metrics.model_load_seconds.clone();
    let read = tokio::task::spawn_blocking(move || {
        let begun = Instant::now();
        let lease = ticket.read();
        seconds.observe(begun.elapsed().as_secs_f64());
        // Reading a model leaves many freed blocks, about 30 MiB for the embedded model. `trim` returns the blocks to
        // the system.
        arena::trim();
        lease
    });
    read.await.map_err(|error| failed("internal", format!("loading the model: {error}"), true))
}

fn unavailable(error: CatalogueError) -> Outcome {
    failed("model_unavailable", error.to_string(), false)
}

/// How long a generation that has started waits for its model, for its refiner, and for its ControlNets: for each of
/// them at most `start_timeout_s`.
fn patience(job: &Job) -> Duration {
    Duration::from_secs(job.start_timeout_s.into())
}

fn busy(what: &str, others: &str) -> Outcome {
    failed("overloaded", format!("no memory became free in time for {what}: other {others} were in use"), true)
}

/// Loads the models that must be in memory before the server reports that it is ready.
#[derive(Debug)]
pub struct Preload {
    pub catalogue: Arc<Catalogue>,
    pub metrics: Metrics,
}

impl Preload {
    /// Loads one model after the other. The default model is the last, so that it stays in memory if not all of them
    /// fit.
    pub async fn run(self) {
        let Preload { catalogue, metrics } = self;
        let mut names = catalogue.awaited();
        names.sort_by_key(|name| name == catalogue.default_name());
        for name in names {
            let loaded = match catalogue.acquire(&name).await {
                Ok(acquired) => read(acquired, &metrics).await.and_then(|read| read.map_err(unavailable)),
                Err(error) => Err(unavailable(error)),
            };
            match loaded {
                Ok(_) => tracing::info!(model = name, "the model is ready"),
                Err(Outcome::Failed(problem)) => tracing::error!(model = name, "{}", problem.message),
                Err(_) => {}
            }
        }
    }
}
