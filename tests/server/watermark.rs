//! Tests of the invisible watermark: which pictures have it, what it says, and that equal requests stay equal.

use std::{path::Path, process::Command};

use serde_json::{Value, json};

use crate::harness::{Server, request, unsigned, with};

const ON: (&str, &str) = ("LATENTD_PROVENANCE__WATERMARK", "on");
const OWNER: &str = "LATENTD_PROVENANCE__WATERMARK_OWNER";

/// A request that takes moments. Small pictures have no complete watermark, so this one has the usual size.
fn brief(seed: u64, more: Value) -> Value {
    with(request("a red fox", seed), &with(json!({"steps": 2, "width": 128, "height": 128}), &more))
}

async fn images(server: &Server, body: &Value) -> Vec<Value> {
    let id = server.accept(body).await;
    let ended = server.ended(&id).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    ended["images"].as_array().unwrap().clone()
}

/// The first file of a request, without its content credentials, and its watermark in the answer.
async fn drawn(server: &Server, body: &Value) -> (Vec<u8>, Value) {
    let image = images(server, body).await.remove(0);
    let file = server.get(image["url"].as_str().unwrap()).await.bytes().await.unwrap();
    (unsigned(&file), image["watermark"].clone())
}

/// What `latentd verify` prints about the watermark of a file.
fn found(data: &Path, file: &[u8], owner: &str) -> String {
    let path = data.join("checked");
    std::fs::write(&path, file).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_latentd"));
    let command = command.arg("verify").arg(&path).env("LATENTD_DATA_DIR", data).env(OWNER, owner);
    let printed = String::from_utf8(command.output().unwrap().stdout).unwrap();
    let line = printed.lines().find_map(|line| line.strip_prefix("watermark: "));
    line.unwrap_or_else(|| panic!("nothing about a watermark: {printed}")).to_owned()
}

#[tokio::test]
async fn a_jpeg_without_credentials_still_says_who_made_it() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[ON, (OWNER, "images.example.com")]).await;
    let (file, payload) = drawn(&server, &brief(7, json!({"output": {"format": "jpeg", "quality": 60}}))).await;
    let payload = payload.as_str().unwrap();
    assert_eq!(payload.len(), 16, "{payload}");
    assert_eq!(found(data.path(), &file, "images.example.com"), format!("{payload}, of this server"));
    assert_eq!(found(data.path(), &file, "other.example.com"), format!("{payload}, of another owner"));
}

#[cfg(feature = "provenance")]
#[tokio::test]
async fn the_answer_about_a_file_names_its_watermark() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[ON]).await;
    let (file, payload) = drawn(&server, &brief(7, json!({}))).await;
    let asked = server.client.post(server.url("/v1/verify")).header(reqwest::header::CONTENT_TYPE, "image/png");
    let report: Value = asked.body(file).send().await.unwrap().json().await.unwrap();
    assert_eq!(report["verdict"], "none", "the file has no content credentials: {report}");
    let watermark = &report["watermark"];
    assert_eq!((&watermark["payload"], &watermark["by_this_server"]), (&payload, &true.into()), "{report}");
    assert_eq!((&watermark["scale"], &watermark["corrected_bits"].is_u64()), (&1.0.into(), &true), "{report}");
}

#[tokio::test]
async fn pictures_have_no_watermark_without_the_setting_or_if_the_request_wants_none() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;
    let plain = drawn(&server, &brief(7, json!({}))).await;
    assert_eq!((&plain.1, &*found(data.path(), &plain.0, "latentd")), (&Value::Null, "none"));
    let bare = json!({"output": {"provenance": false, "metadata": "none"}});
    let (unmarked, _) = drawn(&server, &brief(7, bare.clone())).await;
    assert!(server.stopped().await.success());

    let server = Server::start(data.path(), &[ON]).await;
    assert!(drawn(&server, &brief(7, bare)).await == (unmarked, Value::Null));
    let marked = drawn(&server, &brief(7, json!({}))).await;
    assert!(marked.0 != plain.0, "the watermark changes pixels");
    let payload = marked.1.as_str().unwrap();
    assert_eq!(found(data.path(), &marked.0, "latentd"), format!("{payload}, of this server"));
}

#[tokio::test]
async fn the_watermark_depends_on_the_request_alone() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[ON]).await;
    let digests = |images: &[Value]| -> Vec<[Value; 2]> {
        images.iter().map(|image| [image["unsigned_sha256"].clone(), image["watermark"].clone()]).collect()
    };
    let together = digests(&images(&server, &brief(40, json!({"n": 3}))).await);
    assert!(together[0] != together[1] && together[1] != together[2]);
    for (seed, together) in (40..).zip(&together) {
        assert_eq!(&digests(&images(&server, &brief(seed, json!({}))).await), &[together.clone()], "seed {seed}");
    }
}

#[tokio::test]
async fn a_file_of_the_command_line_has_the_watermark_of_the_settings() {
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("fox.png");
    let mut command = Command::new(env!("CARGO_BIN_EXE_latentd"));
    let command = command.args(["generate", "a red fox", "--set", "steps=2", "-o"]).arg(&file);
    let drawn = command.env("LATENTD_DATA_DIR", data.path()).env(ON.0, ON.1).output().unwrap();
    assert!(drawn.status.success(), "{}", String::from_utf8_lossy(&drawn.stderr));
    let watermark = found(data.path(), &std::fs::read(&file).unwrap(), "latentd");
    assert!(watermark.ends_with(", of this server"), "{watermark}");
}
