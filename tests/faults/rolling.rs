//! Fault tests of a rolling restart: every process is replaced while clients send requests.

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
async fn a_rolling_restart_under_load_loses_nothing() {
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
        // The load balancer removes the process before the process gets SIGTERM.
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
        assert_eq!(generation["attempt"], 1, "a requeue must not count as an attempt: {generation}");
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
        assert!(begun.elapsed() < PATIENCE, "not all workers compute");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// After a second SIGTERM the process ends without waiting, and the ledger stays intact.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_sigterm_ends_the_process_without_waiting() {
    let site = Site::single("T6 a second SIGTERM").await;
    let server = site.start("all").await;
    site.open(&[&server]);
    let load = Load::through(site.door.url());
    load.submit("t6", &request(1, 900)).await;
    server.until("it runs", async |server: &Server| server.metric(COMPUTED, "").await > 20.0).await;
    let launch = server.launch();
    // The running generation would delay the end after a single SIGTERM.
    server.signal("TERM");
    server.signal("TERM");
    let status = server.exit().await;
    assert!(status.success() || status.code() == Some(130), "{status}");
    let server = Server::start_ready(&launch).await;
    site.open(&[&server]);
    site.verdict(&load, Figures::default()).await;
}
