//! Tests of deliveries from the real server to a receiver that can fail in several ways.

use std::{collections::BTreeSet, path::Path};

use latentd::generation::SigningSecret;
use serde_json::{Value, json};

use crate::{
    conforms::assert_conforms,
    harness::{Launch, Server},
    postgres::Cluster,
    receiver::{Answer, Message, Receiver},
};

/// The launch of a server that may send webhooks to this receiver and uses this retry schedule.
pub fn launch(data: &Path, receiver: &Receiver, retry_s: &str) -> Launch {
    Launch::on(data)
        .set("LATENTD_WEBHOOKS__ALLOW_HTTP", true)
        .set("LATENTD_WEBHOOKS__ALLOW_HOSTS", "127.0.0.1")
        .set("LATENTD_WEBHOOKS__PORTS", receiver.address.port())
        .set("LATENTD_WEBHOOKS__RETRY_S", retry_s)
}

async fn start(data: &Path, receiver: &Receiver, retry_s: &str, more: &[(&str, &str)]) -> Server {
    let launch = more.iter().fold(launch(data, receiver, retry_s), |launch, (key, value)| launch.set(key, value));
    Server::start_ready(&launch).await
}

/// Calls the server and checks its answer against the contract. Returns the status and the JSON body.
async fn call(server: &Server, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
    let request = server.client.request(method.parse().unwrap(), server.url(path));
    let request = match &body {
        Some(body) => request.json(body),
        None => request,
    };
    let answer = request.send().await.unwrap();
    let (status, bytes) = (answer.status().as_u16(), answer.bytes().await.unwrap());
    assert_conforms(method, path, status, &bytes);
    (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

/// Registers the receiver. Returns the id and the secret of the endpoint.
pub async fn register(server: &Server, receiver: &Receiver, events: &[&str]) -> (String, String) {
    let body = json!({"url": receiver.url(), "events": events});
    let (status, endpoint) = call(server, "POST", "/v1/webhook_endpoints", Some(body)).await;
    assert_eq!(status, 201, "{endpoint}");
    let text = |key: &str| endpoint[key].as_str().unwrap().to_owned();
    (text("id"), text("secret"))
}

async fn deliveries(server: &Server, endpoint: &str) -> Vec<Value> {
    let (status, list) = call(server, "GET", &format!("/v1/webhook_endpoints/{endpoint}/deliveries"), None).await;
    assert_eq!(status, 200);
    list["data"].as_array().unwrap().clone()
}

/// Waits until a delivery in the log has this state. Returns the newest delivery.
async fn wait_for_logged(server: &Server, endpoint: &str, state: &str) -> Value {
    let what = format!("the delivery is {state}");
    server
        .until(&what, async |server: &Server| {
            deliveries(server, endpoint).await.iter().any(|one| one["status"] == state)
        })
        .await;
    deliveries(server, endpoint).await.swap_remove(0)
}

pub fn request_for(endpoint: &str) -> Value {
    json!({"prompt": "a red fox", "seed": 1, "steps": 1, "webhook": {"endpoint": endpoint}})
}

/// Checks that all tries send the same message, and that each try has a timestamp and a signature of its own.
fn assert_same_message(messages: &[Message], secret: &str) {
    for pair in messages.windows(2) {
        assert_eq!((pair[0].id(), &pair[0].body), (pair[1].id(), &pair[1].body));
        assert!(pair[0].timestamp() <= pair[1].timestamp(), "the timestamp is that of the try");
    }
    for message in messages {
        assert!(message.is_signed_by(secret), "{message:?}");
        assert!(message.body.len() < 20_000);
    }
}

#[tokio::test]
async fn a_receiver_gets_the_message_after_all_kinds_of_failures() {
    let failures = [
        Answer::Status(500),
        Answer::Hang,
        Answer::Reset,
        Answer::Status(301),
        Answer::Status(404),
        Answer::Later(429, 1),
    ];
    let receiver = Receiver::start(&failures).await;
    let data = tempfile::tempdir().unwrap();
    // Timestamps count seconds, so two tries must be more than a second apart to differ.
    let schedule = "0,1.2,1.2,1.2,1.2,1.2,1.2,1.2,1.2";
    let public_url = "https://images.example.com/ai";
    let settings = [("LATENTD_WEBHOOKS__TIMEOUT_S", "1"), ("LATENTD_HTTP__PUBLIC_URL", public_url)];
    let server = start(data.path(), &receiver, schedule, &settings).await;
    let (endpoint, secret) = register(&server, &receiver, &["completed"]).await;
    let id = server.accept(&request_for(&endpoint)).await;
    assert_eq!(server.ended(&id).await["status"], "succeeded");

    let messages = receiver.until(7).await;
    assert_same_message(&messages, &secret);
    for pair in messages.windows(2) {
        assert!(pair[0].timestamp() < pair[1].timestamp(), "a fresh timestamp for each try");
    }
    let sent = messages[0].json();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(keys(&sent), ["data", "timestamp", "type"].map(str::to_owned).into());
    assert_eq!((sent["type"].as_str(), sent["data"]["id"].as_str()), (Some("generation.succeeded"), Some(id.as_str())));
    assert_eq!(sent["data"]["status"], "succeeded");
    assert!(!messages[0].body.contains("red fox"), "messages contain no prompt: {sent}");
    // The links lead to the generation and its image.
    for link in [&sent["data"]["links"]["self"], &sent["data"]["links"]["images"][0]] {
        let path = link.as_str().unwrap().strip_prefix(public_url).unwrap();
        assert_eq!(server.get(path).await.status(), 200, "{link}");
    }
    let schema = json!({"$ref": "#/components/schemas/WebhookMessage"});
    assert_eq!(crate::conforms::complaints(&schema, &sent), Vec::<String>::new());

    let logged = wait_for_logged(&server, &endpoint, "delivered").await;
    assert_eq!((&logged["attempts"], &logged["last_status"]), (&json!(7), &json!(200)));
    assert_eq!((&logged["id"], &logged["generation"]), (&json!(messages[0].id()), &json!(id)));
    assert_eq!(server.metric("latentd_webhook_deliveries_total", "failed").await, 6.0);
    assert_eq!(server.metric("latentd_webhook_deliveries_total", "delivered").await, 1.0);
    server
        .until("nothing is pending", async |server: &Server| server.metric("latentd_webhook_backlog", "").await == 0.0)
        .await;
    assert_eq!(receiver.messages().len(), 7, "no message follows a success");
}

#[tokio::test]
async fn a_message_survives_a_kill_of_the_server_before_its_delivery() {
    let receiver = Receiver::start(&[]).await;
    receiver.answer_with(Answer::Hang);
    let data = tempfile::tempdir().unwrap();
    let shortly = [("LATENTD_WEBHOOKS__TIMEOUT_S", "1")];
    let server = start(data.path(), &receiver, "0,0.1,0.1,0.1,0.1,0.1", &shortly).await;
    let (endpoint, secret) = register(&server, &receiver, &["completed"]).await;
    let id = server.accept(&request_for(&endpoint)).await;
    // The message has arrived, but the receiver has not answered.
    receiver.until(1).await;
    server.kill();

    let known = receiver.messages().len();
    receiver.answer_with(Answer::Status(204));
    let server = start(data.path(), &receiver, "0,0.1,0.1,0.1,0.1,0.1", &shortly).await;
    let messages = receiver.until(known + 1).await;
    assert_same_message(&messages, &secret);
    assert_eq!(messages[0].json()["data"]["id"], json!(id));
    let logged = wait_for_logged(&server, &endpoint, "delivered").await;
    assert_eq!(logged["last_status"], 204);
    assert_eq!(deliveries(&server, &endpoint).await.len(), 1);
}

#[tokio::test]
async fn a_stopping_server_releases_unanswered_deliveries() {
    let receiver = Receiver::start(&[]).await;
    receiver.answer_with(Answer::Hang);
    let data = tempfile::tempdir().unwrap();
    // The timeout is so long that the claim of an unanswered delivery would not end during the test.
    let patient = [("LATENTD_WEBHOOKS__TIMEOUT_S", "3600")];
    let server = start(data.path(), &receiver, "0", &patient).await;
    let (endpoint, secret) = register(&server, &receiver, &["completed"]).await;
    server.accept(&request_for(&endpoint)).await;
    receiver.until(1).await;
    assert!(server.stopped().await.success());
    receiver.answer_with(Answer::Status(200));
    let server = start(data.path(), &receiver, "0", &patient).await;
    assert_same_message(&receiver.until(2).await, &secret);
    let logged = wait_for_logged(&server, &endpoint, "delivered").await;
    assert_eq!(logged["attempts"], 1, "the interrupted try does not count");
}

#[tokio::test]
async fn messages_of_one_generation_arrive_in_order() {
    let receiver = Receiver::start(&[Answer::Status(500), Answer::Reset, Answer::Status(503)]).await;
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path(), &receiver, "0,0.1,0.1,0.1", &[]).await;
    let (endpoint, secret) = register(&server, &receiver, &["started", "completed"]).await;
    let id = server.accept(&request_for(&endpoint)).await;
    assert_eq!(server.ended(&id).await["status"], "succeeded");
    let messages = receiver.until(5).await;
    let kinds: Vec<String> = messages.iter().map(Message::kind).collect();
    let started = "generation.started";
    assert_eq!(kinds, [started, started, started, started, "generation.succeeded"]);
    assert_same_message(&messages[..4], &secret);
    assert_ne!(messages[3].id(), messages[4].id());
    assert_eq!(messages[0].json()["data"]["status"], "running");
}

#[tokio::test]
async fn after_410_an_endpoint_gets_nothing_until_it_is_enabled_again() {
    let receiver = Receiver::start(&[Answer::Status(410)]).await;
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path(), &receiver, "0,0.1,0.1", &[]).await;
    let (endpoint, _) = register(&server, &receiver, &["started", "completed"]).await;
    let place = format!("/v1/webhook_endpoints/{endpoint}");
    let id = server.accept(&request_for(&endpoint)).await;
    server.ended(&id).await;
    let logged = wait_for_logged(&server, &endpoint, "dead").await;
    assert!(["generation.started", "generation.succeeded"].contains(&logged["type"].as_str().unwrap()));
    assert_eq!(call(&server, "GET", &place, None).await.1["status"], "gone");
    assert_eq!(server.metric("latentd_webhook_deliveries_total", "gone").await, 1.0);

    let refused = server.post(&request_for(&endpoint)).await;
    assert_eq!(refused.status(), 422);
    let problem: Value = refused.json().await.unwrap();
    assert_eq!(problem["errors"][0]["pointer"], "/webhook/endpoint", "{problem}");
    assert!(problem["errors"][0]["detail"].as_str().unwrap().contains("disabled"), "{problem}");
    assert!(deliveries(&server, &endpoint).await.iter().all(|one| one["status"] == "dead"));
    assert_eq!(receiver.messages().len(), 1);

    let (status, enabled) =
        call(&server, "PUT", &place, Some(json!({"url": receiver.url(), "events": ["completed"]}))).await;
    assert_eq!((status, &enabled["status"]), (200, &json!("enabled")));
    let id = server.accept(&request_for(&endpoint)).await;
    let messages = receiver.until(2).await;
    assert_eq!(messages[1].json()["data"]["id"], json!(id));
}

