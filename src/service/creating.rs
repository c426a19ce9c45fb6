//! Creates durable generations from requests, each at most once.

use std::time::Duration;

use super::{
    Caller, CreateRequest, Created, Parts, Repeatable, Service, ServiceError, View, intake, offload::offload,
    rules::CatalogueRules, unaccepted_files::UnacceptedFiles,
};
use crate::{
    catalogue::{Plan, TooLarge},
    generation::{Draw, FieldError, Film, GenerationId, Invalid, Job, Priority, Sound, Work, WorkKind, resolve_work},
    ledger::{Acceptance, Accepted, Fingerprint, Hint, Newcomer, Refusal, StoreError},
};

/// A valid request whose pictures are stored, or a repeated request. Dropping this value erases the stored pictures,
/// unless the client has chosen the id of the generation.
pub struct Prepared(Outcome);

enum Outcome {
    /// The same request was accepted before.
    Replayed(Box<View>),
    New(Box<Valid>),
}

struct Valid {
    id: GenerationId,
    caller: Caller,
    job: Job,
    /// The cost of the plan, in 10⁹ multiplications.
    cost: f64,
    fingerprint: Fingerprint,
    repeatable: Repeatable,
    /// Pictures that are not stored yet, because a generation with this id existed when the request was prepared.
    uploads: Vec<intake::StoredUpload>,
    unaccepted_files: UnacceptedFiles,
}

impl Service {
    /// Prepares and accepts a generation. The generation is durable when this function returns.
    ///
    /// # Errors
    /// Those of [`Service::prepare`] and [`Service::accept`].
    pub async fn create(&self, request: CreateRequest) -> Result<Created, ServiceError> {
        self.accept(self.prepare(request).await?).await
    }

    /// Does all work before the acceptance, the cheapest work first: looks for an earlier equal request, checks the
    /// fields and the expected wait, and then decodes the pictures. Dropping the future stops the preparation.
    ///
    /// # Errors
    /// All invalid fields at once (but only the first picture that cannot be decoded), a refused prompt, a generation
    /// that needs too much memory, a `run_timeout_s` below half of the expected time, a model that the API key may not
    /// use, a limit of the key, an expected wait that is too long, an idempotency key or an id that belongs to another
    /// request, a stopping server, or a store that does not answer.
    pub async fn prepare(&self, request: CreateRequest) -> Result<Prepared, ServiceError> {
        let Parts { webhooks, metrics, draining, accept_policy, .. } = &self.0.parts;
        if draining.is_cancelled() {
            return Err(ServiceError::Draining);
        }
        let CreateRequest { caller, kind, fields, repeatable, format } = request;
        let tenant = caller.tenant.clone();
        let bytes = fields.body_bytes();
        let (mut fields, fingerprint) = offload(bytes, move || {
            let fingerprint = fields.fingerprint(kind);
            (fields, fingerprint)
        })
        .await;
        if let Repeatable::ByKey(key) = &repeatable
            && let Some(view) = self.made_by(&tenant, key, &fingerprint).await?
        {
            metrics.repeated.inc();
            return Ok(Prepared(Outcome::Replayed(Box::new(view))));
        }
        let (id, is_taken) = match &repeatable {
            Repeatable::ById(id) => (*id, self.is_taken(*id, &tenant).await?),
            Repeatable::No | Repeatable::ByKey(_) => (GenerationId::new(), false),
        };
        if !is_taken {
            webhooks.check(&mut fields, &tenant).await?;
        }
        let (mut fields, pictures) = intake::inspect_pictures(fields, &tenant, self).await?;
        fields.put_default("start_timeout_s", accept_policy.start_timeout_s);
        if let Some(format) = format {
            fields.put_default_below("output", "format", format.name());
        }
        let service = self.clone();
        // The permit for the body's memory is kept until this function ends, because the pictures stay in memory longer
        // than the fields.
        let (resolved, _hold) = offload(bytes, move || {
            let hold = fields.take_hold();
            let Parts { catalogue, limits, .. } = &service.0.parts;
            let size_field = match kind {
                WorkKind::Draw if fields.has("size") => "size",
                WorkKind::Draw => "width",
                WorkKind::Sound => "seconds",
                WorkKind::Film => "frames",
            };
            let rules = CatalogueRules { catalogue, limits };
            let resolved = resolve_work(kind, fields, &rules).map_err(ServiceError::from);
            let planned = resolved.and_then(|job| Ok((service.planned(&job, size_field)?, job)));
            (planned, hold)
        })
        .await;
        let (plan, mut job) = resolved?;
        self.check_provenance(&job)?;
        caller.restrict(&mut job)?;
        let withheld = self.settle_safety(&caller, &mut job).await?;
        job.trace = caller.trace.clone();
        if !is_taken {
            self.check_limits(&caller, plan.cost).await?;
            self.check_run_timeout(&job, plan.cost)?;
            self.admit(&caller.tenant, &job, plan).await?;
            self.check_lora_numbers(&job).await?;
            job = self.warned(job).await;
            job.warnings.extend(withheld);
        }
        // If the client has chosen the id, the files under this id may belong to another generation and must not be
        // erased.
        let unaccepted_files = match &repeatable {
            Repeatable::No | Repeatable::ByKey(_) if !pictures.is_empty() => UnacceptedFiles::files_of(id, self),
            _ => UnacceptedFiles::nothing(),
        };
        let uploads = intake::store_pictures(pictures, &mut job, id, is_taken, &unaccepted_files, self).await?;
        let valid = Valid { id, caller, job, cost: plan.cost, fingerprint, repeatable, uploads, unaccepted_files };
        Ok(Prepared(Outcome::New(Box::new(valid))))
    }

