//! Where the suite's stores live, and what it puts into them.

use std::{collections::BTreeMap, path::Path, time::Duration};

use async_trait::async_trait;
use latentd::generation::{
    Decoder, EventKind, Generation, GenerationId, GuidanceInterval, Image, Levels, MetadataLevel, OnDisconnect,
    Problem, Record, SchedulerChoice, SeedMode,
};
use latentd::ledger::{Lease, SqliteStore, Store};
use tempfile::TempDir;

pub const HOUR: Duration = Duration::from_secs(3600);

/// A place that keeps what the stores opened there have written, one open store at a time.
#[async_trait]
pub trait Place: Send + Sync {
    async fn open_with(&self, retention: Duration) -> Box<dyn Store>;

    async fn open(&self) -> Box<dyn Store> {
        self.open_with(HOUR).await
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
    async fn open_with(&self, retention: Duration) -> Box<dyn Store> {
        Box::new(SqliteStore::open(self.path(), retention).await.unwrap())
    }
}

pub fn generation() -> Generation {
    Generation {
        model: "tiny".to_owned(),
        prompt: "a red fox, \"quoted\", 狐🦊\nsecond line".to_owned(),
        negative_prompt: Some("blur".to_owned()),
        prompt_syntax: latentd::generation::PromptSyntax::Weighted,
        loras: vec![latentd::generation::LoraUse { name: "ink".to_owned(), scale: 0.7 }],
        width: 64,
        height: 128,
        n: 2,
        steps: 20,
        levels: Some(Levels::Sigmas(vec![14.6, 0.3, 0.0])),
        guidance_scale: 7.5,
        guidance_rescale: 0.25,
        guidance_interval: GuidanceInterval::WHOLE,
        scheduler: SchedulerChoice::Name("euler_a".to_owned()),
        eta: 0.5,
        clip_skip: 1,
        decoder: Decoder::Full,
        feature_cache: None,
        sdxl: None,
        refiner: None,
        controls: Vec::new(),
        source: None,
        seed: i64::MAX as u64,
        seed_mode: SeedMode::Batch,
        previews: 3,
        metadata_level: MetadataLevel::Seed,
        on_disconnect: OnDisconnect::Cancel,
        start_timeout_s: 600,
        webhook: None,
        metadata: BTreeMap::from([("key".to_owned(), "valué".to_owned())]),
    }
}

/// A generation that is overdue as soon as it is accepted.
pub fn overdue() -> Generation {
    Generation { start_timeout_s: 0, ..generation() }
}

pub fn image() -> Image {
    Image {
        index: 0,
        width: 64,
        height: 128,
        seed: 7,
        bytes: 1234,
        sha256: "00ff".to_owned(),
        blob: "img/default/x/1/0.png".to_owned(),
    }
}

pub fn problem() -> Problem {
    Problem { code: "out_of_memory".to_owned(), message: "too large".to_owned(), retryable: true }
}

/// Accepts generations, oldest first.
pub async fn accept(store: &dyn Store, count: usize) -> Vec<GenerationId> {
    let mut ids = Vec::new();
    for _ in 0..count {
        let id = GenerationId::new();
        store.accept(id, &generation(), usize::MAX).await.unwrap();
        ids.push(id);
    }
    ids
}

/// Accepts one generation and claims it.
pub async fn running(store: &dyn Store) -> (GenerationId, Lease) {
    let ids = accept(store, 1).await;
    (ids[0], claim_one(store).await.1)
}

pub async fn claim_one(store: &dyn Store) -> (Record, Lease) {
    let mut claimed = store.claim(1).await.unwrap();
    claimed.pop().expect("something is queued")
}

pub async fn get(store: &dyn Store, id: GenerationId) -> Record {
    store.get(id).await.unwrap().expect("the generation exists")
}

/// The kinds of a generation's events; checks that they are numbered from 1 without gaps and that nothing follows a
/// terminal one.
pub async fn history(store: &dyn Store, id: GenerationId) -> Vec<EventKind> {
    let events = store.events(id, 0).await.unwrap();
    for (at, event) in events.iter().enumerate() {
        assert_eq!(event.seq, at as i64 + 1);
        assert_eq!(event.data["id"], id.to_string());
        assert_eq!(event.kind.is_terminal(), event.data["status"].is_string() && event.kind != EventKind::Queued);
        assert!(!event.kind.is_terminal() || at + 1 == events.len());
    }
    events.iter().map(|event| event.kind).collect()
}

/// Everything that a reader can see of a record, to be compared.
pub fn seen(record: &Record) -> String {
    format!("{record:?}")
}
