//! Fault tests of PostgreSQL: restarts under load and an outage.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use reqwest::StatusCode;
use serde_json::Value;

use crate::{
    figures::{Figures, leases},
    load::{Load, request},
    site::{LEASE, Site},
};

/// T14.
#[tokio::test(flavor = "multi_thread")]
async fn generations_survive_restarts_and_an_outage_of_the_database() {
    let Some(site) = Site::shared("T14 PostgreSQL killed five times under load, then away").await else { return };
    // Workers lose their leases in each outage, which does not speak against the generations.
    let site = site.with("LATENTD_DATABASE__TIMEOUT_S", 1).with("LATENTD_QUEUE__MAX_CRASHES", 100);
    let apis = [site.start("api").await, site.start("api").await];
    let workers = [site.start("worker").await, site.start("worker").await];
    site.open(&apis.each_ref());
    let load = Arc::new(Load::through(site.door.url()));
    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|client| {
            let (load, over) = (load.clone(), over.clone());
            tokio::spawn(async move {
                let mut made = 0;
                while !over.load(Relaxed) {
                    load.submit(&format!("{client}-{made}"), &request(100 * client + made, 100)).await;
                    made += 1;
                    tokio::time::sleep(Duration::from_millis(300)).await;
                }
            })
        })
        .collect();
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        tokio::task::block_in_place(|| {
            site.cluster().stop();
            site.cluster().start_again();
        });
    }
    tokio::time::sleep(Duration::from_millis(700)).await;
    tokio::task::block_in_place(|| site.cluster().stop());
    let stopped = Instant::now();
    let mut refused = 0;
    let mut unready = false;
    while stopped.elapsed() < LEASE * 2 {
        let answer = apis[0].post(&request(1, 5)).await;
        let (status, after) = (answer.status(), answer.headers().contains_key("retry-after"));
        let problem: Value = answer.json().await.unwrap();
        let told = (status, problem["code"].as_str(), after);
        assert_eq!(told, (StatusCode::SERVICE_UNAVAILABLE, Some("database_unavailable"), true), "{problem}");
        refused += 1;
        for server in apis.iter().chain(&workers) {
            assert_eq!(server.get_operator("/livez").await.status(), StatusCode::OK);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        unready |= apis[0].get_operator("/readyz").await.status() == StatusCode::SERVICE_UNAVAILABLE;
    }
    assert!(unready, "a replica without its database is not ready");
    tokio::task::block_in_place(|| site.cluster().start_again());
    let back = Instant::now();
    for server in apis.iter().chain(&workers) {
        server.is_ready().await;
    }
    let id = load.submit("after", &request(1, 5)).await;
    let recovery = back.elapsed();
    over.store(true, Relaxed);
    futures::future::join_all(clients).await.into_iter().for_each(|client| client.unwrap());
    for id in load.ids().into_iter().chain([id]) {
        let generation = load.ended(&id).await.unwrap();
        assert_eq!(generation["status"], "succeeded", "{generation}");
    }
    let mut lost = 0.0;
    for worker in &workers {
        lost += worker.metric("latentd_leases_lost_total", "").await;
    }
    let figures = Figures::default()
        .recovered_in(recovery)
        .note(format!("{refused} refused with 503 in {:.2} leases without a database", leases(back - stopped)))
        .note(format!("{lost} leases given up"))
        .note(format!("{} requests of clients tried again", load.refused.load(Relaxed) + load.broken.load(Relaxed)));
    site.verdict(&load, figures).await;
}