    /// Adds the warnings. For a long prompt, this tokenizes the prompt and reads the tokenizer's files.
    async fn warned(&self, mut job: Job) -> Job {
        let catalogue = self.0.catalogue.clone();
        let bytes = if catalogue.reads_for_warnings(&job) { usize::MAX } else { 0 };
        offload(bytes, move || {
            job.warnings = catalogue.warnings(&job);
            job
        })
        .await
    }

    /// Accepts a prepared generation. The generation is durable when this function returns.
    ///
    /// # Errors
    /// A full queue, a limit of the API key, an idempotency key or an id that belongs to another request, or a store
    /// that does not answer.
    pub async fn accept(&self, Prepared(outcome): Prepared) -> Result<Created, ServiceError> {
        let valid = match outcome {
            Outcome::Replayed(view) => return Ok(Created { view: *view, replayed: true }),
            Outcome::New(valid) => *valid,
        };
        let Valid { id, caller, job, cost, fingerprint, repeatable, uploads, unaccepted_files } = valid;
        let Parts { store, blobs, metrics, wake, accept_policy, .. } = &self.0.parts;
        let acceptance = Acceptance {
            id,
            tenant: &caller.tenant,
            api_key: caller.key.as_ref().map(|key| &*key.id),
            job: &job,
            fingerprint,
            key: match &repeatable {
                Repeatable::ByKey(key) => Some((key, accept_policy.idempotency)),
                Repeatable::No | Repeatable::ById(_) => None,
            },
            cost,
            assumed_speed: accept_policy.assumed_speed,
            max_queued: accept_policy.max_queued,
        };
        // From here on, the files may be erased only if the generation was certainly not accepted.
        let has_files = unaccepted_files.claim();
        let accepted = self.bounded(store.accept(&acceptance)).await;
        if let Err(error) = self.note_allowances(&caller).await {
            tracing::debug!(%error, "the answer does not say what the key has left");
        }
        match accepted {
            Ok(Accepted::New(record)) => {
                // If there are `uploads`, another generation had this id during the preparation. That generation was
                // erased in the meantime, so the pictures are stored now.
                for uploads in &uploads {
                    intake::keep(uploads, id, blobs).await?;
                }
                metrics.accepted.with_label_values(&[&job.model]).inc();
                wake.notify_one();
                self.0.live.event(id);
                self.0.outbox.tell(Hint::Queued);
                Ok(Created { view: self.view(record).await?, replayed: false })
            }
            Ok(Accepted::Again(record)) => {
                if has_files {
                    self.erase_blobs(id).await;
                }
                metrics.repeated.inc();
                Ok(Created { view: self.view(record).await?, replayed: true })
            }
            Err(error) => {
                // After any other error the generation may have been accepted.
                if has_files && is_refusal(&error) {
                    self.erase_blobs(id).await;
                }
                Err(self.refused(error, &caller.tenant, job.priority).await)
            }
        }
    }

    /// The generation of this idempotency key, if it still exists.
    async fn made_by(&self, tenant: &str, key: &str, asked: &Fingerprint) -> Result<Option<View>, ServiceError> {
        let Some((id, fingerprint)) = self.query(self.0.store.find_accepted(tenant, key)).await? else {
            return Ok(None);
        };
        if fingerprint != *asked {
            return Err(Refusal::KeyReused.into());
        }
        match self.query(self.0.store.get(id)).await? {
            Some(record) => self.view(record).await.map(Some),
            None => Ok(None),
        }
    }

