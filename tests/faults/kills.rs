//! Fault tests of processes that are killed with SIGKILL.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use sqlx::{ConnectOptions, sqlite::SqliteConnectOptions};

use crate::{
    figures::{Figures, leases},
    load::{Load, request},
    server::{PATIENCE, Server},
    site::Site,
    steps::{COMPUTED, Meter, Parts, REPLAYED, logged},
};

/// T2.
#[tokio::test(flavor = "multi_thread")]
async fn generations_survive_twenty_kills_of_the_single_process() {
    let site = Site::single("T2 kill -9 of the single process, 20 times").await;
    // A high bound, so that generations that run during a kill do not fail as the cause of the crash.
    let site = site.with("LATENTD_QUEUE__MAX_CRASHES", 100);
    let mut server = site.start("all").await;
    site.open(&[&server]);
    let launch = server.launch();
    let load = Arc::new(Load::through(site.door.url()));
    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..6)
        .map(|client| {
            let (load, over) = (load.clone(), over.clone());
            tokio::spawn(async move {
                let mut made = 0;
                while !over.load(Relaxed) {
                    let id = load.submit(&format!("{client}-{made}"), &request(client, 10 + 10 * (made % 4))).await;
                    made += 1;
                    // Some clients wait for their picture, others send the next request soon.
                    if client % 2 == 0 {
                        load.ended(&id).await;
                    } else {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            })
        })
        .collect();
    let mut starts = Vec::new();
    for kill in 0..20 {
        tokio::time::sleep(Duration::from_millis(random_below(kill, 600))).await;
        server.kill();
        let killed = Instant::now();
        server = Server::start_ready(&launch).await;
        starts.push(killed.elapsed());
        site.open(&[&server]);
    }
    over.store(true, Relaxed);
    futures::future::join_all(clients).await.into_iter().for_each(|client| client.unwrap());
    for id in load.ids() {
        let status = load.ended(&id).await.map(|generation| generation["status"].clone());
        assert_eq!(status, Some("succeeded".into()), "{id}");
    }
    let slowest = starts.iter().max().unwrap();
    let figures = Figures::default()
        .note(format!("{} requests tried again", load.broken.load(Relaxed)))
        .note(format!("slowest start {:.2} s", slowest.as_secs_f64()));
    site.verdict(&load, figures).await;
    assert!(server.terminate().success());
    assert_database_is_intact(&site.data_dir().join("latentd.db")).await;
}

/// T1.
#[tokio::test(flavor = "multi_thread")]
async fn generations_of_a_killed_worker_run_on_another() {
    const ALL: u64 = 200;
    const STEPS: u32 = 30;
    let Some(site) = Site::shared("T1 kill -9 of a worker with 200 queued").await else { return };
    let site = site.with("LATENTD_ENGINE__MAX_RUNS", 8);
    let api = site.start("api").await;
    site.open(&[&api]);
    let load = Load::through(site.door.url());
    let bodies: Vec<_> = (0..ALL).map(|seed| request(seed, STEPS)).collect();
    let ids = load.submit_all("t1", &bodies).await;
    let (first, second) = (site.start("worker").await, site.start("worker").await);
    let (meters, parts) = ([Meter::of(&first), Meter::of(&second)], Parts::in_folder(&site.blobs));
    first.until("it is in the middle", async |_: &Server| meters[0].last(COMPUTED) > 630.0).await;
    let (launch, killed) = (first.launch(), Instant::now());
    first.kill();

    let (mut again, mut active) = (Vec::<Duration>::new(), true);
    let mut known = BTreeSet::new();
    while active {
        let running = load.list("&status=running").await;
        for generation in running.iter().filter(|generation| generation["attempt"] == 2) {
            if known.insert(generation["id"].to_string()) {
                again.push(killed.elapsed());
            }
        }
        active = !running.is_empty() || !load.list("&status=queued").await.is_empty();
        assert!(killed.elapsed() < PATIENCE, "they do not end");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Only generations that the killed worker had begun and not ended may have a second attempt.
    let (begun, ended) = (logged(&launch, "generation started"), logged(&launch, "generation ended"));
    let held: BTreeSet<&String> = begun.iter().filter(|id| !ended.contains(id)).collect();
    let mut finished_by_it = 0.0;
    for id in &ids {
        let generation = load.ended(id).await.unwrap();
        assert_eq!(generation["status"], "succeeded", "{generation}");
        let attempt = generation["attempt"].as_u64().unwrap();
        assert!(
            attempt == 1 || (attempt == 2 && held.contains(id)),
            "it was not held by the killed worker: {generation}"
        );
        finished_by_it += f64::from(u8::from(attempt == 1 && begun.contains(id)));
    }
    let needed = ALL as f64 * f64::from(STEPS);
    let computed = meters[0].last(COMPUTED) + meters[1].last(COMPUTED);
    let (gap, upload) = parts.lag();
    let must = meters[0].by(COMPUTED, killed - gap - upload) - finished_by_it * f64::from(STEPS);
    let replayed = meters[1].last(REPLAYED);
    assert!(replayed >= must, "of {must} steps that had been answered in time {replayed} were replayed");
    let figures = Figures::default()
        .repeated((computed - needed).max(0.0), needed)
        .recovered_in(*again.first().unwrap_or(&Duration::ZERO))
        .note(format!(
            "{} were held, all of them again after {:.2} leases",
            held.len(),
            leases(*again.last().unwrap_or(&Duration::ZERO))
        ))
        .note(format!("{replayed} steps replayed, at least {must} had to be"))
        .note(format!("parts {} ms apart at most, uploads {} ms", gap.as_millis(), upload.as_millis()));
    assert!(again.first().is_none_or(|first| leases(*first) < 4.0), "{figures}");
    site.verdict(&load, figures).await;
}

/// Asserts that the integrity check of an SQLite database succeeds.
pub async fn assert_database_is_intact(path: &std::path::Path) {
    let mut database = SqliteConnectOptions::new().filename(path).connect().await.unwrap();
    let verdict: String = sqlx::query_scalar("PRAGMA integrity_check").fetch_one(&mut database).await.unwrap();
    assert_eq!(verdict, "ok");
}

/// A pseudorandom number of milliseconds below a bound, determined by the seed, so that a run can be repeated.
pub fn random_below(seed: u64, below: u64) -> u64 {
    let mixed = (seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) % below
}