#[tokio::test]
async fn a_dead_message_is_listed_and_sent_again_on_demand() {
    let receiver = Receiver::start(&[]).await;
    receiver.answer_with(Answer::Status(500));
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path(), &receiver, "0,0.1", &[]).await;
    let (endpoint, secret) = register(&server, &receiver, &["completed"]).await;
    server.accept(&request_for(&endpoint)).await;
    let dead = wait_for_logged(&server, &endpoint, "dead").await;
    assert_eq!((&dead["attempts"], &dead["last_status"]), (&json!(2), &json!(500)));
    assert_eq!(receiver.messages().len(), 2, "the number of tries is that of the schedule");
    assert_eq!(server.metric("latentd_webhook_deliveries_total", "dead").await, 1.0);

    receiver.answer_with(Answer::Status(200));
    let again = format!("/v1/webhook_endpoints/{endpoint}/deliveries/{}/retry", dead["id"].as_str().unwrap());
    let (status, pending) = call(&server, "POST", &again, None).await;
    assert_eq!((status, &pending["status"], &pending["attempts"]), (202, &json!("pending"), &json!(0)));
    wait_for_logged(&server, &endpoint, "delivered").await;
    // A delivered message can be sent again too.
    assert_eq!(call(&server, "POST", &again, None).await.0, 202);
    let messages = receiver.until(4).await;
    assert_same_message(&messages, &secret);
    wait_for_logged(&server, &endpoint, "delivered").await;
    let elsewhere = again.replace(&endpoint, &register(&server, &receiver, &["completed"]).await.0);
    assert_eq!(call(&server, "POST", &elsewhere, None).await.0, 404, "the delivery belongs to another endpoint");
}

