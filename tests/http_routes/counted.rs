//! How often a request that waits looks into the store.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use latentd::{
    generation::{GenerationId, Record},
    ledger::{Accepts, Fleet, Keys, Ledger, Reads, StoreError},
};
use serde_json::json;

use crate::{
    PNG,
    desk::{self, Desk, post},
};

/// A store that counts how often the row of a generation is read.
struct Counted {
    store: Ledger,
    rows: Arc<AtomicUsize>,
}

impl AsRef<Ledger> for Counted {
    fn as_ref(&self) -> &Ledger {
        &self.store
    }
}

impl Accepts for Counted {}
impl Fleet for Counted {}
impl Keys for Counted {}

#[async_trait]
impl Reads for Counted {
    async fn get(&self, id: GenerationId) -> Result<Option<Record>, StoreError> {
        self.rows.fetch_add(1, Ordering::Relaxed);
        self.store.get(id).await
    }
}

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
