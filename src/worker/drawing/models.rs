//! A claimed generation's model, in memory.

use std::{
    pin::pin,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use tokio::sync::OwnedSemaphorePermit;

use super::{Drawing, ended_early};
use crate::{
    catalogue::{Acquired, Catalogue, CatalogueError, Lease, OnDevice},
    engine::{Reason, RunError},
    generation::{Draw, Job},
    ledger::Outcome,
    metrics::Metrics,
    service::{Candidate, Placed, TakenMemory},
    worker::executor::{Claimed, Tell, failed},
};

impl Drawing {
    /// Chooses the device that a generation computes on.
    pub(super) fn place(&self, job: &Job) -> Placed {
        let cost = self.catalogue.plan(job).map_or(1.0, |plan| plan.cost);
        self.devices.place(cost, |device| {
            let standing = self.catalogue.standing_on(&job.model, device);
            standing.map_or_else(Candidate::default, |OnDevice { is_there, has_room }| Candidate { is_there, has_room })
        })
    }

    /// The model, the refiner where there is one, and room in the engine, or how the generation ends without them. A cancel
    /// ends the wait at once; a read that has begun goes on for those who come later.
    pub(super) async fn load_models(
        &self,
        claimed: &Claimed,
        draw: &Draw,
        tell: &Tell,
        placed: &Placed,
    ) -> Result<(Lease, Option<Lease>, Room), Outcome> {
        if let Some(reason) = claimed.cancel.reason() {
            return Err(ended_early(RunError::Canceled(reason)));
        }
        let ready = async {
            let job = &claimed.record.job;
            let (lease, refiner) = match &draw.refiner {
                None => (self.acquire(claimed, placed, &job.model, None).await?, None),
                Some(refiner) => {
                    self.catalogue.check_together(&job.model, &refiner.model).map_err(unavailable)?;
                    // One at a time holds a model while it waits for another, so that no two wait for each other.
                    let _turn = self.slots.pair().await.ok_or(Outcome::Released)?;
                    let lease = self.acquire(claimed, placed, &job.model, None).await?;
                    let refiner = self.acquire(claimed, placed, &refiner.model, Some(&lease)).await?;
                    (lease, Some(refiner))
                }
            };
            let room = self.room(job, placed).await?;
            Ok((lease, refiner, room))
        };
        tokio::select! {
            biased;
            () = tell.canceled() => {
                Err(ended_early(RunError::Canceled(claimed.cancel.reason().unwrap_or(Reason::Lost))))
            }
            ready = ready => ready,
        }
    }

    /// Memory for all that it will hold, and then a place.
    async fn room(&self, job: &Job, placed: &Placed) -> Result<Room, Outcome> {
        let plan = self.catalogue.plan(job).unwrap_or_default();
        // Whoever waits for memory does not compute for a while, so that another one may.
        let waiting = self.memory.is_short_of(placed.device, plan).then(|| self.slots.wait());
        if waiting.is_some() {
            self.wake.notify_one();
        }
        let memory = self.memory.take(placed.device, plan).await;
        drop(waiting);
        let slot = self.slots.compute().await.ok_or(Outcome::Released)?;
        Ok(Room { _memory: memory, _slot: slot })
    }

    async fn acquire(
        &self,
        claimed: &Claimed,
        placed: &Placed,
        name: &str,
        held: Option<&Lease>,
    ) -> Result<Lease, Outcome> {
        let mut acquire = pin!(self.catalogue.acquire_beside(placed.device, name, held));
        let first = futures::poll!(acquire.as_mut());
        if let Poll::Ready(Ok(Acquired::Ready(lease))) = first {
            return Ok(lease);
        }
        // It does not compute for a while, so that another one may.
        let _waiting = self.slots.wait();
        self.wake.notify_one();
        let acquired = match first {
            Poll::Ready(acquired) => acquired,
            Poll::Pending => {
                // It was claimed in time; for its model it waits for as long again, at most.
                let patience = Duration::from_secs(claimed.record.job.start_timeout_s.into());
                tokio::time::timeout(patience, acquire).await.map_err(|_| busy(name))?
            }
        };
        read(acquired.map_err(unavailable)?, &self.metrics).await
    }
}

/// What a generation has of the engine while it computes.
#[derive(Debug)]
pub(super) struct Room {
    _memory: TakenMemory,
    _slot: OwnedSemaphorePermit,
}

/// Reads the model if this is the one who has to.
async fn read(acquired: Acquired, metrics: &Metrics) -> Result<Lease, Outcome> {
    let ticket = match acquired {
        Acquired::Ready(lease) => return Ok(lease),
        Acquired::Cold(ticket) => ticket,
    };
    let seconds = metrics.model_load_seconds.clone();
    let read = tokio::task::spawn_blocking(move || {
        let begun = Instant::now();
        let lease = ticket.read();
        seconds.observe(begun.elapsed().as_secs_f64());
        lease
    });
    let lease = read.await.map_err(|error| failed("internal", format!("loading the model: {error}"), true))?;
    lease.map_err(unavailable)
}

fn unavailable(error: CatalogueError) -> Outcome {
    failed("model_unavailable", error.to_string(), false)
}

fn busy(name: &str) -> Outcome {
    let message = format!("other models were in use for so long that there was no room for the model {name:?}");
    failed("overloaded", message, true)
}

/// Loads the models that the server is not ready without.
#[derive(Debug)]
pub struct Preload {
    pub catalogue: Arc<Catalogue>,
    pub metrics: Metrics,
}

impl Preload {
    /// One model after the other, the default one last, so that it is the one to stay where not all of them fit.
    pub async fn run(self) {
        let Preload { catalogue, metrics } = self;
        let mut names = catalogue.awaited();
        names.sort_by_key(|name| name == catalogue.default_name());
        for name in names {
            let loaded = match catalogue.acquire(&name).await {
                Ok(acquired) => read(acquired, &metrics).await,
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
