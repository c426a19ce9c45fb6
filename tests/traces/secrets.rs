//! Neither the log, with all messages of latentd's own code, nor exported spans contain texts that clients write or any
//! secret. Each such text has the word of this file in it.

use std::{path::Path, process::Command};

use base64::{Engine, prelude::BASE64_STANDARD};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::{
    collector::Collector,
    harness::{Launch, Server},
    postgres::Cluster,
    receiver::{Answer, Receiver},
};

const WORD: &str = "canarybird";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

/// A text that must not be found, of at least 32 characters.
fn secret(of: &str) -> String {
    format!("{WORD}-{of}-{}", "x".repeat(32))
}

fn launch(data: &Path, collector: &Collector, receiver: &Receiver) -> Launch {
    let key = BASE64_STANDARD.encode(secret("webhook").as_bytes());
    let mut launch = Launch::on(data)
        .set("LATENTD_LOG__FILTER", "latentd=trace,warn")
        .set("LATENTD_LOG__FORMAT", "json")
        .set("LATENTD_TELEMETRY__OTLP_ENDPOINT", collector.endpoint())
        .set("LATENTD_TELEMETRY__OTLP_HEADERS", format!("authorization={}", secret("collector")))
        .set("LATENTD_HTTP__URL_SECRET", secret("urls"))
        .set("LATENTD_OPERATOR__TOKEN", secret("operator"))
        .set("LATENTD_WEBHOOKS__SECRET", format!("whsec_{key}"))
        .set("LATENTD_WEBHOOKS__ALLOW_HTTP", true)
        .set("LATENTD_WEBHOOKS__ALLOW_HOSTS", "127.0.0.1")
        .set("LATENTD_WEBHOOKS__RETRY_S", "0,0.1,0.1")
        .set("LATENTD_WEBHOOKS__PORTS", receiver.address.port())
        .set("LATENTD_QUEUE__MAX_QUEUED", 4);
    launch.log = Some(data.join("log"));
    launch
}

/// The texts that must be in neither place: the word, and the secrets in the forms in which they are sent.
fn forbidden(keys: &[String]) -> Vec<String> {
    let encoded = BASE64_STANDARD.encode(secret("webhook").as_bytes());
    let of_keys = keys.iter().flat_map(|key| [key.clone(), key[key.len() - 24..].to_owned()]);
    [WORD.to_owned(), WORD.to_uppercase(), encoded].into_iter().chain(of_keys).collect()
}

/// Sends requests of every kind with forbidden texts wherever a client can write some.
async fn send_all(server: &Server, key: &str, receiver: &Receiver) {
    let to = |method: Method, path: &str| -> RequestBuilder {
        server.client.request(method, server.url(path)).bearer_auth(key).header("user-agent", secret("agent"))
    };
    let post = |path: &str, body: &Value| to(Method::POST, path).json(body);
    let hook = format!("http://{}/{}?token={}", receiver.address, secret("path"), secret("query"));
    let body = json!({
        "prompt": secret("prompt"), "negative_prompt": secret("negative"), "steps": 2, "seed": 1, "width": 64, "height": 64,
        "metadata": {(format!("{WORD}-label")): secret("value")},
        "webhook": {"url": hook, "events": ["started", "completed"]},
    });
    let with = |name: &str, value: Value| {
        let mut body = body.clone();
        body[name] = value;
        body
    };
    // Two that succeed, by an idempotency key and with a trace.
    let created =
        post("/v1/images", &body).header("idempotency-key", secret("idempotency")).header("prefer", "wait=100");
    let created = created.header("traceparent", format!("00-{TRACE}-b7ad6b7169203331-01"));
    let created = created.header("tracestate", format!("{WORD}=1")).send().await.unwrap();
    assert_eq!(created.status(), 200);
    let created: Value = created.json().await.unwrap();
    let id = created["id"].as_str().unwrap();
    let picture = post("/v1/images.png", &with("webhook", Value::Null)).send().await.unwrap();
    assert_eq!(picture.status(), 200);
    let url = created["images"][0]["url"].as_str().unwrap_or_else(|| panic!("{created}"));
    let signed = server.client.get(if url.starts_with("http") { url.to_owned() } else { server.url(url) });
    assert_eq!(signed.send().await.unwrap().status(), 200);
    // Requests that are refused.
    let picture = format!("data:image/png;base64,{}", BASE64_STANDARD.encode(secret("picture")));
    let refused = [
        post("/v1/images", &with("loras", json!([{"name": secret("lora"), "scale": 1}]))),
        post("/v1/images", &with("prompt", json!(format!("<lora:{}:1>", secret("lora"))))),
        post("/v1/images", &with("model", json!(secret("model")))),
        post("/v1/images", &with(&secret("field"), json!(1))),
        post("/v1/images", &with("scheduler", json!(secret("scheduler")))),
        post("/v1/images", &with("image", json!(picture))),
        post("/v1/images", &with("webhook", json!({"url": format!("http://10.0.0.1/{WORD}")}))),
        post("/v1/images", &with("seed", json!(2))).header("idempotency-key", secret("idempotency")),
        to(Method::POST, "/v1/images").header("content-type", "application/json").body(secret("{broken")),
        to(Method::GET, &format!("/{}", secret("nowhere"))),
        to(Method::GET, &format!("/v1/models/{}", secret("model"))),
        server.client.get(server.url("/v1/images")).bearer_auth(secret("wrong-key")),
        server.client.get(format!("{}/admin/keys", server.operator)).bearer_auth(secret("wrong-token")),
        post("/v1/images/generations", &json!({"prompt": secret("prompt"), "user": secret("user"), "n": 99})),
    ];
    for request in refused {
        let answer = request.send().await.unwrap();
        let (status, url) = (answer.status(), answer.url().path().to_owned());
        assert!(status.is_client_error(), "{url}: {status}: {}", answer.text().await.unwrap());
    }
    // Requests whose answer does not matter here.
    for request in [
        to(Method::GET, &format!("/v1/images/{id}/content/0?sig={}", secret("signature"))),
        post(
            "/sdapi/v1/txt2img",
            &json!({"prompt": secret("prompt"), "sampler_name": secret("sampler"), "steps": 1, "width": 64, "height": 64}),
        ),
    ] {
        assert!(!request.send().await.unwrap().status().is_server_error());
    }
    // Two messages. One attempt of each message fails. A message has no trace once its generation is deleted.
    receiver.until(4).await;
    // One that is canceled while it runs, and one that is deleted.
    let long = with("steps", json!(1000));
    let running: Value = post("/v1/images", &long).send().await.unwrap().json().await.unwrap();
    let canceled = to(Method::POST, &format!("/v1/images/{}/cancel", running["id"].as_str().unwrap()));
    assert!(canceled.send().await.unwrap().status().is_success());
    let deleted = to(Method::DELETE, &format!("/v1/images/{id}")).send().await.unwrap();
    assert!(deleted.status().is_success());
}

