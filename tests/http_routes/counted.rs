//! How often a request that waits looks into the store.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::stream::BoxStream;
use latentd::{
    generation::{Event, GenerationId, Preview, Record},
    ledger::{
        Acceptance, Accepted, Accepts, Beat, Counts, Fingerprint, Fleet, Glance, Hint, KeyRecord, Keys, ListQuery,
        Orders, Page, Place, Reads, Report, SqliteStore, StoreError, WorkerRecord, Workload,
    },
};
use serde_json::json;

use crate::{
    PNG,
    desk::{self, Desk, post},
};

/// A store that counts how often the row of a generation is read.
struct Counted {
    store: SqliteStore,
    rows: Arc<AtomicUsize>,
}

/// Passes the calls of a role on.
macro_rules! role {
    ($role:ident { $($name:ident($($arg:ident: $type:ty),*) -> $out:ty;)* } $($rest:item)*) => {
        #[async_trait]
        impl $role for Counted {
            $(async fn $name(&self, $($arg: $type),*) -> Result<$out, StoreError> {
                if stringify!($name) == "get" {
                    self.rows.fetch_add(1, Ordering::Relaxed);
                }
                self.store.$name($($arg),*).await
            })*

            $($rest)*
        }
    };
}

role!(Accepts {
    accept(acceptance: &Acceptance<'_>) -> Accepted;
    find_accepted(tenant: &str, key: &str) -> Option<(GenerationId, Fingerprint)>;
    cancel(id: GenerationId) -> Option<Record>;
    revive(id: GenerationId) -> Option<Record>;
    delete(id: GenerationId) -> Option<Record>;
});

role!(Reads {
    get(id: GenerationId) -> Option<Record>;
    list(query: &ListQuery) -> Page;
    events(id: GenerationId, after: i64) -> Vec<Event>;
    find_input(tenant: &str, sha256: &str) -> Option<GenerationId>;
    counts() -> Counts;
    counts_of(tenant: &str) -> Counts;
    workload(lately: Duration, slots: usize) -> Workload;
    place(id: GenerationId) -> Option<Place>;
    ping() -> ();
});

role!(Fleet {
    beat(beat: &Beat) -> Orders;
    workers() -> Vec<WorkerRecord>;
    drain_worker(worker: &str, drain: bool) -> bool;
    leave(worker: &str) -> ();
    report(reports: &[Report]) -> ();
    glance(ids: &[GenerationId]) -> Vec<Glance>;
    previews(id: GenerationId) -> Vec<Preview>;
    hint(hints: &[Hint]) -> ();
} fn is_shared(&self) -> bool { self.store.is_shared() }
  fn hints(&self) -> BoxStream<'static, Hint> { self.store.hints() });

role!(Keys {
    create_key(key: &KeyRecord) -> ();
    has_keys() -> bool;
    find_key(id: &str) -> Option<KeyRecord>;
});

/// What it is told of comes from the accept and from the events; the row is read when the generation has ended.
#[tokio::test]
async fn a_request_that_waits_reads_its_row_once() {
    let config = desk::config(&[]);
    let (store, data) = desk::store(&config).await;
    let rows = Arc::new(AtomicUsize::new(0));
    let counted = Counted { store: store.clone(), rows: rows.clone() };
    let desk = Desk::over(Arc::new(store), Arc::new(counted), config, data);
    for headers in
        [[("prefer", "wait=60"), ("accept", "application/json")], [("prefer", "wait=60"), ("accept", "image/png")]]
    {
        let before = rows.load(Ordering::Relaxed);
        let work = async {
            let lease = desk.begin_next().await;
            desk.succeed(lease, PNG).await;
        };
        let (answer, ()) = tokio::join!(desk.ask(post(&json!({"prompt": "a fox"}), &headers)), work);
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(rows.load(Ordering::Relaxed) - before, 1, "{headers:?}");
    }
}
