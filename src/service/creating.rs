//! From a request to a durable generation, once.

use std::{sync::Arc, time::Duration};

use super::{
    Created, Order, Parts, Repeatable, Service, ServiceError, View, intake, offload::offload, rules::CatalogueRules,
    unclaimed::Unclaimed,
};
use crate::{
    catalogue::Plan,
    generation::{Draw, FieldError, GenerationId, Invalid, Job, Work, resolve},
    ledger::{Acceptance, Accepted, Fingerprint, Hint, Refusal, StoreError},
};

/// A request that was found valid and whose pictures are stored. Dropped, it leaves nothing behind.
pub struct Prepared(Outcome);

enum Outcome {
    /// The same request was accepted before.
    Replayed(Box<View>),
    New(Box<Valid>),
}

struct Valid {
    id: GenerationId,
    tenant: Arc<str>,
    job: Job,
    /// As its plan has it.
    cost: f64,
    fingerprint: Fingerprint,
    repeatable: Repeatable,
    /// Pictures that are not stored yet, since the id may be another's.
    taken: Vec<intake::Taken>,
    unclaimed: Unclaimed,
}

impl Service {
    /// Prepares a generation and accepts it: after this returns it is durable.
    ///
    /// # Errors
    /// Those of [`Service::prepare`] and [`Service::accept`].
    pub async fn create(&self, order: Order) -> Result<Created, ServiceError> {
        self.accept(self.prepare(order).await?).await
    }

    /// Everything up to the acceptance, cheap things first: whether the same request was there before, what its fields say,
    /// whether it would wait too long, and only then the pixels of its pictures. Stops where this future is dropped.
    ///
    /// # Errors
    /// All invalid fields at once (of pictures that cannot be decoded the first alone), a queue that is too slow, a key or an
    /// id that stands for another request, a stopping server, or a store that does not answer.
    pub async fn prepare(&self, order: Order) -> Result<Prepared, ServiceError> {
        let Parts { webhooks, metrics, draining, terms, .. } = &self.0.parts;
        if draining.is_cancelled() {
            return Err(ServiceError::Draining);
        }
        let Order { tenant, fields, repeatable, format } = order;
        let bytes = fields.body_bytes();
        let (mut fields, fingerprint) = offload(bytes, move || {
            let fingerprint = fields.fingerprint();
            (fields, fingerprint)
        })
        .await;
        if let Repeatable::ByKey(key) = &repeatable
            && let Some(view) = self.made_by(&tenant, key, &fingerprint).await?
        {
            metrics.replayed.inc();
            return Ok(Prepared(Outcome::Replayed(Box::new(view))));
        }
        let (id, is_taken) = match &repeatable {
            Repeatable::ById(id) => (*id, self.is_taken(*id, &tenant).await?),
            Repeatable::No | Repeatable::ByKey(_) => (GenerationId::new(), false),
        };
        if !is_taken {
            webhooks.check(&mut fields, &tenant).await?;
        }
        let (mut fields, pictures) = intake::look(fields, &tenant, self).await?;
        fields.put_default("start_timeout_s", terms.start_timeout_s);
        if let Some(format) = format {
            fields.put_default_below("output", "format", format.name());
        }
        let service = self.clone();
        // The pictures of the body are in memory for longer than its fields.
        let (resolved, _hold) = offload(bytes, move || {
            let hold = fields.take_hold();
            let Parts { catalogue, limits, .. } = &service.0.parts;
            let size_field = if fields.has("size") { "size" } else { "width" };
            let resolved = resolve(fields, &CatalogueRules { catalogue, limits }).map_err(ServiceError::from);
            let planned = resolved.and_then(|job| Ok((service.planned(&job, size_field)?, job)));
            (planned, hold)
        })
        .await;
        let (plan, mut job) = resolved?;
        if !is_taken {
            self.check_run_timeout(&job, plan.cost)?;
            self.admit(&job, plan).await?;
            self.check_lora_numbers(&job).await?;
        }
        // Under an id that the client has chosen the files may be another generation's.
        let unclaimed = match &repeatable {
            Repeatable::No | Repeatable::ByKey(_) if !pictures.is_empty() => Unclaimed::files_of(id, self),
            _ => Unclaimed::nothing(),
        };
        let taken = intake::take_in(pictures, &mut job, id, is_taken, &unclaimed, self).await?;
        let valid = Valid { id, tenant, job, cost: plan.cost, fingerprint, repeatable, taken, unclaimed };
        Ok(Prepared(Outcome::New(Box::new(valid))))
    }

