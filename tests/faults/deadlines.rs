//! Fault tests of the timeouts of waiting and running generations.

use std::time::Instant;

use serde_json::json;

use crate::{
    figures::{Figures, leases},
    load::{Load, request},
    server::{Server, with},
    site::Site,
};

/// T23.
#[tokio::test(flavor = "multi_thread")]
async fn runs_and_waits_that_take_too_long_end() {
    deadlines(Site::single("T23 start_timeout_s and run_timeout_s, on SQLite").await).await;
    if let Some(site) = Site::shared("T23 start_timeout_s and run_timeout_s, on PostgreSQL").await {
        deadlines(site).await;
    }
}

async fn deadlines(site: Site) {
    let site = site.with("LATENTD_ENGINE__MAX_RUNS", 1);
    let server = site.start("all").await;
    site.open(&[&server]);
    let load = Load::through(site.door.url());
    // Takes longer than its timeout on any machine.
    let endless = with(request(1, 1000), &json!({"n": 8, "width": 256, "height": 256, "run_timeout_s": 2}));
    let hung = load.submit("hung", &endless).await;
    server.until("it runs", async |server: &Server| server.metric("latentd_steps_total", "").await > 0.0).await;
    let begun = Instant::now();
    let late = load.submit("late", &with(request(2, 5), &json!({"start_timeout_s": 1}))).await;
    let next = load.submit("next", &request(3, 5)).await;
    assert_eq!(load.ended(&late).await.unwrap()["status"], "expired");
    let generation = load.ended(&hung).await.unwrap();
    let ended = begun.elapsed();
    assert_eq!(
        (&generation["status"], &generation["error"]["code"]),
        (&"failed".into(), &"run_timeout".into()),
        "{generation}"
    );
    assert_eq!(load.ended(&next).await.unwrap()["status"], "succeeded");
    let history = server.get(&format!("/v1/images/{late}/events")).await.text().await.unwrap();
    assert!(!history.contains("generation.started"), "an expired generation has started: {history}");
    let figures = Figures::default()
        .note(format!("run_timeout_s = 2 took {:.2} leases", leases(ended)))
        .note("a network call that never returns could not be shown");
    site.verdict(&load, figures).await;
}
