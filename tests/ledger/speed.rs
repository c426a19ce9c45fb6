//! How fast a store writes; run by hand: `cargo test --release --test ledger speed -- --ignored --nocapture`.

use std::{sync::Arc, time::Instant};

use futures::future::join_all;
use latentd::ledger::{Outcome, Store};

use crate::place::{Place, SqlitePlace, accept, claim, image};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn speed_of_a_sqlite_store() {
    let place = SqlitePlace::new();
    let store = place.open().await;
    for callers in [1, 8] {
        let count = 2000 / callers;
        let accepts = measured(&store, callers, count, |store| async move { drop(accept(&*store, 1).await) }).await;
        let claims = measured(&store, callers, count / 2, |store| async move {
            for (_, lease) in claim(&*store, 1).await {
                store.finish(lease, Outcome::Succeeded(vec![image()])).await.unwrap().unwrap();
            }
        });
        let claims = claims.await;
        let queued = store.counts().await.unwrap().queued;
        let four = measured(&store, 1, queued / 8, |store| async move { drop(claim(&*store, 4).await) }).await * 4.0;
        println!(
            "{callers} callers: {accepts:.0} accepts/s, {claims:.0} claims with finish/s, {four:.0} claims/s by fours"
        );
        while !claim(&*store, 100).await.is_empty() {}
    }
}

/// Calls a second, of so many callers with so many calls each.
async fn measured<F: Future<Output = ()> + Send + 'static>(
    store: &Arc<dyn Store>,
    callers: usize,
    calls: usize,
    call: impl Fn(Arc<dyn Store>) -> F + Clone + Send + 'static,
) -> f64 {
    let start = Instant::now();
    let calling = (0..callers).map(|_| {
        let (store, call) = (store.clone(), call.clone());
        tokio::spawn(async move {
            for _ in 0..calls {
                call(store.clone()).await;
            }
        })
    });
    for ended in join_all(calling).await {
        ended.unwrap();
    }
    (callers * calls) as f64 / start.elapsed().as_secs_f64()
}
