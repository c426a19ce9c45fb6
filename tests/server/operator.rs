//! Tests of the operator's actions, of start timeouts and priorities, and of the operator's listener under load.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::{Launch, Server, request, with};

async fn act(server: &Server, path: &str) -> (StatusCode, Value) {
    let url = format!("{}{path}", server.operator);
    let request = server.client.post(url).header("content-type", "application/json");
    let response = request.send().await.unwrap();
    (response.status(), response.json().await.unwrap())
}

/// A request that takes longer than any test.
fn endless() -> Value {
    with(request("a panda", 1), &json!({"steps": 1000, "n": 8}))
}

async fn until_denoising(server: &Server) {
    server.until("it denoises", async |server: &Server| server.metric("latentd_steps_total", "").await > 0.0).await;
}

#[tokio::test]
async fn the_operator_can_requeue_a_dead_generation() {
    let data = tempfile::tempdir().unwrap();
    let once = [("LATENTD_QUEUE__MAX_CRASHES", "1"), ("LATENTD_QUEUE__MAX_ATTEMPTS", "1")];
    let server = Server::start(data.path(), &once).await;
    let id = server.accept(&with(request("a red fox", 7), &json!({"steps": 200}))).await;
    until_denoising(&server).await;
    server.kill();
    let server = Server::start(data.path(), &once).await;
    assert_eq!(server.json(&format!("/v1/images/{id}")).await["error"]["code"], "worker_crashed");
    let list = server.get_operator("/admin/generations?dead=true").await.json::<Value>().await.unwrap();
    assert_eq!((list["data"].as_array().unwrap().len(), list["data"][0]["id"].as_str()), (1, Some(&*id)));
    let (status, revived) = act(&server, &format!("/admin/generations/{id}/requeue")).await;
    assert_eq!((status, revived["attempt"].as_u64()), (StatusCode::OK, Some(0)));
    assert_eq!(server.ended(&id).await["status"], "succeeded");
    let list = server.get_operator("/admin/generations?dead=true").await.json::<Value>().await.unwrap();
    assert_eq!(list["data"], json!([]));
    assert_eq!(act(&server, &format!("/admin/generations/{id}/requeue")).await.0, StatusCode::CONFLICT);
}

#[tokio::test]
async fn the_operator_can_kill_a_running_generation() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;
    let id = server.accept(&endless()).await;
    until_denoising(&server).await;
    let (status, _) = act(&server, &format!("/admin/generations/{id}/kill")).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    assert_eq!(server.ended(&id).await["status"], "canceled");
    assert_eq!(act(&server, &format!("/admin/generations/{id}/kill")).await.0, StatusCode::OK);
    assert_eq!(server.get("/admin/generations").await.status(), StatusCode::NOT_FOUND, "not on the public listener");
}

#[tokio::test]
async fn a_generation_that_does_not_begin_in_time_expires() {
    let data = tempfile::tempdir().unwrap();
    let settings = [("LATENTD_ENGINE__MAX_RUNS", "1"), ("LATENTD_QUEUE__START_TIMEOUT_S", "2")];
    let server = Server::start(data.path(), &settings).await;
    let first = server.accept(&endless()).await;
    until_denoising(&server).await;
    let by_default = server.accept(&request("a red fox", 7)).await;
    let asked = server.accept(&with(request("a red fox", 7), &json!({"start_timeout_s": 1}))).await;
    let patient = server.accept(&with(request("a red fox", 7), &json!({"start_timeout_s": 600, "steps": 2}))).await;
    for id in [&asked, &by_default] {
        let ended = server.ended(id).await;
        assert_eq!((ended["status"].as_str(), ended["attempt"].as_u64()), (Some("expired"), Some(0)), "{ended}");
    }
    server.client.post(server.url(&format!("/v1/images/{first}/cancel"))).send().await.unwrap();
    assert_eq!(server.ended(&patient).await["status"], "succeeded");
}

#[tokio::test]
async fn a_higher_priority_begins_first() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[("LATENTD_ENGINE__MAX_RUNS", "1")]).await;
    let first = server.accept(&endless()).await;
    until_denoising(&server).await;
    let mut ids = Vec::new();
    for priority in ["low", "normal", "high"] {
        ids.push(server.accept(&with(request("a red fox", 7), &json!({"steps": 1, "priority": priority}))).await);
    }
    server.client.post(server.url(&format!("/v1/images/{first}/cancel"))).send().await.unwrap();
    let mut started = Vec::new();
    for id in &ids {
        started.push(server.ended(id).await["started_at"].as_str().unwrap().to_owned());
    }
    assert!(started[2] < started[1] && started[1] < started[0], "high, normal, low: {started:?}");
}

