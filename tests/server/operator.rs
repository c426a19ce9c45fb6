//! What the operator does by hand, and what time does by itself.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::{Launch, Server, request, with};

async fn act(server: &Server, path: &str) -> (StatusCode, Value) {
    let url = format!("{}{path}", server.operator);
    let request = server.client.post(url).header("content-type", "application/json");
    let response = request.send().await.unwrap();
    (response.status(), response.json().await.unwrap())
}

/// Long enough that it does not end by itself while a test looks.
fn endless() -> Value {
    with(request("a panda", 1), &json!({"steps": 1000, "n": 8}))
}

async fn runs(server: &Server) {
    server.until("it denoises", async |server: &Server| server.metric("latentd_steps_total", "").await > 0.0).await;
}

#[tokio::test]
async fn a_generation_that_was_given_up_is_queued_again_by_hand() {
    let data = tempfile::tempdir().unwrap();
    let once = [("LATENTD_QUEUE__MAX_CRASHES", "1"), ("LATENTD_QUEUE__MAX_ATTEMPTS", "1")];
    let server = Server::start(data.path(), &once).await;
    let id = server.accept(&with(request("a red fox", 7), &json!({"steps": 200}))).await;
    runs(&server).await;
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
async fn the_operator_ends_what_runs() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;
    let id = server.accept(&endless()).await;
    runs(&server).await;
    let (status, _) = act(&server, &format!("/admin/generations/{id}/kill")).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    assert_eq!(server.ended(&id).await["status"], "canceled");
    assert_eq!(act(&server, &format!("/admin/generations/{id}/kill")).await.0, StatusCode::OK);
    assert_eq!(server.get("/admin/generations").await.status(), StatusCode::NOT_FOUND, "not for the public");
}

#[tokio::test]
async fn what_is_not_begun_in_time_expires() {
    let data = tempfile::tempdir().unwrap();
    let settings = [("LATENTD_ENGINE__MAX_RUNS", "1"), ("LATENTD_QUEUE__START_TIMEOUT_S", "2")];
    let server = Server::start(data.path(), &settings).await;
    let first = server.accept(&endless()).await;
    runs(&server).await;
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
async fn who_is_urgent_comes_first() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[("LATENTD_ENGINE__MAX_RUNS", "1")]).await;
    let first = server.accept(&endless()).await;
    runs(&server).await;
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
async fn a_drained_server_says_so_and_works_again_when_it_is_told() {
    let data = tempfile::tempdir().unwrap();
    // A beat that would come by itself is far away.
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

/// The limit is the system's for the process: 200 files, of which the public listener may have half. More connections than files
/// are opened, and no more than the system queues for a listener.
#[tokio::test]
async fn the_operator_is_answered_however_many_connections_the_public_listener_has() {
    let data = tempfile::tempdir().unwrap();
    let mut launch = Launch::on(data.path()).set("LATENTD_HTTP__HEADER_TIMEOUT_S", "1000");
    launch.wrapper = ["sh", "-c", "ulimit -S -n 150; ulimit -H -n 200; exec \"$0\" \"$@\""].map(str::to_owned).to_vec();
    let server = Server::again(&launch).await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.pid()));
    if let Ok(limits) = limits {
        let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words[3..5], ["200", "200"], "the soft limit is raised to the hard one");
    }
    let address = server.public.trim_start_matches("http://").to_owned();
    let mut held = Vec::new();
    for _ in 0..210 {
        held.push(tokio::net::TcpStream::connect(&address).await.unwrap());
    }
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
async fn probes_say_what_they_are_asked() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;
    for (path, status) in [("/livez", "ok"), ("/readyz", "ready"), ("/startupz", "started")] {
        let answer = server.get_operator(path).await.json::<Value>().await.unwrap();
        assert_eq!(answer["status"], status, "{path}");
    }
}
