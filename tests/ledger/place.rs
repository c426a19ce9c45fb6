//! Places for the stores of the suite, and the generations, leases and keys that the tests put into them.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use latentd::config::{Config, Database, Sources};
use latentd::generation::{
    Artifact, Decoder, Draw, EventKind, Facts, Film, Format, GenerationId, GuidanceInterval, InputImage, Job, Levels,
    MetadataLevel, Motion, OnDisconnect, Output, Precision, Priority, Problem, Record, SchedulerChoice, SeedMode,
    Sound, Work,
};
use latentd::ledger::{
    Acceptance, Accepted, Claimant, Crew, KeyRecord, Lease, Ledger, Newcomer, Reaped, Reaping, Store, StoreError,
};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::postgres::Cluster;

pub const HOUR: Duration = Duration::from_secs(3600);

/// The time limit of a case, long enough for a slow machine.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// Storage in which stores are opened. A new store reads what earlier stores of the place have written.
#[async_trait]
pub trait Place: Send + Sync {
    /// Opens a store that keeps ended generations for `retention`.
    async fn open_with(&self, retention: Duration) -> Arc<dyn Store>;

    /// Whether several stores may be open at the same time. [`Store::is_shared`] of each store returns the same.
    fn is_shared(&self) -> bool;

    async fn open(&self) -> Arc<dyn Store> {
        self.open_with(HOUR).await
    }

    /// Returns `count` stores: separate ones if the place is shared, otherwise clones of one store.
    async fn open_many(&self, count: usize) -> Vec<Arc<dyn Store>> {
        let mut stores = vec![self.open().await];
        while stores.len() < count {
            stores.push(if self.is_shared() { self.open().await } else { stores[0].clone() });
        }
        stores
    }
}

pub struct SqlitePlace {
    dir: TempDir,
}

