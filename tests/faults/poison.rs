//! Fault tests of a generation that crashes every process that runs it.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use reqwest::StatusCode;
use serde_json::Value;

use crate::{
    figures::{Figures, leases},
    load::{Load, request},
    server::{PATIENCE, Server},
    site::Site,
    steps::logged,
};

/// T4. The test simulates the crash: it kills each worker that has begun the poisonous generation.
#[tokio::test(flavor = "multi_thread")]
async fn a_poisonous_generation_fails_and_fifty_others_succeed() {
    let Some(site) = Site::shared("T4 a poison among fifty, batches of four").await else { return };
    let site = site.with("LATENTD_ENGINE__MAX_RUNS", 4).with("LATENTD_QUEUE__MAX_CRASHES", 3);
    let (api, mut worker) = (site.start("api").await, site.start("worker").await);
    site.open(&[&api]);
    let load = Load::through(site.door.url());
    let mut bodies: Vec<Value> = (0..51).map(|seed| request(seed, 60)).collect();
    bodies[20] = request(20, 900);
    let ids = load.submit_all("t4", &bodies).await;
    let poison = &ids[20];
    let (mut kills, begun) = (0, Instant::now());
    let mut mates = BTreeSet::new();
    while load.look(poison).await.unwrap()["status"] != "failed" {
        assert!(begun.elapsed() < PATIENCE, "the poisonous generation does not fail");
        assert_eq!(api.get("/health").await.status(), StatusCode::OK);
        let started = logged(&worker.launch(), "generation started").iter().filter(|id| *id == poison).count();
        if started > kills {
            let running = load.list("&status=running").await;
            if !running.iter().any(|generation| generation["id"] == poison.as_str()) {
                continue;
            }
            let beside = running.iter().map(|generation| generation["id"].as_str().unwrap().to_owned());
            mates.extend(beside.filter(|id| id != poison));
            assert!(kills <= 1 || running.len() == 1, "after two crashes it does not run alone: {running:?}");
            worker = worker.kill_and_restart().await;
            kills += 1;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let given_up = begun.elapsed();
    let generation = load.look(poison).await.unwrap();
    assert_eq!((kills, &generation["error"]["code"]), (3, &"worker_crashed".into()), "{generation}");
    let dead: Value = api.get_operator("/admin/generations?dead=true").await.json().await.unwrap();
    let dead: Vec<&Value> = dead["data"].as_array().unwrap().iter().map(|generation| &generation["id"]).collect();
    assert_eq!(dead, [poison.as_str()]);
    for id in ids.iter().filter(|id| *id != poison) {
        let generation = load.ended(id).await.unwrap();
        assert_eq!(
            generation["status"], "succeeded",
            "a generation that ran with the poisonous one did not succeed: {generation}"
        );
    }
    let figures = Figures::default()
        .note(format!("given up after {kills} kills in {:.2} leases", leases(given_up)))
        .note(format!("{} mates, all succeeded", mates.len()))
        .note("a crash of the program's own making could not be shown");
    site.verdict(&load, figures).await;
    // The operator can requeue the generation. Its history then has two ends, so this comes after the verdict.
    let requeue = |server: &Server| {
        server
            .client
            .post(format!("{}/admin/generations/{poison}/requeue", server.operator))
            .header("content-type", "application/json")
            .send()
    };
    assert!(requeue(&api).await.unwrap().status().is_success());
    let revived = loop {
        let generation = load.ended(poison).await.unwrap();
        if generation["status"] == "succeeded" {
            break generation;
        }
    };
    assert_eq!(revived["images"].as_array().unwrap().len(), 1);
}