    /// Whether a generation with this id exists. It is an error if another tenant owns the generation.
    async fn is_taken(&self, id: GenerationId, tenant: &str) -> Result<bool, ServiceError> {
        match self.query(self.0.store.get(id)).await? {
            Some(record) if record.tenant != tenant => Err(Refusal::IdTaken.into()),
            Some(_) => Ok(true),
            None => Ok(false),
        }
    }

    /// The plan of a generation. An error if the generation, or its ControlNets, need more memory than a worker has;
    /// `size_field` is the field in which the request has the size.
    fn planned(&self, job: &Job, size_field: &str) -> Result<Plan, ServiceError> {
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        let refused = |field: &str, detail| {
            let error = FieldError { pointer: format!("/{field}"), code: "out_of_range", detail };
            ServiceError::Invalid(Invalid { errors: vec![error] })
        };
        let (nets, device) = (job.work.control_nets(), self.0.catalogue.first_device());
        self.0.catalogue.control_nets().check_together(nets, &device).map_err(|(bytes, bound)| {
            let (takes, bound) = (mib(bytes), format!("controlnets.max_bytes is {} MiB", mib(bound)));
            match job.work {
                Work::Film(_) => {
                    refused("motion_adapter", format!("must be smaller: it takes {takes} MiB, and {bound}"))
                }
                _ => refused(
                    "controls",
                    format!("must be fewer: its ControlNets take {takes} MiB together, and {bound}"),
                ),
            }
        })?;
        let plan = |n| {
            let work = match &job.work {
                Work::Draw(draw) => Work::Draw(Draw { n, ..draw.clone() }),
                Work::Sound(sound) => Work::Sound(Sound { n, ..sound.clone() }),
                Work::Film(film) => Work::Film(Film { n, ..film.clone() }),
            };
            self.0.catalogue.plan(&Job { work, ..job.clone() }).unwrap_or_default()
        };
        let (whole, bound) = (plan(job.work.n()), self.0.accept_policy.max_bytes);
        self.0.catalogue.check_devices(job, whole).map_err(|TooLarge { model, control_nets, call, memory }| {
            let has = format!("the largest GPU has {} MiB", mib(memory));
            let weights = model.saturating_add(control_nets);
            if model > memory {
                refused("model", format!("must be smaller: its weights take {} MiB, and {has}", mib(model)))
            } else if weights > memory {
                let takes = format!("they take {} MiB beside a model of {} MiB", mib(control_nets), mib(model));
                match job.work {
                    Work::Film(_) => refused("motion_adapter", format!("must be smaller: {takes}, and {has}")),
                    _ => refused("controls", format!("must be fewer: {takes}, and {has}")),
                }
            } else {
                let takes = format!("one row of its largest network call takes {} MiB", mib(call));
                let beside = format!("beside {} MiB of weights", mib(weights));
                refused(size_field, format!("must be smaller: {takes} {beside}, and {has}"))
            }
        })?;
        let plan = |n| plan(n).on_host(&device);
        let whole = whole.on_host(&device);
        let fits = |plan: Plan| bound.is_none_or(|bound| plan.bytes() <= bound);
        if fits(whole) {
            return Ok(whole);
        }
        let bound = format!("engine.max_bytes is {} MiB", mib(bound.unwrap_or(0)));
        let n = job.work.n();
        let (one, many, subject) = match &job.work {
            Work::Draw(Draw { width, height, .. }) => {
                let subject = if size_field == "size" { "must be" } else { "and height must be" };
                (
                    format!("picture of {width} × {height} pixels"),
                    format!("pictures of {width} × {height} pixels"),
                    subject,
                )
            }
            Work::Sound(Sound { seconds, .. }) => {
                (format!("sound of {seconds} seconds"), format!("sounds of {seconds} seconds"), "must be")
            }
            Work::Film(Film { frames, width, height, .. }) => {
                let of = format!("of {frames} frames of {width} × {height} pixels");
                (format!("film {of}"), format!("films {of}"), "must be")
            }
        };
        let (field, detail) = match (1..n).rev().find(|n| fits(plan(*n))) {
            Some(most) => {
                let takes = format!("{n} {many} take {} MiB", mib(whole.bytes()));
                ("n", format!("must be at most {most}: {takes}, and {bound}"))
            }
            None => {
                let takes = format!("one {one} takes {} MiB", mib(plan(1).bytes()));
                let fits_film = |film: Film| {
                    let job = Job { work: Work::Film(film), ..job.clone() };
                    fits(self.0.catalogue.plan(&job).unwrap_or_default().on_host(&device))
                };
                let (field, subject) =
                    job.work.film().map_or((size_field, subject), |film| memory_field(film, fits_film));
                (field, format!("{subject} smaller: {takes}, and {bound}"))
            }
        };
        Err(refused(field, detail))
    }