impl SqlitePlace {
    pub fn new() -> SqlitePlace {
        SqlitePlace { dir: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

#[async_trait]
impl Place for SqlitePlace {
    async fn open_with(&self, retention: Duration) -> Arc<dyn Store> {
        Arc::new(Ledger::open_sqlite(self.path(), retention).await.unwrap())
    }

    fn is_shared(&self) -> bool {
        false
    }
}

/// A database of the PostgreSQL cluster that the test process starts.
pub struct PgPlace {
    url: String,
}

impl PgPlace {
    /// Returns `None` if PostgreSQL is not installed.
    pub async fn new() -> Option<PgPlace> {
        Some(PgPlace { url: Cluster::shared()?.create_database().await })
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub async fn store(&self) -> Ledger {
        Ledger::open_postgres(&settings(&self.url, &[]), HOUR).await.unwrap()
    }
}

/// Database settings for tests, with a long timeout because the machine may be busy. `flags` override the settings.
pub fn settings(url: &str, flags: &[(&str, &str)]) -> Database {
    let defaults = [("database.url", url), ("database.max_connections", "4"), ("database.timeout_s", "60")];
    let flags = defaults.iter().chain(flags).map(|(key, value)| (key.to_string(), value.to_string())).collect();
    Config::load(&Sources { flags, ..Sources::default() }).unwrap().database
}

#[async_trait]
impl Place for PgPlace {
    async fn open_with(&self, retention: Duration) -> Arc<dyn Store> {
        let store = Ledger::open_postgres(&settings(&self.url, &[]), retention).await.unwrap();
        // The task ends with the runtime of the test.
        tokio::spawn(store.clone().listen(CancellationToken::new()));
        Arc::new(store)
    }

    fn is_shared(&self) -> bool {
        true
    }
}

/// A generation behind all others.
pub const LAST: Newcomer<'_> = Newcomer { tenant: "nobody", priority: Priority::Low, cost: 1e300 };

/// Workers whose progress is unknown.
pub fn crew(lately: Duration, slots: usize) -> Crew<'static> {
    Crew { lately, slots, done: &[] }
}

pub fn draw() -> Draw {
    Draw {
        prompt: "a red fox, \"quoted\", 狐🦊\nsecond line".to_owned(),
        negative_prompt: Some("blur".to_owned()),
        prompt_syntax: latentd::generation::PromptSyntax::Weighted,
        further_prompts: Default::default(),
        max_sequence_length: Some(300),
        loras: vec![latentd::generation::LoraUse { name: "ink".to_owned(), scale: 0.7 }],
        class_labels: Vec::new(),
        class_guidance_scale: None,
        width: 64,
        height: 128,
        n: 2,
        steps: 20,
        levels: Some(Levels::Sigmas(vec![14.6, 0.3, 0.0])),
        guidance_scale: 7.5,
        true_guidance_scale: Some(2.5),
        guidance_rescale: 0.25,
        always_guided: false,
        guidance_interval: GuidanceInterval::WHOLE,
        guidance_limits: None,
        skip_layer_guidance: None,
        scheduler: SchedulerChoice::Name("euler_a".to_owned()),
        eta: 0.5,
        clip_skip: 1,
        decoder: Decoder::Full,
        feature_cache: None,
        micro_conditioning: None,
        refiner: None,
        controls: Vec::new(),
        source: None,
        seed: i64::MAX as u64,
        seed_mode: SeedMode::Batch,
    }
}

/// A sound of one second.
pub fn sound() -> Sound {
    Sound {
        prompt: "rain".to_owned(),
        negative_prompt: String::new(),
        seconds: 1.0,
        n: 1,
        steps: 2,
        guidance_scale: 2.5,
        scheduler: SchedulerChoice::Name("ddim".to_owned()),
        eta: 0.0,
        seed: 3,
        padding_seconds: None,
        logsnr_min: None,
        logsnr_max: None,
        seed_mode: SeedMode::PerImage,
    }
}

/// A film of two seconds.
pub fn film() -> Film {
    Film {
        prompt: String::new(),
        negative_prompt: String::new(),
        loras: Vec::new(),
        motion_adapter: None,
        image: Some(InputImage { upload: "0".repeat(64), width: 64, height: 64 }),
        frames: 14,
        fps: 7,
        width: 64,
        height: 64,
        n: 1,
        steps: 2,
        guidance_scale: 3.0,
        guidance_scale_2: None,
        motion: Some(Motion { min_guidance_scale: 1.0, motion_bucket_id: 127, noise_aug_strength: 0.02 }),
        decode_chunk_size: Some(8),
        max_sequence_length: None,
        scheduler: SchedulerChoice::Name("euler".to_owned()),
        seed: 3,
        seed_mode: SeedMode::PerImage,
    }
}

/// A job that draws, with the envelope that all tests use.
pub fn job(draw: Draw) -> Job {
    Job {
        model: "tiny".to_owned(),
        work: Work::Draw(draw),
        precision: Precision::Fast,
        previews: 3,
        output: Output { encoding: Default::default(), metadata_level: MetadataLevel::Seed, provenance: true },
        on_disconnect: OnDisconnect::Cancel,
        priority: Priority::Normal,
        start_timeout_s: 600,
        run_timeout_s: Some(77),
        webhook: None,
        metadata: BTreeMap::from([("key".to_owned(), "valué".to_owned())]),
        warnings: Vec::new(),
        safety: Default::default(),
        trace: None,
    }
}

pub fn generation() -> Job {
    job(draw())
}

/// A generation that is overdue as soon as it is accepted.
pub fn overdue() -> Job {
    Job { start_timeout_s: 0, ..generation() }
}

pub fn artifact() -> Artifact {
    Artifact {
        index: 0,
        media_type: Format::Png.into(),
        bytes: 1234,
        sha256: "00ff".to_owned(),
        unsigned_sha256: None,
        watermark: None,
        blob: "img/x/1/0.png".to_owned(),
        flagged: None,
        facts: Facts::Picture { width: 64, height: 128, seed: 7 },
    }
}

pub fn problem() -> Problem {
    Problem { code: "out_of_memory".to_owned(), message: "too large".to_owned(), retryable: true }
}

/// An acceptance of this job with a new id, without a key and without a bound on the queue.
pub fn request(job: &Job) -> Acceptance<'_> {
    Acceptance {
        id: GenerationId::new(),
        tenant: "default",
        api_key: None,
        job,
        fingerprint: [7; 32],
        key: None,
        cost: 1.0,
        assumed_speed: 100.0,
        max_queued: usize::MAX,
    }
}

/// Accepts one new generation.
pub async fn accept_one(store: &dyn Store, job: &Job) -> GenerationId {
    new_record(store.accept(&request(job)).await).id
}

pub fn new_record(accepted: Result<Accepted, StoreError>) -> Record {
    match accepted.unwrap() {
        Accepted::New(record) => record,
        Accepted::Again(record) => panic!("{} was accepted before", record.id),
    }
}

pub fn known_record(accepted: Result<Accepted, StoreError>) -> Record {
    match accepted.unwrap() {
        Accepted::Again(record) => record,
        Accepted::New(record) => panic!("{} is new", record.id),
    }
}

/// Accepts generations, oldest first.
pub async fn accept(store: &dyn Store, count: usize) -> Vec<GenerationId> {
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.push(accept_one(store, &generation()).await);
    }
    ids
}

/// Number of crashes from which a generation runs exclusively.
pub const ALONE_FROM: u32 = 2;

/// A worker with the model of [`generation`], whose leases outlast every test.
pub fn worker(name: &str) -> Claimant {
    Claimant { worker: name.to_owned(), lease: HOUR, models: vec!["tiny".to_owned()], alone_from: ALONE_FROM }
}

/// A worker whose leases end at the moment of the claim.
pub fn late_worker(name: &str) -> Claimant {
    Claimant { lease: Duration::ZERO, ..worker(name) }
}

/// Claims at most `limit` generations for an idle worker.
pub async fn claim(store: &dyn Store, limit: usize) -> Vec<(Record, Lease)> {
    store.claim(&worker("one"), limit, true).await.unwrap()
}

pub fn ids(claimed: &[(Record, Lease)]) -> Vec<GenerationId> {
    claimed.iter().map(|(record, _)| record.id).collect()
}

/// Reaps all running generations, as a process does at startup if it is the only one.
pub async fn reap_all(store: &dyn Store, max_crashes: u32) -> Reaped {
    store.reap(&Reaping { all: true, max_crashes, backoff: HOUR }).await.unwrap()
}

/// Reaps generations whose lease has ended. They can be claimed again immediately.
pub async fn reap_late(store: &dyn Store, max_crashes: u32) -> Reaped {
    store.reap(&Reaping { all: false, max_crashes, backoff: Duration::ZERO }).await.unwrap()
}

/// Accepts one generation and claims it.
pub async fn running(store: &dyn Store) -> (GenerationId, Lease) {
    let ids = accept(store, 1).await;
    (ids[0], claim_one(store).await.1)
}

pub async fn claim_one(store: &dyn Store) -> (Record, Lease) {
    claim(store, 1).await.pop().expect("something is queued")
}

pub async fn get(store: &dyn Store, id: GenerationId) -> Record {
    store.get(id).await.unwrap().expect("the generation exists")
}

/// Returns the kinds of a generation's events. Checks that their numbers start at 1 without gaps and that no event
/// follows a terminal event, unless an operator has revived the generation.
pub async fn history(store: &dyn Store, id: GenerationId) -> Vec<EventKind> {
    let events = store.events(id, 0).await.unwrap();
    for (at, event) in events.iter().enumerate() {
        assert_eq!(event.seq, at as i64 + 1);
        assert_eq!(event.data["id"], id.to_string());
        assert_eq!(event.kind.is_terminal(), event.data["status"].is_string() && event.kind != EventKind::Queued);
        let after = events.get(at + 1);
        assert!(!event.kind.is_terminal() || after.is_none_or(|after| after.data["reason"] == "revived"));
    }
    events.iter().map(|event| event.kind).collect()
}

/// Creates a tenant with a weight and bounds on its queued and running generations.
pub async fn tenant(store: &dyn Store, name: &str, weight: f64, max_queued: Option<u32>, max_running: Option<u32>) {
    let id = format!("key of {name}");
    let key = KeyRecord {
        id,
        sha256: [1; 32],
        tenant: name.to_owned(),
        weight,
        max_queued,
        max_running,
        terms: Default::default(),
    };
    store.create_key(&key).await.unwrap();
}

/// Accepts a generation of this tenant.
pub async fn accept_of(store: &dyn Store, tenant: &str, cost: f64) -> GenerationId {
    let generation = generation();
    new_record(store.accept(&Acceptance { tenant, cost, ..request(&generation) }).await).id
}

/// All fields of a record as text, for comparisons.
pub fn seen(record: &Record) -> String {
    format!("{record:?}")
}
