//! A new version is rolled out: every process is replaced while clients go on.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use crate::{
    figures::{Figures, leases},
    load::{Load, request},
    server::{PATIENCE, Server},
    site::Site,
    steps::{COMPUTED, Meter},
};

const STEPS: u32 = 150;

/// T6.
#[tokio::test(flavor = "multi_thread")]
async fn every_process_is_replaced_under_load() {
    let Some(site) = Site::with_bucket("T6 SIGTERM and rolling restart of all five processes under load").await else {
        return;
    };
    let site = site.with("LATENTD_ENGINE__MAX_RUNS", 8);
    let mut apis = [site.start("api").await, site.start("api").await, site.start("api").await];
    let mut workers = [site.start("worker").await, site.start("worker").await];
    site.open(&apis.each_ref());
    let load = Arc::new(Load::through(site.door.url()));
    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|client| {
            let (load, over) = (load.clone(), over.clone());
            tokio::spawn(async move {
                let mut made = 0;
                while !over.load(Relaxed) {
                    load.submit(&format!("{client}-{made}"), &request(100 * client + made, STEPS)).await;
                    made += 1;
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            })
        })
        .collect();
    let mut meters: Vec<Meter> = workers.iter().map(Meter::of).collect();
    meters_reach(&meters, 200.0).await;
    let mut grace = Duration::ZERO;
    for worker in &mut workers {
        let next = site.start("worker").await;
        meters.push(Meter::of(&next));
        let asked = Instant::now();
        assert!(std::mem::replace(worker, next).stopped().await.success());
        grace = grace.max(asked.elapsed());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    for i in 0..apis.len() {
        let next = site.start("api").await;
        let old = std::mem::replace(&mut apis[i], next);
        // As a balancer does that hears of it before the process does.
        site.open(&apis.each_ref());
        let asked = Instant::now();
        assert!(old.stopped().await.success());
        grace = grace.max(asked.elapsed());
    }
    over.store(true, Relaxed);
    futures::future::join_all(clients).await.into_iter().for_each(|client| client.unwrap());
    for id in load.ids() {
        let generation = load.ended(&id).await.unwrap();
        assert_eq!(generation["status"], "succeeded", "{generation}");
        assert_eq!(generation["attempt"], 1, "giving back is no attempt: {generation}");
    }
    let needed = load.ids().len() as f64 * f64::from(STEPS);
    let computed: f64 = meters.iter().map(|meter| meter.last(COMPUTED)).sum();
    assert!(computed <= needed, "{computed} steps were computed where {needed} were needed");
    assert_eq!(load.broken.load(Relaxed), 0, "no connection was cut");
    let figures = Figures::default()
        .repeated((computed - needed).max(0.0), needed)
        .note(format!("{} connections cut", load.broken.load(Relaxed)))
        .note(format!("slowest end {:.2} leases after SIGTERM", leases(grace)))
        .note("steps of a stopping process are counted up to 20 ms before SIGTERM");
    site.verdict(&load, figures).await;
}

async fn meters_reach(meters: &[Meter], steps: f64) {
    let begun = Instant::now();
    while meters.iter().any(|meter| meter.last(COMPUTED) < steps) {
        assert!(begun.elapsed() < PATIENCE, "all workers work");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A second SIGTERM does not wait; the ledger survives that.
#[tokio::test(flavor = "multi_thread")]
async fn who_asks_twice_does_not_wait() {
    let site = Site::single("T6 a second SIGTERM").await;
    let server = site.start("all").await;
    site.open(&[&server]);
    let load = Load::through(site.door.url());
    load.submit("t6", &request(1, 900)).await;
    server.until("it runs", async |server: &Server| server.metric(COMPUTED, "").await > 20.0).await;
    let launch = server.launch();
    // An open stream keeps the process from ending at once.
    server.signal("TERM");
    server.signal("TERM");
    let status = server.exit().await;
    assert!(status.success() || status.code() == Some(130), "{status}");
    let server = Server::again(&launch).await;
    site.open(&[&server]);
    site.verdict(&load, Figures::default()).await;
}
