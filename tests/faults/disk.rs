//! A disk that is full.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use reqwest::StatusCode;
use serde_json::Value;

use crate::{
    figures::{Figures, leases},
    kills::database_is_whole,
    load::{Load, request},
    server::{PATIENCE, Server},
    site::Site,
};

/// Makes a small disk at $0 that only the process itself sees, and goes on as the process.
const SMALL_DISK: &str = r#"mount -t tmpfs -o size=24m none "$0" && exec "$@""#;

/// T17.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk() {
    let mut site = Site::single("T17 disk full").await;
    fs::create_dir_all(site.data_dir()).unwrap();
    let wrapper = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"].map(str::to_owned);
    let place = site.data_dir().display().to_string();
    let can = Command::new(&wrapper[0]).args(&wrapper[1..]).args([SMALL_DISK, &place, "true"]).output();
    if !can.is_ok_and(|output| output.status.success()) {
        println!(
            "T17 could not be shown: this system lets nobody mount a small disk of their own (unshare --user --mount)"
        );
        return;
    }
    let mut launch = site.launch("all");
    launch.wrapper = [&wrapper[..], &[SMALL_DISK.to_owned(), place]].concat();
    let server = Server::again(&launch).await;
    site.open(&[&server]);
    let load = Load::through(site.door.url());
    let inside = PathBuf::from(format!("/proc/{}/root", server.pid())).join(site.data_dir().strip_prefix("/").unwrap());
    assert!(inside.join("latentd.db").exists(), "the small disk can be reached from here");
    site.blobs = inside.join("blobs");

    let long: Vec<Value> = (0..4).map(|seed| request(seed, 200)).collect();
    let running = load.submit_all("running", &long).await;
    server.until("they run", async |server: &Server| server.metric("latentd_steps_total", "").await > 20.0).await;
    // Whatever is free is taken, and taken again where the server finds some more.
    let ballast = inside.join("ballast");
    let mut taken = fs::File::create(&ballast).unwrap();
    let mut fill = || while std::io::Write::write(&mut taken, &[1; 4096]).is_ok_and(|written| written > 0) {};
    fill();
    let full = Instant::now();
    let mut refusals = Vec::new();
    while refusals.len() < 20 {
        fill();
        let answer = server.post(&request(99, 5)).await;
        let (status, after) = (answer.status(), answer.headers().contains_key("retry-after"));
        let problem: Value = answer.json().await.unwrap();
        match status {
            // The ledger had a page left.
            StatusCode::ACCEPTED => load.note(&format!("late {}", problem["id"]), problem["id"].as_str().unwrap()),
            _ => {
                let told = (status, problem["code"].as_str(), after);
                assert_eq!(told, (StatusCode::SERVICE_UNAVAILABLE, Some("storage_full"), true), "{problem}");
                refusals.push(problem);
            }
        }
        assert!(full.elapsed() < PATIENCE, "it never fills up");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(server.get_operator("/livez").await.status(), StatusCode::OK);
    // Long enough for the running ones to come to their pictures, which there is no room for.
    server
        .until("they are drawn", async |server: &Server| server.metric("latentd_steps_total", "").await >= 800.0)
        .await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    for id in &running {
        let generation = server.json(&format!("/v1/images/{id}")).await;
        assert_ne!(generation["status"], "succeeded", "no picture without room for it");
    }
    drop(taken);
    fs::remove_file(&ballast).unwrap();
    let freed = Instant::now();
    for id in &running {
        let generation = load.ended(id).await.expect("it ends");
        assert!(generation["status"] == "succeeded" || generation["error"]["retryable"] == true, "{generation}");
    }
    let recovery = freed.elapsed();
    load.submit("after", &request(100, 5)).await;
    let copy = site.folder.path().join("copy");
    fs::create_dir(&copy).unwrap();
    let figures = Figures::default()
        .recovered_in(recovery)
        .note(format!("{} refused with 503 storage_full", refusals.len()))
        .note(format!("full for {:.2} leases", leases(freed - full)));
    for entry in ["blobs", "latentd.db", "latentd.db-wal"] {
        let copied = Command::new("cp").arg("-r").arg(inside.join(entry)).arg(&copy).status().unwrap();
        assert!(copied.success(), "{entry}");
    }
    database_is_whole(&copy.join("latentd.db")).await;
    site.verdict(&load, figures).await;
}
