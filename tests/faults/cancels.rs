//! Fault tests of hundreds of concurrent cancels.

use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use reqwest::StatusCode;

use crate::{
    figures::{Figures, leases},
    load::{Load, request},
    site::Site,
};

/// T11.
#[tokio::test(flavor = "multi_thread")]
async fn many_concurrent_cancels_are_consistent() {
    let site = Site::single("T11 five hundred cancels, twice, in a race with the ends").await;
    let site = site.with("LATENTD_ENGINE__MAX_RUNS", 8);
    storm(site, 508, "all", "").await;
}

/// T11 with workers and API in different processes.
#[tokio::test(flavor = "multi_thread")]
async fn many_concurrent_cancels_across_processes_are_consistent() {
    let name = "T11 two hundred cancels across processes, twice, in a race with the ends";
    let Some(site) = Site::shared(name).await else { return };
    storm(site.with("LATENTD_ENGINE__MAX_RUNS", 4), 208, "api", "worker worker").await;
}

async fn storm(site: Site, all: u64, front: &str, behind: &str) {
    let (api, mut workers) = (site.start(front).await, Vec::new());
    for role in behind.split_whitespace() {
        workers.push(site.start(role).await);
    }
    site.open(&[&api]);
    let load = Load::through(site.door.url());
    // The first generations are short, so that some end while they are being canceled.
    let bodies: Vec<_> = (0..all).map(|seed| request(seed, if seed < 40 { 20 + seed as u32 } else { 400 })).collect();
    let ids = load.submit_all("t11", &bodies).await;
    let begun = Instant::now();
    let canceled: Vec<_> = stream::iter(&ids)
        .map(async |id| {
            let first = load.cancel(id).await;
            let second = load.cancel(id).await;
            (id, first, second, begun.elapsed())
        })
        .buffer_unordered(16)
        .collect()
        .await;
    let asked = begun.elapsed();
    let (mut at_once, mut asked_for, mut too_late) = (0, 0, 0);
    let mut slowest = Duration::ZERO;
    for (id, (status, first), (again, second), answered) in canceled {
        let last = load.ended(id).await.unwrap();
        match (status, first["status"].as_str().unwrap()) {
            (StatusCode::ACCEPTED, "running" | "canceled") => {
                asked_for += 1;
                assert_eq!(last["status"], "canceled", "a canceled generation does not succeed");
                assert!([StatusCode::ACCEPTED, StatusCode::OK].contains(&again));
            }
            (StatusCode::OK, "canceled") => {
                at_once += 1;
                assert_eq!(
                    (&last["status"], again, &second["status"]),
                    (&"canceled".into(), StatusCode::OK, &"canceled".into())
                );
            }
            (StatusCode::OK, "succeeded") => {
                too_late += 1;
                assert_eq!(
                    (&last["status"], again, &second["status"]),
                    (&"succeeded".into(), StatusCode::OK, &"succeeded".into())
                );
            }
            (status, word) => panic!("{id}: {status} {word}"),
        }
        slowest = slowest.max(answered);
    }
    let over = begun.elapsed();
    let figures = Figures::default()
        .note(format!("{at_once} canceled before they began, {asked_for} while they ran, {too_late} had ended"))
        .note(format!("asked for in {:.2} leases, over after {:.2}", leases(asked), leases(over)));
    site.verdict(&load, figures).await;
}
