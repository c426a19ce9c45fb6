//! A soak test with random requests and kills on one process with SQLite and a folder: `make soak-single`.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use crate::{
    crowd::Crowd,
    figures::Figures,
    fixtures::Fixtures,
    kills::assert_database_is_intact,
    load::Load,
    memory::Memory,
    random::Random,
    server::Server,
    site::Site,
    soak::{seconds, seed},
};

/// The number of kills in the first half. In the second half the process is not killed, so that its memory can be
/// measured.
const KILLS: u32 = 10;

/// T26. Runs for SOAK_SECONDS seconds; skipped without this variable.
#[tokio::test(flavor = "multi_thread")]
async fn soak() {
    let Some(whole) = seconds() else {
        println!("T26 soak on SQLite: not now; make soak-single runs it");
        return;
    };
    let (seed, fixtures) = (seed(), Fixtures::all());
    println!("T26 seed {seed}");
    let mut site = Site::single("T26 soak on SQLite").await.with("LATENTD_QUEUE__MAX_CRASHES", 1000);
    for (name, value) in fixtures.settings() {
        site = site.with(&name, value);
    }
    let mut server = site.start("all").await;
    site.open(&[&server]);
    let requests = fixtures.requests(async |path: &str| server.json(path).await).await;
    let load = Arc::new(Load::through(site.door.url()));
    let crowd = Crowd::of(6, seed, requests, &load);

    let mut starts = Vec::new();
    for kill in 1..=KILLS {
        let pause = Random::of(seed, u64::from(kill)).number(0.2, 1.8) / f64::from(2 * KILLS);
        tokio::time::sleep(whole.mul_f64(pause)).await;
        let (launch, killed) = (server.launch(), Instant::now());
        server.kill();
        server = Server::start_ready(&launch).await;
        starts.push(killed.elapsed());
        site.open(&[&server]);
        println!("T26 after {kill} kills: {} accepted", load.ids().len());
    }
    // The process loads models again after the last kill.
    tokio::time::sleep(whole / 20).await;
    let (alone, mut memory, mut files) = (Instant::now(), Memory::default(), Vec::new());
    while alone.elapsed() < whole / 2 {
        memory.sample(server.resident_bytes());
        files.extend(server.open_files());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let figures = Figures::default()
        .note(crowd.stopped().await)
        .note(format!("{KILLS} kills, slowest start {:.2} s", starts.iter().max().unwrap().as_secs_f64()))
        .note(memory.to_string())
        .note(format!("{} to {} open files", files.iter().min().unwrap_or(&0), files.iter().max().unwrap_or(&0)))
        .note(format!("{} requests tried again", load.refused.load(Relaxed) + load.broken.load(Relaxed)));
    site.verdict(&load, figures).await;
    assert!(memory.is_flat(), "{memory}");
    assert!(server.terminate().success());
    assert_database_is_intact(&site.data_dir().join("latentd.db")).await;
}
