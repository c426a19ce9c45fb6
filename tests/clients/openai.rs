//! Clients of OpenAI's protocol.

use std::{path::Path, process::Command};

use crate::{films, scripts, server::Server};

/// Runs the script of an SDK of OpenAI with a server, and with a key under which a second server accepts one request at
/// a time and refuses others with 429.
async fn sdk(script: impl AsyncFnOnce(&[&str])) {
    let (data, limited) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let key = key(limited.path());
    let (server, busy) =
        (Server::start(data.path(), &scripts::UNSIGNED).await, Server::start(limited.path(), &scripts::UNSIGNED).await);
    script(&[&server.public, &busy.public, &key]).await;
}

/// Creates a key of a tenant that may have one queued and one running generation.
fn key(data: &Path) -> String {
    let arguments = ["keys", "create", "--tenant", "mia", "--max-queued", "1", "--max-running", "1"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_latentd"));
    let output = command.args(arguments).env("LATENTD_DATA_DIR", data).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Runs the script of a client with a server.
async fn client(script: impl AsyncFnOnce(&[&str])) {
    let data = tempfile::tempdir().unwrap();
    script(&[&Server::start(data.path(), &scripts::UNSIGNED).await.public]).await;
}

#[tokio::test]
async fn the_python_sdk() {
    sdk(async |arguments| scripts::python("clients", "openai_sdk.py", arguments).await).await;
}

#[tokio::test]
async fn films_of_the_python_sdk() {
    let data = tempfile::tempdir().unwrap();
    let models = data.path().join("models");
    films::put_model(&models);
    let server = Server::start(data.path(), &[("LATENTD_MODELS__DIR", models.to_str().unwrap())]).await;
    scripts::python("clients", "openai_videos.py", &[&server.public, films::NAME]).await;
}

#[tokio::test]
async fn the_node_sdk() {
    sdk(async |arguments| scripts::node("openai_sdk.mjs", arguments).await).await;
}

#[tokio::test]
async fn the_ai_sdk() {
    client(async |arguments| scripts::node("ai_sdk.mjs", arguments).await).await;
}

#[tokio::test]
async fn langchain() {
    client(async |arguments| scripts::python("frameworks", "langchain_images.py", arguments).await).await;
}

#[tokio::test]
async fn litellm() {
    client(async |arguments| scripts::python("frameworks", "litellm_images.py", arguments).await).await;
}