    /// Refuses a `run_timeout_s` that is less than half of the time that the run needs if nothing else runs. The check
    /// is skipped if other processes share the store, because they may be faster.
    fn check_run_timeout(&self, job: &Job, cost: f64) -> Result<(), ServiceError> {
        const MARGIN: f64 = 2.0;
        let Parts { throughput, store, .. } = &self.0.parts;
        let least = throughput.least_seconds(&job.model, cost).filter(|_| !store.is_shared());
        let (Some(asked), Some(least)) = (job.run_timeout_s, least) else { return Ok(()) };
        if least <= MARGIN * f64::from(asked) {
            return Ok(());
        }
        let detail = format!(
            "must be at least {:.0}, not {asked}: the generation takes about {:.0} s alone at the best recent speed of \
             the model {:?}, and a limit below half of this time is refused",
            (least / MARGIN).ceil(),
            least.ceil(),
            job.model,
        );
        Err(ServiceError::Invalid(Invalid {
            errors: vec![FieldError::at(&["run_timeout_s"], "out_of_range", &detail)],
        }))
    }

    /// Refuses a generation whose estimated wait is too long.
    async fn admit(&self, tenant: &str, job: &Job, plan: Plan) -> Result<(), ServiceError> {
        let Some(wait) = self.estimated_wait_of(tenant, job.priority, plan).await? else { return Ok(()) };
        let bound = self.0.accept_policy.max_wait.min(Duration::from_secs(job.start_timeout_s.into()));
        if wait <= bound {
            return Ok(());
        }
        let (wait_s, bound_s) = (wait.as_secs_f64().ceil() as u64, bound.as_secs());
        Err(ServiceError::Overloaded { wait_s, bound_s, retry_after_s: bounded_s(wait - bound) })
    }

    /// The estimated wait of a generation that this tenant would create now, without the wait for memory: zero while a
    /// worker has a free slot. `None` if no worker has measured its speed yet.
    pub async fn estimated_wait(&self, tenant: &str, priority: Priority) -> Result<Option<Duration>, ServiceError> {
        self.estimated_wait_of(tenant, priority, Plan::default()).await
    }

    /// The estimated wait of a generation with this plan: it waits for a slot and for memory. If other processes share
    /// the store, the wait for memory is left out, because their memory is unknown.
    async fn estimated_wait_of(
        &self,
        tenant: &str,
        priority: Priority,
        plan: Plan,
    ) -> Result<Option<Duration>, ServiceError> {
        let newcomer = Newcomer { tenant, priority, cost: plan.cost };
        let done = self.0.live.done();
        let load = self.query(self.0.store.workload(&newcomer, &self.crew(&done))).await?;
        // A generation waits for slot and memory at the same time, so the longer wait counts.
        let room = if self.0.store.is_shared() { 0.0 } else { self.0.memory.until_room(plan) };
        let cost = load.cost.max(room);
        Ok((load.speed > 0.0).then(|| Duration::try_from_secs_f64(cost / load.speed).unwrap_or(Duration::MAX)))
    }

    /// The error for a refusal of the store, with an estimate of when to retry.
    async fn refused(&self, error: StoreError, tenant: &str, priority: Priority) -> ServiceError {
        let after = async |queued| match self.estimated_wait(tenant, priority).await {
            Ok(Some(wait)) => bounded_s(wait),
            // There is no estimate, so one second per queued generation is assumed.
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

/// Whether the generation was certainly not accepted.
fn is_refusal(error: &StoreError) -> bool {
    matches!(error, StoreError::Refused(_) | StoreError::StorageFull)
}

/// The seconds of `Retry-After`, 1 to 600.
fn bounded_s(wait: Duration) -> u64 {
    wait.as_secs_f64().ceil().clamp(1.0, 600.0) as u64
}

/// The field of a film that must be smaller, and the beginning of the sentence about this field. The function tries the
/// smallest `decode_chunk_size`, and then two frames with the smallest `decode_chunk_size`. If the film fits in neither
/// case, the function returns the width, without trying a smaller one.
fn memory_field(film: &Film, fits: impl Fn(Film) -> bool) -> (&'static str, &'static str) {
    let one = Film { n: 1, ..film.clone() };
    let chunk = one.decode_chunk_size.map(|_| 1);
    let short = |frames: u32| Film { frames, decode_chunk_size: chunk.or(one.decode_chunk_size), ..one.clone() };
    match (one.decode_chunk_size, one.frames) {
        (Some(2..), _) if fits(Film { decode_chunk_size: chunk, ..one.clone() }) => ("decode_chunk_size", "must be"),
        (_, 3..) if fits(short(2)) => ("frames", "must be"),
        _ => ("width", "and height must be"),
    }
}