#[tokio::test]
async fn both_secrets_sign_during_a_rotation() {
    let receiver = Receiver::start(&[]).await;
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path(), &receiver, "0", &[("LATENTD_WEBHOOKS__ROTATION_S", "5")]).await;
    let (endpoint, old) = register(&server, &receiver, &["completed"]).await;
    server.accept(&request_for(&endpoint)).await;
    let first = receiver.until(1).await.remove(0);
    assert!(first.is_signed_by(&old));
    let logged = wait_for_logged(&server, &endpoint, "delivered").await;

    let (status, rotated) = call(&server, "POST", &format!("/v1/webhook_endpoints/{endpoint}/rotate"), None).await;
    assert_eq!(status, 200);
    let new = rotated["secret"].as_str().unwrap().to_owned();
    assert_ne!(new, old);
    assert!(rotated["old_secret_expires_at"].is_string());
    // Send the same message repeatedly until the old secret expires.
    let again = format!("/v1/webhook_endpoints/{endpoint}/deliveries/{}/retry", logged["id"].as_str().unwrap());
    let mut seen = Vec::new();
    let deadline = std::time::Instant::now() + crate::harness::PATIENCE;
    loop {
        assert!(std::time::Instant::now() < deadline, "the old secret never expires: {seen:?}");
        let known = receiver.messages().len();
        assert_eq!(call(&server, "POST", &again, None).await.0, 202);
        let message = receiver.until(known + 1).await.remove(known);
        assert!(message.is_signed_by(&new), "{message:?}");
        let signatures = message.header("webhook-signature").split(' ').count();
        assert_eq!(message.is_signed_by(&old), signatures == 2);
        seen.push(signatures);
        if signatures == 1 {
            break;
        }
        wait_for_logged(&server, &endpoint, "delivered").await;
    }
    assert_eq!(seen[0], 2, "right after the rotation both sign: {seen:?}");
}

