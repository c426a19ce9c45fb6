//! Hours of it: `make soak`.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use crate::{
    figures::Figures,
    kills::fastrand,
    load::{Load, is_active, request},
    proxy::Network,
    server::Server,
    site::{LEASE, Site},
};

/// T25. For so many seconds as the variable SOAK_SECONDS says; without it not at all.
#[tokio::test(flavor = "multi_thread")]
async fn soak() {
    let Some(seconds) = std::env::var("SOAK_SECONDS").ok().map(|text| text.parse::<u64>().unwrap()) else {
        println!("T25 soak: not now; make soak runs it");
        return;
    };
    let Some(site) = Site::with_bucket("T25 soak").await else { return };
    let site = site.with("LATENTD_QUEUE__MAX_CRASHES", 1000);
    let mut apis = [site.start("api").await, site.start("api").await, site.start("api").await];
    let mut workers = [site.start("worker").await, site.start("worker").await];
    site.open(&apis.each_ref());
    let load = Arc::new(Load::through(site.door.url()));
    let over = Arc::new(AtomicBool::new(false));
    let canceled = Arc::new(Mutex::new(0));
    let clients: Vec<_> = (0..4)
        .map(|client| {
            let (load, over, canceled) = (load.clone(), over.clone(), canceled.clone());
            tokio::spawn(async move {
                let mut made = 0;
                while !over.load(Relaxed) {
                    let seed = 1_000_000 * client + made;
                    let steps = 10 + fastrand(seed, 90) as u32;
                    let id = load.submit(&format!("{client}-{made}"), &request(seed, steps)).await;
                    made += 1;
                    if fastrand(seed, 10) < 3 {
                        load.cancel(&id).await;
                        *canceled.lock().unwrap() += 1;
                    } else if load.look(&id).await.is_some_and(|generation| is_active(&generation)) {
                        load.ended(&id).await;
                    }
                }
            })
        })
        .collect();
    let (begun, mut turn) = (Instant::now(), 0);
    let (mut memory, mut files) = (Vec::new(), Vec::new());
    let mut next = Duration::ZERO;
    while begun.elapsed() < Duration::from_secs(seconds) {
        // Of a replica that nobody kills.
        memory.push((begun.elapsed().as_secs_f64() / 60.0, apis[0].resident_bytes() as f64 / f64::from(1 << 20)));
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
                    site.door.lead_to(apis.iter().skip(2).map(|api| crate::proxy::backend(&api.public)).collect());
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
    over.store(true, Relaxed);
    futures::future::join_all(clients).await.into_iter().for_each(|client| client.unwrap());
    let figures = Figures::default()
        .note(format!("{} canceled, {turn} faults", canceled.lock().unwrap()))
        .note(format!(
            "resident memory of a replica {:+.2} MiB a minute over the last half",
            slope(&memory[memory.len() / 2..])
        ))
        .note(format!("{} to {} open files", files.iter().min().unwrap_or(&0), files.iter().max().unwrap_or(&0)))
        .note(format!("{} requests tried again", load.refused.load(Relaxed) + load.broken.load(Relaxed)));
    site.verdict(&load, figures).await;
}

async fn replace(server: &mut Server, by_force: bool) {
    let next = Server::again(&server.launch()).await;
    let old = std::mem::replace(server, next);
    if by_force {
        old.kill();
    } else {
        assert!(old.stopped().await.success());
    }
}

/// Of the line that fits best.
fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let across: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    let along: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    if along > 0.0 { across / along } else { 0.0 }
}

#[test]
fn the_slope_of_a_line() {
    assert_eq!(slope(&[(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)]), 2.0);
    assert_eq!(slope(&[(1.0, 1.0)]), 0.0);
}
