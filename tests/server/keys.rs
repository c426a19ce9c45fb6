//! Tests of tenants: their keys, their shares of the server, and that they cannot see each other's data.

use std::{path::Path, process::Command};

use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Server, request, with};

/// Runs `latentd keys create` on a data folder; returns the key, or the error that it prints.
fn create(data: &Path, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(env!("CARGO_BIN_EXE_latentd"))
        .args(["keys", "create"])
        .args(arguments)
        .env_remove("LATENTD_CONFIG")
        .env("LATENTD_DATA_DIR", data)
        .output()
        .unwrap();
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout).unwrap().trim().to_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

fn with_key(server: &Server, method: Method, path: &str, key: &str) -> RequestBuilder {
    server.client.request(method, server.url(path)).bearer_auth(key)
}

/// Sends a request with a key; returns the status and the JSON of the answer.
async fn post(server: &Server, key: &str, body: &Value) -> (u16, Value) {
    let response = with_key(server, Method::POST, "/v1/images", key).json(body).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

/// A request that takes longer than any test.
fn endless() -> Value {
    with(request("a panda", 1), &json!({"steps": 1000, "n": 8}))
}

#[tokio::test]
async fn tenants_do_not_see_each_other() {
    let data = tempfile::tempdir().unwrap();
    let alice = create(data.path(), &["--tenant", "alice"]).unwrap();
    let server = Server::start(data.path(), &[("LATENTD_AUTH__REQUIRED", "true")]).await;
    let made = server.client.post(format!("{}/admin/keys", server.operator)).json(&json!({"tenant": "bob"}));
    let made: Value = made.send().await.unwrap().json().await.unwrap();
    let bob = made["key"].as_str().unwrap().to_owned();

    let (status, created) = post(&server, &alice, &with(request("a red fox", 7), &json!({"steps": 4}))).await;
    assert_eq!(status, 202, "{created}");
    let path = format!("/v1/images/{}", created["id"].as_str().unwrap());
    let waited = with_key(&server, Method::GET, &path, &alice).header("Prefer", "wait=100").send().await.unwrap();
    assert_eq!(waited.json::<Value>().await.unwrap()["status"], "succeeded");
    for rest in ["", "/content/0", "/events", "/preview"] {
        let path = format!("{path}{rest}");
        let theirs = with_key(&server, Method::GET, &path, &bob).send().await.unwrap();
        assert_eq!(theirs.status(), StatusCode::NOT_FOUND, "{path}");
        let nobodys = server.get(&path).await;
        assert_eq!(nobodys.status(), StatusCode::UNAUTHORIZED, "{path}");
        assert!(nobodys.headers().contains_key("www-authenticate"));
    }
    let list: Value = with_key(&server, Method::GET, "/v1/images", &bob).send().await.unwrap().json().await.unwrap();
    assert_eq!(list["data"], json!([]));
    let password = server.client.get(server.url(&format!("{path}/content/0"))).basic_auth("anybody", Some(&alice));
    assert_eq!(password.send().await.unwrap().status(), StatusCode::OK);
    let wrong = with_key(&server, Method::GET, &path, &alice[..alice.len() - 1]).send().await.unwrap();
    assert_eq!(wrong.json::<Value>().await.unwrap()["code"], "invalid_key");
}

#[tokio::test]
async fn a_key_created_while_the_server_runs_outlives_it() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;
    let key = create(data.path(), &["--tenant", "alice"]).unwrap();
    assert_eq!(with_key(&server, Method::GET, "/v1/images", &key).send().await.unwrap().status(), StatusCode::OK);
    let refused = create(data.path(), &["--tenant", "default"]).unwrap_err();
    assert!(refused.contains("tenant"), "{refused}");
    // The server process exists, but its operator address does not answer.
    server.signal("STOP");
    std::fs::write(data.path().join("latentd.operator"), "127.0.0.1:1").unwrap();
    let refused = create(data.path(), &["--tenant", "alice"]).unwrap_err();
    assert!(refused.contains("another process uses") && refused.contains("127.0.0.1:1"), "{refused}");
    server.kill();

    let second = create(data.path(), &["--tenant", "alice", "--max-queued", "1"]).unwrap();
    assert_ne!(key, second);
    let server = Server::start(data.path(), &[("LATENTD_ENGINE__MAX_RUNS", "1")]).await;
    post(&server, &key, &endless()).await;
    server.until("it runs", async |server: &Server| server.metric("latentd_steps_total", "").await > 0.0).await;
    assert_eq!(post(&server, &key, &endless()).await.0, 202);
    let (status, refused) = post(&server, &second, &endless()).await;
    assert_eq!(
        (status, refused["code"].as_str()),
        (429, Some("tenant_queue_full")),
        "both keys belong to the same tenant"
    );
    server.kill();
    let kept: Vec<u8> = std::fs::read_dir(data.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .flat_map(|path| std::fs::read(path).unwrap())
        .collect();
    let secret = key.split('_').nth(2).unwrap();
    assert!(!kept.windows(secret.len()).any(|bytes| bytes == secret.as_bytes()), "the key itself is not kept");
}

#[test]
fn errors_of_creating_keys_name_the_field() {
    let data = tempfile::tempdir().unwrap();
    for (arguments, named) in [
        (&["--tenant", "default"][..], "tenant"),
        (&["--tenant", "A B"], "tenant"),
        (&["--tenant", "a", "--weight", "0"], "weight"),
        (&["--tenant", "a", "--max-queued", "0"], "max_queued"),
    ] {
        let refused = create(data.path(), arguments).unwrap_err();
        assert!(refused.contains(named), "{arguments:?}: {refused}");
    }
}

#[tokio::test]
async fn max_running_bounds_one_tenant_and_delays_no_other() {
    let data = tempfile::tempdir().unwrap();
    let few = create(data.path(), &["--tenant", "few", "--max-running", "1"]).unwrap();
    let server = Server::start(data.path(), &[]).await;
    let brief = with(request("a red fox", 7), &json!({"steps": 2}));
    let (_, first) = post(&server, &few, &endless()).await;
    let (_, second) = post(&server, &few, &brief).await;
    let ended = server.ended(&server.accept(&brief).await).await;
    assert_eq!(ended["status"], "succeeded", "another tenant does not wait for this tenant's bound");
    let state = async |generation: &Value| {
        let path = format!("/v1/images/{}", generation["id"].as_str().unwrap());
        let seen = with_key(&server, Method::GET, &path, &few).send().await.unwrap().json::<Value>().await.unwrap();
        seen["status"].as_str().unwrap().to_owned()
    };
    assert_eq!((state(&first).await, state(&second).await), ("running".to_owned(), "queued".to_owned()));
    let queue = with_key(&server, Method::GET, "/v1/queue", &few).send().await.unwrap().json::<Value>().await.unwrap();
    assert_eq!(queue["own"], json!({"queued": 1, "running": 1}));
    let cancel = format!("/v1/images/{}/cancel", first["id"].as_str().unwrap());
    with_key(&server, Method::POST, &cancel, &few).send().await.unwrap();
    server.until("its turn comes", async |_: &Server| state(&second).await == "succeeded").await;
}

#[tokio::test]
async fn a_tenant_with_more_weight_gets_more_runs() {
    let data = tempfile::tempdir().unwrap();
    let light = create(data.path(), &["--tenant", "light", "--weight", "1"]).unwrap();
    let heavy = create(data.path(), &["--tenant", "heavy", "--weight", "3"]).unwrap();
    let server = Server::start(data.path(), &[("LATENTD_ENGINE__MAX_RUNS", "1")]).await;
    let first = server.accept(&endless()).await;
    server.until("it runs", async |server: &Server| server.metric("latentd_steps_total", "").await > 0.0).await;
    let brief = with(request("a red fox", 7), &json!({"steps": 1}));
    // The light tenant sends all its requests first.
    let mut all = Vec::new();
    for (key, tenant) in [(&light, "light"), (&heavy, "heavy")] {
        for _ in 0..9 {
            let (status, created) = post(&server, key, &brief).await;
            assert_eq!(status, 202, "{created}");
            all.push((created["id"].as_str().unwrap().to_owned(), key, tenant));
        }
    }
    server.client.post(server.url(&format!("/v1/images/{first}/cancel"))).send().await.unwrap();
    let mut started = Vec::new();
    for (id, key, tenant) in &all {
        let waited = with_key(&server, Method::GET, &format!("/v1/images/{id}"), key).header("Prefer", "wait=100");
        let ended: Value = waited.send().await.unwrap().json().await.unwrap();
        assert_eq!(ended["status"], "succeeded", "{ended}");
        started.push((ended["started_at"].as_str().unwrap().to_owned(), *tenant));
    }
    started.sort();
    let heavies = started.iter().take(8).filter(|(_, tenant)| *tenant == "heavy").count();
    assert_eq!(heavies, 6, "three generations of the heavy tenant for each of the light one: {started:?}");
}