#[tokio::test]
async fn messages_to_an_address_of_a_request_are_signed_with_the_secret_of_the_settings() {
    let receiver = Receiver::start(&[Answer::Status(500)]).await;
    let secret = SigningSecret::from_key(vec![5; 40]).unwrap().reveal();
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path(), &receiver, "0,0.1", &[("LATENTD_WEBHOOKS__SECRET", &secret)]).await;
    let asked =
        |events: Value| json!({"prompt": "x", "steps": 1, "webhook": {"url": receiver.url(), "events": events}});
    let id = server.accept(&asked(json!(["completed"]))).await;
    assert_same_message(&receiver.until(2).await, &secret);
    // The webhook of a request is private: only answers to the tenant contain it, no picture does.
    assert_eq!(server.ended(&id).await["webhook"]["url"], receiver.url());
    let picture = server.picture(&id, 0).await;
    assert!(!String::from_utf8_lossy(&picture).contains("hook"));
    // `completed` includes canceled generations. The message names the real status.
    let long = json!({"prompt": "x", "steps": 900, "webhook": {"url": receiver.url()}});
    let id = server.accept(&long).await;
    let (status, _) = call(&server, "POST", &format!("/v1/images/{id}/cancel"), None).await;
    assert!([200, 202].contains(&status));
    let messages = receiver.until(3).await;
    assert_eq!((messages[2].kind(), &messages[2].json()["data"]["id"]), ("generation.canceled".into(), &json!(id)));
    // A generation without a webhook causes no message.
    server.ended(&server.accept(&json!({"prompt": "x", "steps": 1})).await).await;
    assert_eq!(server.metric("latentd_webhook_deliveries_total", "").await, 3.0);
}

