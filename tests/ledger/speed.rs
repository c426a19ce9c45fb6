//! Measures how fast stores write. Run it by hand: `cargo test --test ledger speed -- --ignored --nocapture`. With
//! `TMPDIR=/dev/shm`, the disk adds no time. The processor time does not include PostgreSQL's server.

use std::{fs, sync::Arc, time::Instant};

use futures::future::join_all;
use latentd::ledger::{Outcome, Store};

use crate::place::{PgPlace, Place, SqlitePlace, accept, artifact, claim};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn speed_of_a_sqlite_store() {
    measure_all(&SqlitePlace::new()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn speed_of_a_postgresql_store() {
    if let Some(place) = PgPlace::new().await {
        measure_all(&place).await;
    }
}

async fn measure_all(place: &dyn Place) {
    let store = place.open().await;
    for callers in [1, 8] {
        println!("{callers} callers:");
        measure("accept", &store, callers, 2000, |store| async move { drop(accept(&*store, 1).await) }).await;
        let claim_and_finish = |store: Arc<dyn Store>| async move {
            for (_, lease) in claim(&*store, 1).await {
                store.finish(lease, Outcome::Succeeded(vec![artifact()])).await.unwrap().unwrap();
            }
        };
        measure("claim and finish", &store, callers, 1000, claim_and_finish).await;
        assert_eq!(store.counts().await.unwrap().queued, 1000);
        measure("claim of four", &store, callers, 200, |store| async move { drop(claim(&*store, 4).await) }).await;
        assert_eq!(store.counts().await.unwrap().queued, 200);
        while !claim(&*store, 100).await.is_empty() {}
    }
}

/// Prints the calls per second and the processor time per call. The callers divide `calls` among themselves.
async fn measure<F: Future<Output = ()> + Send + 'static>(
    name: &str,
    store: &Arc<dyn Store>,
    callers: u32,
    calls: u32,
    call: impl Fn(Arc<dyn Store>) -> F + Clone + Send + 'static,
) {
    let (start, start_cpu) = (Instant::now(), cpu_ms());
    let calling = (0..callers).map(|_| {
        let (store, call) = (store.clone(), call.clone());
        tokio::spawn(async move {
            for _ in 0..calls / callers {
                call(store.clone()).await;
            }
        })
    });
    for ended in join_all(calling).await {
        ended.unwrap();
    }
    let (each, cpu) = (start.elapsed() / calls, (cpu_ms() - start_cpu) / f64::from(calls));
    println!("    {name}: {:.0}/s, {cpu:.2} ms of processor time", 1.0 / each.as_secs_f64());
}

/// The processor time of all threads of this process in milliseconds. Linux counts it in steps of 10 ms.
fn cpu_ms() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) * 10.0
}
