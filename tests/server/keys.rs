//! Tests of tenants: their keys, their shares of the server, and that they cannot see each other's data.

use std::{path::Path, process::Command};

use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Server, request, with};

/// Runs `latentd keys create` on a data folder; returns the key, or the error that it prints.
fn create(data: &Path, arguments: &[&str]) -> Result<String, String> {
    keys(data, &[&["create"][..], arguments].concat())
}

/// Runs `latentd keys` on a data folder; returns its output, or the error that it prints.
fn keys(data: &Path, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(env!("CARGO_BIN_EXE_latentd"))
        .arg("keys")
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

/// The listed keys of a data folder.
fn listed(data: &Path) -> Vec<Value> {
    serde_json::from_str(&keys(data, &["list", "--json"]).unwrap()).unwrap()
}

#[tokio::test]
async fn keys_are_managed_with_and_without_a_running_server() {
    let data = tempfile::tempdir().unwrap();
    let terms = ["--tenant", "alice", "--name", "web shop", "--scopes", "read,generate", "--rate-limit", "1"];
    let before = create(data.path(), &[&terms[..], &["--rate-window-s", "3600", "--expires-in-s", "3600"]].concat());
    let before = before.unwrap();
    let mut server = Some(Server::start(data.path(), &[]).await);
    let during = create(data.path(), &["--tenant", "alice", "--model", "emoji", "--max-priority", "low"]).unwrap();
    let status = async |server: &Server, key: &str| {
        with_key(server, Method::GET, "/v1/images", key).send().await.unwrap().status().as_u16()
    };
    // First through the running server, then in its database.
    for is_running in [true, false] {
        if !is_running {
            server.take().unwrap().kill();
        }
        let all = listed(data.path());
        assert_eq!(all.len(), 2);
        assert_eq!((&all[0]["name"], &all[0]["rate_limit"]), (&json!("web shop"), &json!(1)));
        assert_eq!((&all[1]["models"], &all[1]["max_priority"]), (&json!(["emoji"]), &json!("low")));
        let table = keys(data.path(), &["list", "--tenant", "alice"]).unwrap();
        let line = table.lines().find(|line| line.contains("web shop")).unwrap();
        assert!(line.starts_with(all[0]["id"].as_str().unwrap()) && line.contains("1 in 3600 s"), "{table}");
        assert_eq!(keys(data.path(), &["list", "--tenant", "bob"]).unwrap().lines().count(), 1);
        assert!(!table.contains(before.split('_').nth(2).unwrap()), "a secret is shown again");

        let rotated = keys(data.path(), &["rotate", &before, "--grace-s", "3600"]).unwrap();
        assert_eq!(rotated.split('_').nth(1), before.split('_').nth(1));
        if let Some(server) = &server {
            assert_eq!((status(server, &rotated).await, status(server, &before).await), (200, 200));
        }
        for unknown in ["none", "../x"] {
            assert!(keys(data.path(), &["revoke", unknown]).is_err(), "{unknown}");
        }
    }
    keys(data.path(), &["revoke", during.split('_').nth(1).unwrap()]).unwrap();
    let refused = keys(data.path(), &["rotate", &during]).unwrap_err();
    assert!(refused.contains("revoked"), "{refused}");
    let server = Server::start(data.path(), &[]).await;
    assert_eq!(status(&server, &during).await, 401);
    assert!(listed(data.path())[1]["revoked_at"].is_string());
    // The command revokes a key in use through the server, which refuses it at once.
    let last = create(data.path(), &["--tenant", "alice"]).unwrap();
    assert_eq!(status(&server, &last).await, 200);
    keys(data.path(), &["revoke", &last]).unwrap();
    assert_eq!(status(&server, &last).await, 401);
}

#[tokio::test]
async fn a_listener_that_others_reach_asks_for_the_token_that_the_first_start_makes() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[("LATENTD_OPERATOR__BIND", "0.0.0.0:0")]).await;
    let operator = server.operator.replace("0.0.0.0", "127.0.0.1");
    let ask = async |path: &str, token: Option<&str>| {
        let request = server.client.get(format!("{operator}{path}"));
        let request = token.into_iter().fold(request, |request, token| request.bearer_auth(token));
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!((ask("/readyz", None).await, ask("/metrics", None).await), (200, 200));
    let token = std::fs::read_to_string(data.path().join("operator.token")).unwrap();
    assert_eq!((ask("/admin/keys", None).await, ask("/admin/keys", Some("guess")).await), (401, 401));
    assert_eq!(ask("/admin/keys", Some(&token)).await, 200);
    // The command reads the file.
    create(data.path(), &["--tenant", "alice"]).unwrap();
    assert_eq!(listed(data.path()).len(), 1);
    std::fs::remove_file(data.path().join("operator.token")).unwrap();
    let refused = keys(data.path(), &["list"]).unwrap_err();
    assert!(refused.contains("401") && refused.contains("token"), "{refused}");
}

#[test]
fn errors_of_creating_keys_name_the_field() {
    let data = tempfile::tempdir().unwrap();
    for (arguments, named) in [
        (&["--tenant", "default"][..], "tenant"),
        (&["--tenant", "A B"], "tenant"),
        (&["--tenant", "a", "--weight", "0"], "weight"),
        (&["--tenant", "a", "--max-queued", "0"], "max_queued"),
        (&["--tenant", "a", "--scopes", "write"], "write"),
        (&["--tenant", "a", "--model", ""], "models"),
        (&["--tenant", "a", "--max-priority", "urgent"], "max_priority"),
        (&["--tenant", "a", "--rate-window-s", "9"], "--rate-limit"),
        (&["--tenant", "a", "--rate-limit", "0"], "rate_limit"),
        (&["--tenant", "a", "--max-cost-per-day", "0"], "max_cost_per_day"),
        (&["--tenant", "a", "--expires-in-s", "0"], "expires_in_s"),
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
