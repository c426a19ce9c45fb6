//! Tests of the invisible watermark: which pictures have it, what it says, and that equal requests stay equal.

use std::path::Path;

use reqwest::header;
use serde_json::{Value, json};

use crate::harness::{Server, request, unsigned, with};

const ON: (&str, &str) = ("LATENTD_PROVENANCE__WATERMARK", "on");

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

/// The watermark that `POST /v1/verify` finds in a file.
async fn found(server: &Server, file: Vec<u8>) -> Value {
    let asked = server.client.post(server.url("/v1/verify")).header(header::CONTENT_TYPE, "image/png");
    let report: Value = asked.body(file).send().await.unwrap().json().await.unwrap();
    let verdict = if cfg!(feature = "provenance") { "none" } else { "not_built" };
    assert_eq!(report["verdict"], verdict, "the file has no content credentials: {report}");
    report["watermark"].clone()
}

#[tokio::test]
async fn a_jpeg_without_credentials_still_says_who_made_it() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[ON, ("LATENTD_PROVENANCE__WATERMARK_OWNER", "images.example.com")]).await;
    let (file, payload) = drawn(&server, &brief(7, json!({"output": {"format": "jpeg", "quality": 60}}))).await;
    assert_eq!(payload.as_str().unwrap().len(), 16, "{payload}");
    let watermark = found(&server, file.clone()).await;
    assert_eq!((&watermark["payload"], &watermark["by_this_server"]), (&payload, &true.into()), "{watermark}");
    assert!(server.stopped().await.success());

    // A server with another owner sees that the picture is not its own.
    let server = Server::start(data.path(), &[]).await;
    let watermark = found(&server, file).await;
    assert_eq!((&watermark["payload"], &watermark["by_this_server"]), (&payload, &false.into()), "{watermark}");
}

#[tokio::test]
async fn pictures_have_no_watermark_without_the_setting_or_if_the_request_wants_none() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;
    let plain = drawn(&server, &brief(7, json!({}))).await;
    assert_eq!((&plain.1, found(&server, plain.0.clone()).await), (&Value::Null, Value::Null));
    let bare = json!({"output": {"provenance": false, "metadata": "none"}});
    let (unmarked, _) = drawn(&server, &brief(7, bare.clone())).await;
    assert!(server.stopped().await.success());

    let server = Server::start(data.path(), &[ON]).await;
    assert!(drawn(&server, &brief(7, bare)).await == (unmarked, Value::Null));
    let marked = drawn(&server, &brief(7, json!({}))).await;
    assert!(marked.0 != plain.0, "the watermark changes pixels");
    assert_eq!(found(&server, marked.0).await["payload"], marked.1);
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
        assert_eq!(
            digests(&images(&server, &brief(seed, json!({}))).await),
            std::slice::from_ref(together),
            "seed {seed}"
        );
    }
}

#[tokio::test]
async fn a_file_of_the_command_line_has_the_watermark_of_the_settings() {
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("fox.png");
    let run = |arguments: &[&str], watermark: &str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_latentd"));
        command.args(arguments).env("LATENTD_DATA_DIR", data.path()).env(ON.0, watermark);
        command.output().unwrap()
    };
    let shown = |path: &Path| path.display().to_string();
    let drawn = run(&["generate", "a red fox", "--set", "steps=2", "-o", &shown(&file)], "on");
    assert!(drawn.status.success(), "{}", String::from_utf8_lossy(&drawn.stderr));
    let checked = run(&["verify", &shown(&file)], "");
    let printed = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(printed.contains("watermark: ") && printed.contains(", of this server"), "{printed}");
}
