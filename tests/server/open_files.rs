//! Tests of low limits of open files, and of a server that has no file descriptors left for a while.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use futures::future::join_all;
use reqwest::{Client, StatusCode};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::{
    harness::{Launch, PATIENCE, Server, request, with},
    parity_over_http::case,
};

/// Starts the server with this hard limit of open files, and its log in `data`.
fn limited(data: &tempfile::TempDir, files: u64) -> Launch {
    let mut launch = Launch::on(&data.path().join("data"));
    launch.wrapper = ["sh", "-c", &format!("ulimit -n {files}; exec \"$0\" \"$@\"")].map(str::to_owned).to_vec();
    launch.log = Some(data.path().join("log"));
    launch
}

fn assert_nothing_lacked_files(data: &tempfile::TempDir) {
    let log = std::fs::read_to_string(data.path().join("log")).unwrap();
    assert!(!log.contains("Too many open files") && !log.contains("unable to open database"), "{log}");
}

/// Changes the soft limit of the server's open files; returns the limits from before.
fn set_soft_limit(server: &Server, files: u64) -> Rlimit {
    let pid = Pid::from_raw(server.pid().cast_signed());
    let before = rustix::process::getrlimit(Resource::Nofile);
    prlimit(pid, Resource::Nofile, Rlimit { current: Some(files), maximum: before.maximum }).unwrap()
}

/// The soft limit with which the server can open `more` more files.
fn limit_for(server: &Server, more: usize) -> u64 {
    let names = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap();
    let open: BTreeSet<u64> = names.map(|name| name.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect();
    (0..).filter(|number| !open.contains(number)).nth(more).unwrap()
}

#[tokio::test]
async fn finished_pictures_wait_for_file_descriptors() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;
    let mut ids = Vec::new();
    for seed in 0..4 {
        // One row of the network for each step.
        let plain = json!({"steps": 60, "guidance_scale": 1, "scheduler": "euler"});
        ids.push(server.accept(&with(request("a red fox", seed), &plain)).await);
    }
    server.until("they run", async |server: &Server| server.metric("latentd_steps_total", "").await > 8.0).await;
    let before = set_soft_limit(&server, 3);
    // The server answers on connections that were open before.
    server
        .until("they are drawn", async |server: &Server| server.metric("latentd_steps_total", "").await >= 240.0)
        .await;
    // Longer than the pauses between three attempts at a generation.
    tokio::time::sleep(Duration::from_secs(5)).await;
    set_soft_limit(&server, before.current.unwrap_or(4096));
    for id in &ids {
        let ended = server.ended(id).await;
        assert_eq!((&ended["status"], &ended["attempt"]), (&json!("succeeded"), &json!(1)), "{ended}");
    }
    assert!(server.metric("latentd_steps_total", "").await < 300.0, "a picture was drawn again");
}

#[test]
fn a_limit_that_is_too_low_for_a_server_is_named() {
    let data = tempfile::tempdir().unwrap();
    // A server that starts is ended after a minute.
    let output = std::process::Command::new("sh")
        .args(["-c", "ulimit -n 40; exec timeout 60 \"$0\" serve", env!("CARGO_BIN_EXE_latentd")])
        .env("LATENTD_DATA_DIR", data.path())
        .env("LATENTD_HTTP__BIND", "127.0.0.1:0")
        .env("LATENTD_OPERATOR__BIND", "127.0.0.1:0")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(text.contains("the limit of open files is 40") && text.contains("at least 64"), "{text}");
}

/// With this limit, the operator listener takes 8 connections. The test leaves one of them free.
#[tokio::test]
async fn the_least_limit_bears_idle_connections_to_both_listeners() {
    let data = tempfile::tempdir().unwrap();
    let launch = limited(&data, 64).set("LATENTD_HTTP__HEADER_TIMEOUT_S", "1000");
    let server = Server::start_ready(&launch).await;
    let id = server.accept(&with(request("a red fox", 1), &json!({"steps": 2}))).await;
    let mut held = Vec::new();
    for (listener, connections) in [(&server.operator, 6), (&server.public, 100)] {
        for _ in 0..connections {
            held.push(TcpStream::connect(listener.trim_start_matches("http://")).await.unwrap());
        }
    }
    let fresh = Client::builder().timeout(PATIENCE).pool_max_idle_per_host(0).build().unwrap();
    for path in ["/livez", "/readyz", "/metrics"] {
        let answer = fresh.get(format!("{}{path}", server.operator)).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
    }
    assert_eq!(server.ended(&id).await["status"], "succeeded", "on the connection from before");
    assert_nothing_lacked_files(&data);
}

#[tokio::test]
async fn many_uploads_at_once_wait_for_each_other() {
    let data = tempfile::tempdir().unwrap();
    let launch = limited(&data, 80).set("LATENTD_QUEUE__MAX_QUEUED", 1000);
    let server = Server::start_ready(&launch).await;
    let client = Client::builder().http2_prior_knowledge().timeout(PATIENCE).build().unwrap();
    let uploads = (0..100u8).map(|index| {
        let image = STANDARD.encode(picture(index));
        let body = with(request("a red fox", 1), &json!({"steps": 2, "strength": 0.5, "image": {"b64": image}}));
        let sent = client.post(server.url("/v1/images")).json(&body).send();
        async move {
            let answer = sent.await.unwrap();
            (answer.status(), answer.text().await.unwrap())
        }
    });
    for (status, text) in join_all(uploads).await {
        assert_eq!(status, StatusCode::ACCEPTED, "{text}");
    }
    assert_nothing_lacked_files(&data);
}

/// A picture of one gray.
fn picture(gray: u8) -> Vec<u8> {
    let mut file = Vec::new();
    let encoder = png::Encoder::new(&mut file, 64, 64);
    encoder.write_header().unwrap().write_image_data(&[gray; 64 * 64]).unwrap();
    file
}

#[tokio::test]
async fn a_reload_without_file_descriptors_changes_nothing() {
    let names = ["sd1", "sd2", "ip2p"];
    let models = case::models(&PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity"), &names);
    let data = tempfile::tempdir().unwrap();
    let settings = [
        ("LATENTD_MODELS__DIR", models.path().to_str().unwrap()),
        ("LATENTD_MODELS__DEFAULT", "sd1"),
        ("LATENTD_MODELS__POLL_INTERVAL_S", "0"),
    ];
    let server = Server::start(data.path(), &settings).await;
    let reload = async || {
        let asked = server.client.post(format!("{}/admin/reload", server.operator));
        let answer = asked.header("content-type", "application/json").send().await.unwrap();
        (answer.status(), answer.json::<Value>().await.unwrap())
    };
    for more in 0..4 {
        // Files that have changed are read again.
        for name in names {
            std::fs::write(models.path().join(name).join("notes.txt"), format!("{more}")).unwrap();
        }
        // The connection is open, and whatever else the server keeps open.
        assert_eq!(server.get_operator("/livez").await.status(), StatusCode::OK);
        let before = set_soft_limit(&server, limit_for(&server, more));
        let (status, reloaded) = reload().await;
        set_soft_limit(&server, before.current.unwrap_or(4096));
        if status != StatusCode::OK {
            assert_eq!((status.as_u16(), &reloaded["code"]), (500, &json!("catalogue_unreadable")), "{reloaded}");
        }
        assert!(more > 0 || status != StatusCode::OK, "without a file descriptor: {reloaded}");
        for name in names {
            let model = server.json(&format!("/v1/models/{name}")).await;
            assert_ne!(model["state"], "failed", "{status} with {more} file descriptors: {model}");
        }
    }
    assert_eq!(reload().await.0, StatusCode::OK);
}
