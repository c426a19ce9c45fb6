//! Fault tests of workers that are suspended or cut off from the database for longer than their lease.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{
    figures::{Figures, leases},
    load::{Load, request},
    proxy::{Backend, Network, Proxy},
    server::Server,
    site::{LEASE, Site},
};

const STEPS: u32 = 500;

/// T3.
#[tokio::test(flavor = "multi_thread")]
async fn writes_of_a_suspended_worker_are_refused_after_a_takeover() {
    let Some(site) = Site::shared("T3 SIGSTOP of a worker, and SIGCONT").await else { return };
    let launch = site.launch("worker");
    let (api, first) = (site.start("api").await, Server::start_ready(&launch).await);
    site.open(&[&api]);
    interrupt_first_worker(
        site,
        first,
        async |first: &Server| first.signal("STOP"),
        async |first: &Server| first.signal("CONT"),
    )
    .await;
}

/// T15.
#[tokio::test(flavor = "multi_thread")]
async fn writes_of_a_worker_without_its_database_are_refused_after_a_takeover() {
    let Some(site) = Site::shared("T15 partition of a worker and PostgreSQL").await else { return };
    let network = Proxy::to(vec![Backend::Unix(site.cluster().socket())]).await;
    let launch = site.launch("worker").set("LATENTD_DATABASE__URL", site.database_through(&network));
    let (api, first) = (site.start("api").await, Server::start_ready(&launch).await);
    site.open(&[&api]);
    let cut = async |first: &Server| {
        network.set(Network::Blackhole);
        let cut = Instant::now();
        // The worker must give up by its own clock, without any message.
        first
            .until("it gives up what it has", async |first: &Server| {
                first.metric("latentd_leases_lost_total", "").await >= 4.0
            })
            .await;
        println!("T15: fenced itself {:.2} leases after the cut", leases(cut.elapsed()));
    };
    interrupt_first_worker(site, first, cut, async |_: &Server| network.set(Network::Pass)).await;
}

/// Interrupts the first worker with `goes` while it runs four generations, which a second worker then finishes. After
/// that, `comes_back` ends the interruption, and the late writes of the first worker must be refused.
async fn interrupt_first_worker(
    site: Site,
    first: Server,
    goes: impl AsyncFn(&Server),
    comes_back: impl AsyncFn(&Server),
) {
    let load = Load::through(site.door.url());
    let bodies: Vec<Value> = (0..4).map(|seed| request(seed, STEPS)).collect();
    let ids = load.submit_all("away", &bodies).await;
    first.until("they run", async |first: &Server| first.metric("latentd_steps_total", "").await > 200.0).await;
    let second = site.start("worker").await;
    let gone = Instant::now();
    let leaves = goes(&first);
    let taken_over = async {
        while load.list("&status=running").await.iter().all(|generation| generation["attempt"] == 1) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        gone.elapsed()
    };
    let ((), recovery) = tokio::join!(leaves, taken_over);
    let mut pictures = Vec::new();
    for id in &ids {
        let generation = load.ended(id).await.unwrap();
        assert_eq!((&generation["status"], &generation["attempt"]), (&"succeeded".into(), &2.into()), "{generation}");
        pictures.push(generation["images"][0]["unsigned_sha256"].clone());
    }
    assert!(leases(recovery) < 4.0, "others take over {:.2} leases after it is gone", leases(recovery));
    tokio::time::sleep((LEASE * 2).saturating_sub(gone.elapsed())).await;
    comes_back(&first).await;
    first
        .until("it knows that it has lost them", async |first: &Server| {
            first.metric("latentd_fenced_writes_total", "").await >= 4.0
        })
        .await;
    let replayed = second.metric("latentd_replayed_steps_total", "").await;
    assert!(replayed > 0.0, "the second worker resumes from the log");
    // The first worker still works: alone, it draws the same pictures as the second.
    assert!(second.stopped().await.success());
    let same = load.submit_all("same", &bodies).await;
    for (id, picture) in same.iter().zip(&pictures) {
        let generation = load.ended(id).await.unwrap();
        assert_eq!(
            (&generation["images"][0]["unsigned_sha256"], &generation["attempt"]),
            (picture, &1.into()),
            "{generation}"
        );
    }
    for (id, picture) in ids.iter().zip(&pictures) {
        assert_eq!(
            &load.look(id).await.unwrap()["images"][0]["unsigned_sha256"],
            picture,
            "the winner's picture stays"
        );
    }
    let fenced = first.metric("latentd_fenced_writes_total", "").await;
    let computed = first.metric("latentd_steps_total", "").await;
    let figures = Figures::default()
        .recovered_in(recovery)
        .note(format!("{fenced} writes of the loser were refused"))
        .note(format!("{replayed} steps replayed elsewhere, {computed} computed by the one that was away"))
        .note(format!("away for {:.2} leases", leases(gone.elapsed())));
    site.verdict(&load, figures).await;
}
