//! From a request to a durable generation, once.

use std::time::Duration;

use super::{Created, Order, Parts, Repeatable, Service, ServiceError, View, intake, rules::CatalogueRules};
use crate::{
    generation::{Generation, GenerationId, resolve},
    ledger::{Acceptance, Accepted, Fingerprint, Hint, StoreError},
};

impl Service {
    /// Accepts a generation: after this returns it is durable. A request that was accepted before is answered with its
    /// generation, before any work.
    ///
    /// # Errors
    /// All invalid fields at once, a queue that is full or too slow, a key or an id that stands for another request, a
    /// stopping server, or a store that does not answer.
    pub async fn create(&self, order: Order) -> Result<Created, ServiceError> {
        let Parts { store, blobs, webhooks, metrics, wake, draining, terms, .. } = &self.0.parts;
        if draining.is_cancelled() {
            return Err(ServiceError::Draining);
        }
        let Order { tenant, mut fields, repeatable } = order;
        let fingerprint = fields.fingerprint();
        if let Repeatable::ByKey(key) = &repeatable
            && let Some(view) = self.made_by(&tenant, key, &fingerprint).await?
        {
            metrics.replayed.inc();
            return Ok(Created { view, replayed: true });
        }
        let (id, is_taken) = match repeatable {
            Repeatable::ById(id) => (id, self.is_taken(id, &tenant).await?),
            Repeatable::No | Repeatable::ByKey(_) => (GenerationId::new(), false),
        };
        if !is_taken {
            webhooks.check(&mut fields, &tenant).await?;
        }
        let taken = intake::take_in(&mut fields, &tenant, store.as_ref(), blobs).await?;
        fields.put_default("start_timeout_s", terms.start_timeout_s);
        let generation = resolve(fields, &CatalogueRules { catalogue: &self.0.catalogue, limits: &self.0.limits })?;
        if !is_taken {
            self.admit(&generation).await?;
            intake::keep(&taken, id, blobs).await?;
        }
        let acceptance = Acceptance {
            id,
            tenant: &tenant,
            generation: &generation,
            fingerprint,
            key: match &repeatable {
                Repeatable::ByKey(key) => Some((key, terms.idempotency)),
                Repeatable::No | Repeatable::ById(_) => None,
            },
            cost: generation.cost(),
            max_queued: terms.max_queued,
        };
        let accepted = self.bounded(store.accept(&acceptance)).await;
        // What was stored for a generation that never came to be; under an id that the client has chosen it may be another's.
        let is_ours = !matches!(repeatable, Repeatable::ById(_)) && generation.inputs().next().is_some();
        match accepted {
            Ok(Accepted::New(record)) => {
                if is_taken {
                    // It was erased a moment ago, and what the request brings along with it.
                    intake::keep(&taken, id, blobs).await?;
                }
                metrics.accepted.inc();
                wake.notify_one();
                self.0.outbox.tell(Hint::Queued);
                Ok(Created { view: self.view(record).await?, replayed: false })
            }
            Ok(Accepted::Again(record)) => {
                if is_ours {
                    self.erase_blobs(id).await;
                }
                metrics.replayed.inc();
                Ok(Created { view: self.view(record).await?, replayed: true })
            }
            Err(error) => {
                // After any other error the generation may be there all the same.
                if is_ours && is_refusal(&error) {
                    self.erase_blobs(id).await;
                }
                Err(self.refused(error).await)
            }
        }
    }

    /// The generation that this idempotency key has made, if it is kept.
    async fn made_by(&self, tenant: &str, key: &str, asked: &Fingerprint) -> Result<Option<View>, ServiceError> {
        let Some((id, fingerprint)) = self.ask(self.0.store.find_accepted(tenant, key)).await? else { return Ok(None) };
        if fingerprint != *asked {
            return Err(ServiceError::KeyReused);
        }
        match self.ask(self.0.store.get(id)).await? {
            Some(record) => self.view(record).await.map(Some),
            None => Ok(None),
        }
    }

    /// Whether there is a generation of this id. Only its own tenant may ask for it again.
    async fn is_taken(&self, id: GenerationId, tenant: &str) -> Result<bool, ServiceError> {
        match self.ask(self.0.store.get(id)).await? {
            Some(record) if record.tenant != tenant => Err(ServiceError::IdTaken),
            Some(_) => Ok(true),
            None => Ok(false),
        }
    }

    /// Refuses what would wait too long to be worth its place.
    async fn admit(&self, generation: &Generation) -> Result<(), ServiceError> {
        let Some(wait) = self.estimated_wait().await? else { return Ok(()) };
        let bound = self.0.terms.max_wait.min(Duration::from_secs(generation.start_timeout_s.into()));
        // What runs shares the workers with what comes, so that as long as nothing waits nothing has to.
        if wait <= bound || self.ask(self.0.store.counts()).await?.queued == 0 {
            return Ok(());
        }
        let (wait_s, bound_s) = (wait.as_secs_f64().ceil() as u64, bound.as_secs());
        Err(ServiceError::Overloaded { wait_s, bound_s, retry_after_s: bounded_s(wait - bound) })
    }

    /// How long the workers have to do with what waits and runs; `None` where none has shown its speed.
    async fn estimated_wait(&self) -> Result<Option<Duration>, ServiceError> {
        let load = self.ask(self.0.store.workload(self.0.terms.lately)).await?;
        Ok((load.speed > 0.0).then(|| Duration::try_from_secs_f64(load.cost / load.speed).unwrap_or(Duration::MAX)))
    }

    /// A refusal of the store with when to come back.
    async fn refused(&self, error: StoreError) -> ServiceError {
        let after = async |queued| match self.estimated_wait().await {
            Ok(Some(wait)) => bounded_s(wait),
            _ => bounded_s(Duration::from_secs_f64(self.pace().map_or(1.0, |pace| pace.until_start(queued)))),
        };
        match error {
            StoreError::QueueFull { queued } => ServiceError::QueueFull { queued, retry_after_s: after(queued).await },
            StoreError::TenantQueueFull { queued } => {
                ServiceError::TenantQueueFull { queued, retry_after_s: after(queued).await }
            }
            error => error.into(),
        }
    }
}

/// Whether nothing was accepted for certain.
fn is_refusal(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::QueueFull { .. }
            | StoreError::TenantQueueFull { .. }
            | StoreError::KeyReused
            | StoreError::IdTaken
            | StoreError::StorageFull
    )
}

/// Seconds to tell a client.
fn bounded_s(wait: Duration) -> u64 {
    wait.as_secs_f64().ceil().clamp(1.0, 600.0) as u64
}
