//! A soak test with minutes or hours of random requests and faults: `make soak`.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::{
    crowd::Crowd,
    figures::Figures,
    fixtures::Fixtures,
    load::Load,
    memory::Memory,
    proxy::Network,
    server::Server,
    site::{LEASE, Site},
};

/// The duration of a soak test from the variable SOAK_SECONDS; without it, `None` skips the test.
pub fn seconds() -> Option<Duration> {
    std::env::var("SOAK_SECONDS").ok().map(|text| Duration::from_secs(text.parse().unwrap()))
}

/// The seed of the requests from the variable SOAK_SEED, otherwise from the current time.
pub fn seed() -> u64 {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    std::env::var("SOAK_SEED").ok().map_or_else(now, |text| text.parse().unwrap())
}

/// T25.
#[tokio::test(flavor = "multi_thread")]
async fn soak() {
    let Some(whole) = seconds() else {
        println!("T25 soak: not now; make soak runs it");
        return;
    };
    let (seed, fixtures) = (seed(), Fixtures::all());
    println!("T25 seed {seed}");
    let Some(site) = Site::with_bucket("T25 soak").await else { return };
    let mut site = site.with("LATENTD_QUEUE__MAX_CRASHES", 1000);
    for (name, value) in fixtures.settings() {
        site = site.with(&name, value);
    }
    let mut apis = [site.start("api").await, site.start("api").await, site.start("api").await];
    let mut workers = [site.start("worker").await, site.start("worker").await];
    site.open(&apis.each_ref());
    let requests = fixtures.requests(async |path: &str| apis[0].json(path).await).await;
    let load = Arc::new(Load::through(site.door.url()));
    let crowd = Crowd::of(6, seed, requests, &load);
    let (begun, mut turn) = (Instant::now(), 0);
    let (mut memory, mut files) = (Memory::default(), Vec::new());
    let mut next = Duration::ZERO;
    while begun.elapsed() < whole {
        // No fault kills this replica.
        memory.sample(apis[0].resident_bytes());
        files.extend(apis[0].open_files());
        if begun.elapsed() >= next {
            next += Duration::from_secs(20);
            match turn % 6 {
                0 => replace(&mut workers[turn / 6 % 2], true).await,
                1 => {
                    let worker = &workers[turn / 6 % 2];
                    worker.signal("STOP");
                    tokio::time::sleep(LEASE * 2).await;
                    worker.signal("CONT");
                }
                2 => {
                    site.network().set(Network::Blackhole);
                    tokio::time::sleep(LEASE * 3 / 2).await;
                    site.network().set(Network::Pass);
                }
                3 => tokio::task::block_in_place(|| {
                    site.cluster().stop();
                    site.cluster().start_again();
                }),
                4 => {
                    site.door.set_backends(apis.iter().skip(2).map(|api| crate::proxy::backend(&api.public)).collect());
                    replace(&mut apis[1], false).await;
                    site.open(&apis.each_ref());
                }
                _ => {
                    site.network().set(Network::Reset);
                    tokio::time::sleep(LEASE / 2).await;
                    site.network().set(Network::Pass);
                }
            }
            turn += 1;
            println!("T25 after {} s: {} accepted, {turn} faults", begun.elapsed().as_secs(), load.ids().len());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let figures = Figures::default()
        .note(crowd.stopped().await)
        .note(format!("{turn} faults"))
        .note(format!("of a replica {memory}"))
        .note(format!("{} to {} open files", files.iter().min().unwrap_or(&0), files.iter().max().unwrap_or(&0)))
        .note(format!("{} requests tried again", load.refused.load(Relaxed) + load.broken.load(Relaxed)));
    site.verdict(&load, figures).await;
    assert!(memory.is_flat(), "{memory}");
}

async fn replace(server: &mut Server, by_force: bool) {
    let next = Server::start_ready(&server.launch()).await;
    let old = std::mem::replace(server, next);
    if by_force {
        old.kill();
    } else {
        assert!(old.stopped().await.success());
    }
}