    /// Accepts a prepared generation: after this returns it is durable.
    ///
    /// # Errors
    /// A queue that is full, a key or an id that stands for another request, or a store that does not answer.
    pub async fn accept(&self, Prepared(outcome): Prepared) -> Result<Created, ServiceError> {
        let valid = match outcome {
            Outcome::Replayed(view) => return Ok(Created { view: *view, replayed: true }),
            Outcome::New(valid) => *valid,
        };
        let Valid { id, tenant, job, cost, fingerprint, repeatable, taken, unclaimed } = valid;
        let Parts { store, blobs, metrics, wake, terms, .. } = &self.0.parts;
        let acceptance = Acceptance {
            id,
            tenant: &tenant,
            job: &job,
            fingerprint,
            key: match &repeatable {
                Repeatable::ByKey(key) => Some((key, terms.idempotency)),
                Repeatable::No | Repeatable::ById(_) => None,
            },
            cost,
            max_queued: terms.max_queued,
        };
        // Nobody may erase them from here on who does not know whether the generation was accepted.
        let has_files = unclaimed.claim();
        match self.bounded(store.accept(&acceptance)).await {
            Ok(Accepted::New(record)) => {
                // The generation of this id was erased a moment ago, and what the request brings along with it.
                for taken in &taken {
                    intake::keep(taken, id, blobs).await?;
                }
                metrics.accepted.inc();
                wake.notify_one();
                self.0.outbox.tell(Hint::Queued);
                Ok(Created { view: self.view(record).await?, replayed: false })
            }
            Ok(Accepted::Again(record)) => {
                if has_files {
                    self.erase_blobs(id).await;
                }
                metrics.replayed.inc();
                Ok(Created { view: self.view(record).await?, replayed: true })
            }
            Err(error) => {
                // After any other error the generation may be there all the same.
                if has_files && is_refusal(&error) {
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
            return Err(Refusal::KeyReused.into());
        }
        match self.ask(self.0.store.get(id)).await? {
            Some(record) => self.view(record).await.map(Some),
            None => Ok(None),
        }
    }

    /// Whether there is a generation of this id. Only its own tenant may ask for it again.
    async fn is_taken(&self, id: GenerationId, tenant: &str) -> Result<bool, ServiceError> {
        match self.ask(self.0.store.get(id)).await? {
            Some(record) if record.tenant != tenant => Err(Refusal::IdTaken.into()),
            Some(_) => Ok(true),
            None => Ok(false),
        }
    }

    /// What a generation takes. Refuses one that takes more memory than a worker has; `size_field` is the field by which the
    /// request names its size.
    fn planned(&self, job: &Job, size_field: &str) -> Result<Plan, ServiceError> {
        let Work::Draw(draw) = &job.work;
        let plan = |n| {
            let work = Work::Draw(Draw { n, ..draw.clone() });
            self.0.catalogue.plan(&Job { work, ..job.clone() }).unwrap_or_default()
        };
        let (whole, bound) = (plan(draw.n), self.0.terms.max_bytes);
        let fits = |plan: Plan| bound.is_none_or(|bound| plan.bytes() <= bound);
        if fits(whole) {
            return Ok(whole);
        }
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        let bound = format!("engine.max_bytes is {} MiB", mib(bound.unwrap_or(0)));
        let Draw { n, width, height, .. } = draw;
        let (field, detail) = match (1..*n).rev().find(|n| fits(plan(*n))) {
            Some(most) => {
                let takes = format!("{n} pictures of {width} × {height} pixels take {} MiB", mib(whole.bytes()));
                ("n", format!("must be at most {most}: {takes}, and {bound}"))
            }
            None => {
                let takes = format!("one picture of {width} × {height} pixels takes {} MiB", mib(plan(1).bytes()));
                let subject = if size_field == "size" { "must be" } else { "and height must be" };
                (size_field, format!("{subject} smaller: {takes}, and {bound}"))
            }
        };
        let error = FieldError { pointer: format!("/{field}"), code: "out_of_range", detail };
        Err(ServiceError::Invalid(Invalid { errors: vec![error] }))
    }

    /// Refuses a time that the run cannot keep, by less than half, even if nothing runs beside it. Other processes may be
    /// faster, so that this one knows it only where it is alone.
    fn check_run_timeout(&self, job: &Job, cost: f64) -> Result<(), ServiceError> {
        const MARGIN: f64 = 2.0;
        let Parts { throughput, store, .. } = &self.0.parts;
        let least = throughput.least_seconds(&job.model, cost).filter(|_| !store.is_shared());
        let (Some(asked), Some(least)) = (job.run_timeout_s, least) else { return Ok(()) };
        if least <= MARGIN * f64::from(asked) {
            return Ok(());
        }
        let detail = format!(
            "must be at least {:.0}: alone and at the best recent speed of the model {:?} the generation takes about \
             {:.0} s; less than half of that is refused, such as {asked}",
            (least / MARGIN).ceil(),
            job.model,
            least.ceil(),
        );
        Err(ServiceError::Invalid(Invalid {
            errors: vec![FieldError::at(&["run_timeout_s"], "out_of_range", &detail)],
        }))
    }

    /// Refuses what would wait too long to be worth its place.
    async fn admit(&self, job: &Job, plan: Plan) -> Result<(), ServiceError> {
        let Some(wait) = self.estimated_wait_of(plan).await? else { return Ok(()) };
        let bound = self.0.terms.max_wait.min(Duration::from_secs(job.start_timeout_s.into()));
        if wait <= bound {
            return Ok(());
        }
        let (wait_s, bound_s) = (wait.as_secs_f64().ceil() as u64, bound.as_secs());
        Err(ServiceError::Overloaded { wait_s, bound_s, retry_after_s: bounded_s(wait - bound) })
    }

    /// When a generation that is accepted now would begin, however little memory it takes: at once while a worker has a free
    /// slot. `None` where no worker has shown its speed.
    pub async fn estimated_wait(&self) -> Result<Option<Duration>, ServiceError> {
        self.estimated_wait_of(Plan::default()).await
    }

    /// When a generation of this plan that is accepted now would begin: it waits for a slot, and for memory beside those that
    /// have slots. Of the memory of other processes nothing is known.
    async fn estimated_wait_of(&self, plan: Plan) -> Result<Option<Duration>, ServiceError> {
        let load = self.ask(self.0.store.workload(self.0.terms.lately, self.0.terms.slots)).await?;
        // What waits for a slot waits for all of those that compute, so that neither wait comes on top of the other.
        let room = if self.0.store.is_shared() { 0.0 } else { self.0.memory.until_room(plan) };
        let cost = load.cost.max(room);
        Ok((load.speed > 0.0).then(|| Duration::try_from_secs_f64(cost / load.speed).unwrap_or(Duration::MAX)))
    }

    /// A refusal of the store with when to come back.
    async fn refused(&self, error: StoreError) -> ServiceError {
        let after = async |queued| match self.estimated_wait().await {
            Ok(Some(wait)) => bounded_s(wait),
            // Nobody has shown a speed, so that nothing is known but how many wait.
            _ => bounded_s(Duration::from_secs(queued as u64)),
        };
        match error {
            StoreError::Refused(refusal @ (Refusal::QueueFull { queued } | Refusal::TenantQueueFull { queued })) => {
                ServiceError::Refused { refusal, retry_after_s: after(queued).await }
            }
            error => error.into(),
        }
    }
}

/// Whether nothing was accepted for certain.
fn is_refusal(error: &StoreError) -> bool {
    matches!(error, StoreError::Refused(_) | StoreError::StorageFull)
}

/// Seconds to tell a client.
fn bounded_s(wait: Duration) -> u64 {
    wait.as_secs_f64().ceil().clamp(1.0, 600.0) as u64
}
