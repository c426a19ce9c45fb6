//! schemathesis reads `openapi.yaml`, sends requests that it allows and requests that it forbids, alone and along its
//! links, and checks every answer against it.

use std::{process::Command, time::Duration};

use reqwest::StatusCode;

use crate::{
    packages, scripts,
    server::{PATIENCE, Server},
};

/// Where `make random-contract` says for how many seconds each listener is tested, and which requests are sent. Without
/// it a short run sends the same requests every time.
const SECONDS: &str = "CONTRACT_SECONDS";
const SEED: &str = "CONTRACT_SEED";

/// Small pictures, because the contract does not depend on their size.
const LIMITS: [(&str, &str); 3] = [
    ("LATENTD_LIMITS__MAX_SIDE_PIXELS", "128"),
    ("LATENTD_LIMITS__MAX_IMAGES", "2"),
    ("LATENTD_LIMITS__MAX_STEPS", "30"),
];

#[tokio::test]
async fn answers_of_the_public_listener_follow_the_contract() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &LIMITS).await;
    check(&server, &server.public, &["--exclude-tag", "operator"]).await;
}

#[tokio::test]
async fn answers_of_the_operator_listener_follow_the_contract() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &LIMITS).await;
    check(&server, &server.operator, &["--include-tag", "operator"]).await;
}

/// Runs schemathesis against one listener, with the operations that `chosen` names.
async fn check(server: &Server, url: &str, chosen: &[&str]) {
    let Some(python) = scripts::install(|| packages::python("schemathesis")).await else { return };
    let mut command = Command::new(python.with_file_name("st"));
    let folder = packages::sources();
    command
        .env("SCHEMATHESIS_HOOKS", folder.join("schemathesis_hooks.py"))
        .arg("--config-file")
        .arg(folder.join("schemathesis.toml"))
        .args(["run", "--checks", "all", "--continue-on-failure", "--no-color", "--request-timeout", "60"])
        .arg(folder.join("../../openapi.yaml"));
    let seconds = std::env::var(SECONDS).ok();
    let length = match &seconds {
        None => vec!["--max-examples", "2", "--generation-deterministic"],
        Some(seconds) => vec!["--max-time", seconds, "--max-examples", "1000"],
    };
    let seed = std::env::var(SEED).ok();
    let seed = seed.iter().flat_map(|seed| ["--seed", seed]);
    let arguments: Vec<&str> =
        ["--url", url].into_iter().chain(chosen.iter().copied()).chain(length).chain(seed).collect();
    let seconds = seconds.as_ref().map_or(0, |seconds| seconds.parse().expect("CONTRACT_SECONDS is a number"));
    scripts::run(command, "schemathesis", &arguments, 5 * PATIENCE + Duration::from_secs(seconds)).await;
    assert_eq!(server.get("/health").await.status(), StatusCode::OK);
}
