//! Counts the reads of a waiting request from the store.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use latentd::{
    generation::{GenerationId, Record},
    ledger::{Accepts, Fleet, Keys, Ledger, Reads, StoreError, Usages},
};
use serde_json::json;

use crate::{
    PNG,
    api::{self, TestApi, post},
};

/// A store that counts the reads of rows of generations.
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
impl Usages for Counted {}

#[async_trait]
impl Reads for Counted {
    async fn get(&self, id: GenerationId) -> Result<Option<Record>, StoreError> {
        self.rows.fetch_add(1, Ordering::Relaxed);
        self.store.get(id).await
    }
}

/// A waiting request follows its generation by events and reads the row only after the end.
#[tokio::test]
async fn a_waiting_request_reads_its_row_once() {
    let config = api::config(&[]);
    let (store, data) = api::store(&config).await;
    let rows = Arc::new(AtomicUsize::new(0));
    let counted = Counted { store: store.clone(), rows: rows.clone() };
    let api = TestApi::with_store(Arc::new(store), Arc::new(counted), config, data);
    for headers in
        [[("prefer", "wait=60"), ("accept", "application/json")], [("prefer", "wait=60"), ("accept", "image/png")]]
    {
        let before = rows.load(Ordering::Relaxed);
        let work = async {
            let lease = api.begin_next().await;
            api.succeed(lease, PNG).await;
        };
        let (answer, ()) = tokio::join!(api.ask(post(&json!({"prompt": "a fox"}), &headers)), work);
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(rows.load(Ordering::Relaxed) - before, 1, "{headers:?}");
    }
}
