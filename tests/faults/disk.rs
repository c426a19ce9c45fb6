//! Fault tests of a full disk.

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
    kills::assert_database_is_intact,
    load::{Load, request},
    server::{PATIENCE, Server},
    site::Site,
};

/// Shell command that mounts a small tmpfs at $0 in its own mount namespace and then becomes the process.
const SMALL_DISK: &str = r#"mount -t tmpfs -o size=24m none "$0" && exec "$@""#;

/// T17.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_requests_and_loses_no_generation() {
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
    let server = Server::start_ready(&launch).await;
    site.open(&[&server]);
    let load = Load::through(site.door.url());
    let inside = PathBuf::from(format!("/proc/{}/root", server.pid())).join(site.data_dir().strip_prefix("/").unwrap());
    assert!(inside.join("latentd.db").exists(), "the small disk cannot be reached");
    site.blobs = inside.join("blobs");

    let long: Vec<Value> = (0..4).map(|seed| request(seed, 200)).collect();
    let running = load.submit_all("running", &long).await;
    server.until("they run", async |server: &Server| server.metric("latentd_steps_total", "").await > 20.0).await;
    // Fills all free space, and again whenever the server has freed some.
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
            // The ledger still had a free page.
            StatusCode::ACCEPTED => load.note(&format!("late {}", problem["id"]), problem["id"].as_str().unwrap()),
            _ => {
                let told = (status, problem["code"].as_str(), after);
                assert_eq!(told, (StatusCode::SERVICE_UNAVAILABLE, Some("storage_full"), true), "{problem}");
                refusals.push(problem);
            }
        }
        assert!(full.elapsed() < PATIENCE, "the disk does not fill up");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(server.get_operator("/livez").await.status(), StatusCode::OK);
    // Waits until the running generations try to store their pictures, for which there is no space.
    server
        .until("they are drawn", async |server: &Server| server.metric("latentd_steps_total", "").await >= 800.0)
        .await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    for id in &running {
        let generation = server.json(&format!("/v1/images/{id}")).await;
        assert_ne!(generation["status"], "succeeded", "a generation succeeded without space for its picture");
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
    assert_database_is_intact(&copy.join("latentd.db")).await;
    site.verdict(&load, figures).await;
}