#[tokio::test]
async fn several_processes_deliver_each_message_once() {
    let Some(cluster) = Cluster::shared() else { return };
    let receiver = Receiver::start(&[]).await;
    let data = tempfile::tempdir().unwrap();
    let launch = launch(data.path(), &receiver, "0,0.1")
        .set("LATENTD_DATABASE__URL", cluster.create_database().await)
        .set("LATENTD_DATABASE__MIGRATE", true);
    let first = Server::start_ready(&launch).await;
    let second = Server::start_ready(&launch).await;
    let (endpoint, secret) = register(&first, &receiver, &["completed"]).await;
    let mut ids = BTreeSet::new();
    for (server, other) in [(&first, &second), (&second, &first)].into_iter().cycle().take(12) {
        let id = server.accept(&json!({"prompt": "x", "steps": 900, "webhook": {"endpoint": endpoint}})).await;
        let (status, _) = call(other, "POST", &format!("/v1/images/{id}/cancel"), None).await;
        assert!([200, 202].contains(&status));
        ids.insert(id);
    }
    let messages = receiver.until(12).await;
    first
        .until("all messages are delivered", async |_: &Server| {
            let name = "latentd_webhook_deliveries_total";
            first.metric(name, "delivered").await + second.metric(name, "delivered").await == 12.0
        })
        .await;
    assert_eq!(receiver.messages().len(), 12, "no message was sent twice");
    let id_of = |message: &Message| message.json()["data"]["id"].as_str().unwrap().to_owned();
    assert_eq!(messages.iter().map(id_of).collect::<BTreeSet<_>>(), ids);
    assert!(messages.iter().all(|message| message.kind() == "generation.canceled" && message.is_signed_by(&secret)));
}

#[tokio::test]
async fn a_receiver_that_hangs_does_not_delay_others() {
    let (hanging, other) = (Receiver::start(&[]).await, Receiver::start(&[]).await);
    hanging.answer_with(Answer::Hang);
    let data = tempfile::tempdir().unwrap();
    let ports = format!("{},{}", hanging.address.port(), other.address.port());
    let patient = [
        ("LATENTD_WEBHOOKS__TIMEOUT_S", "3600"),
        ("LATENTD_WEBHOOKS__MAX_IN_FLIGHT", "4"),
        ("LATENTD_WEBHOOKS__PORTS", &ports),
    ];
    let server = start(data.path(), &hanging, "0", &patient).await;
    let (slow, _) = register(&server, &hanging, &["completed"]).await;
    let (quick, _) = register(&server, &other, &["completed"]).await;
    let canceled = async |endpoint: &str| {
        let id = server.accept(&json!({"prompt": "x", "steps": 900, "webhook": {"endpoint": endpoint}})).await;
        call(&server, "POST", &format!("/v1/images/{id}/cancel"), None).await;
    };
    for _ in 0..8 {
        canceled(&slow).await;
    }
    hanging.until(1).await;
    for _ in 0..3 {
        canceled(&quick).await;
    }
    other.until(3).await;
    assert_eq!(hanging.messages().len(), 1, "one receiver gets only one of four places");
}