#[tokio::test]
async fn no_log_line_and_no_span_contains_a_prompt_or_a_secret() {
    let (data, collector) = (tempfile::tempdir().unwrap(), Collector::start().await);
    let receiver = Receiver::start(&[Answer::Status(500), Answer::Reset, Answer::Status(200)]).await;
    let launch = launch(data.path(), &collector, &receiver);
    let server = Server::start_ready(&launch).await;
    let key = server.client.post(format!("{}/admin/keys", server.operator)).bearer_auth(secret("operator"));
    let key: Value = key.json(&json!({"tenant": secret("tenant")})).send().await.unwrap().json().await.unwrap();
    let key = key["key"].as_str().unwrap_or_else(|| panic!("{key}")).to_owned();
    send_all(&server, &key, &receiver).await;
    let spans = collector.until(TRACE, &["POST /v1/images", "attempt", "webhook"]).await;
    assert!(spans.iter().any(|span| span.name == "webhook" && span.error.is_some()), "{spans:#?}");
    assert!(server.stopped().await.success());

    let log = std::fs::read_to_string(data.path().join("log")).unwrap();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let has = |line: &Value, message: &str| line["message"] == message;
    let ended = lines.iter().find(|line| has(line, "generation ended") && line["span"]["trace_id"] == TRACE);
    assert!(ended.is_some(), "{log}");
    let request = lines.iter().find(|line| has(line, "request") && line["trace_id"] == TRACE).unwrap();
    assert_eq!((request["route"].as_str(), request["status"].as_u64()), (Some("/v1/images"), Some(200)));
    assert!(request["request_id"].as_str().is_some_and(|id| !id.is_empty()));
    assert!(lines.iter().any(|line| has(line, "webhook failed")));
    // The state of a trace belongs to whoever made the trace, and is exported with it.
    let exported = collector.bodies().join("\n").replace(&format!("\"traceState\":\"{WORD}=1\""), "");
    for text in forbidden(&[key]) {
        let line = log.lines().find(|line| line.contains(&text));
        assert!(line.is_none(), "the log contains {text:?}: {line:?}");
        assert!(!exported.contains(&text), "the spans contain {text:?}");
    }
}

#[tokio::test]
async fn the_password_of_the_database_is_in_no_log_line_whether_or_not_the_database_answers() {
    let folder = tempfile::tempdir().unwrap();
    let password = secret("password");
    let run = |url: &str| {
        let serve = Command::new(env!("CARGO_BIN_EXE_latentd"))
            .args(["serve", "--data-dir"])
            .arg(folder.path())
            .env_remove("LATENTD_CONFIG")
            .env("LATENTD_DATABASE__URL", url)
            .env("LATENTD_DATABASE__TIMEOUT_S", "1")
            .env("LATENTD_HTTP__BIND", "127.0.0.1:0")
            .env("LATENTD_OPERATOR__BIND", "127.0.0.1:0")
            .env("LATENTD_LOG__FILTER", "latentd=trace,info")
            .output();
        let output = serve.unwrap();
        assert!(!output.status.success());
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    for url in [
        format!("postgres://user:{password}@127.0.0.1:1/none"),
        format!("postgres://user:{password}@127.0.0.1:1/none?sslmode=nonsense"),
        format!("postgres://user:{password}@127.0.0.1:notaport/none"),
        format!("mysql://user:{password}@127.0.0.1:1/none"),
    ] {
        let said = run(&url);
        assert!(!said.is_empty() && !said.contains(WORD), "{said}");
    }
    let Some(cluster) = Cluster::shared() else { return };
    let database = cluster.create_database().await.replacen('@', &format!(":{password}@"), 1);
    let mut launch = Launch::on(folder.path()).set("LATENTD_DATABASE__URL", database);
    launch = launch.set("LATENTD_LOG__FILTER", "latentd=trace,info").set("LATENTD_ROLE", "api");
    launch.log = Some(folder.path().join("log"));
    let server = Server::start_ready(&launch).await;
    assert!(server.stopped().await.success());
    let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
    assert!(log.contains("stopping") && !log.contains(WORD), "{log}");
}