#[tokio::test]
async fn a_drained_server_is_not_ready_and_works_again_after_undrain() {
    let data = tempfile::tempdir().unwrap();
    // The next regular heartbeat is so late that the worker must react to the drain itself.
    let lease = [
        ("LATENTD_WORKER__HEARTBEAT_S", "1000"),
        ("LATENTD_WORKER__SELF_FENCE_S", "2000"),
        ("LATENTD_WORKER__LEASE_S", "3000"),
    ];
    let server = Server::start(data.path(), &lease).await;
    let workers = server.get_operator("/admin/workers").await.json::<Value>().await.unwrap();
    let worker = format!("/admin/workers/{}", workers["data"][0]["id"].as_str().unwrap());
    let (status, drained) = act(&server, &format!("{worker}/drain")).await;
    assert_eq!((status, drained["draining"].as_bool()), (StatusCode::ACCEPTED, Some(true)));
    let readiness = async |server: &Server| server.get_operator("/readyz").await.json::<Value>().await.unwrap();
    server
        .until("the idle worker hears of it", async |server: &Server| {
            readiness(server).await["reasons"] == json!(["worker_drained"])
        })
        .await;
    assert_eq!(server.get_operator("/livez").await.status(), StatusCode::OK);

    let brief = with(request("a red fox", 7), &json!({"steps": 1}));
    let waiting = server.client.post(server.url("/v1/images")).header("Prefer", "wait=300").json(&brief);
    let told = waiting.send().await.unwrap();
    assert_eq!(told.status(), StatusCode::ACCEPTED);
    let told: Value = told.json().await.unwrap();
    assert_eq!(told["status"], "queued");

    let (status, undrained) = act(&server, &format!("{worker}/undrain")).await;
    assert_eq!((status, undrained["draining"].as_bool()), (StatusCode::ACCEPTED, Some(false)));
    server.is_ready().await;
    assert_eq!(server.ended(told["id"].as_str().unwrap()).await["status"], "succeeded");
    assert_eq!(act(&server, "/admin/workers/nobody/undrain").await.0, StatusCode::NOT_FOUND);
}

/// The process may open 200 files. The public listener may use a part of them. The test opens more connections than
/// that; the system queues the connections that the listener does not accept.
#[tokio::test]
async fn the_operator_is_answered_despite_many_public_connections() {
    let data = tempfile::tempdir().unwrap();
    let mut launch = Launch::on(data.path()).set("LATENTD_HTTP__HEADER_TIMEOUT_S", "1000");
    launch.wrapper = ["sh", "-c", "ulimit -S -n 150; ulimit -H -n 200; exec \"$0\" \"$@\""].map(str::to_owned).to_vec();
    let server = Server::start_ready(&launch).await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.pid()));
    if let Ok(limits) = limits {
        let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words[3..5], ["200", "200"], "the soft limit is raised to the hard one");
    }
    let address = server.public.trim_start_matches("http://").to_owned();
    let mut held = Vec::new();
    // Until the queue of connections that the server has not accepted is full.
    while held.len() < 210
        && let Ok(connected) =
            tokio::time::timeout(Duration::from_millis(500), tokio::net::TcpStream::connect(&address)).await
    {
        held.push(connected.unwrap());
    }
    assert!(held.len() > 100, "only {} connections", held.len());
    for path in ["/livez", "/readyz", "/metrics"] {
        let asked = server.client.get(format!("{}{path}", server.operator)).header("connection", "close");
        assert_eq!(asked.send().await.unwrap().status(), StatusCode::OK, "{path}");
    }
    assert!(server.open_files().is_none_or(|files| files < 180), "files are left: {:?}", server.open_files());
    drop(held);
    server
        .until("the public listener answers again", async |server: &Server| {
            server.client.get(server.url("/health")).send().await.is_ok_and(|answer| answer.status() == StatusCode::OK)
        })
        .await;
}

#[tokio::test]
async fn each_probe_answers_with_its_own_status() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;
    for (path, status) in [("/livez", "ok"), ("/readyz", "ready"), ("/startupz", "started")] {
        let answer = server.get_operator(path).await.json::<Value>().await.unwrap();
        assert_eq!(answer["status"], status, "{path}");
    }
}
