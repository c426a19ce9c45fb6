//! Tests of large bodies: refusals have a bounded length, and the server frees the memory.

use serde_json::Value;

use crate::harness::Server;

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";
const MULTIPART: &str = "multipart/form-data; boundary=frontier";

/// Media types and bodies of about 31 MiB, nearly the default limit.
fn bodies() -> Vec<(&'static str, String)> {
    let length = 31 << 20;
    let filled = |before: &str, unit: &str, after: &str| [before, &unit.repeat(length / unit.len()), after].concat();
    let part = "--frontier\r\nContent-Disposition: form-data; name=\"prompt\"\r\n\r\n";
    vec![
        (JSON, filled("{\"prompt\": \"", "a", "\"}")),
        (JSON, filled("{\"prompt\": \"", "\\u0001", "\"}")),
        (JSON, filled("{\"prompt\": \"a\", \"x\": [", "[],", "0]}")),
        (JSON, filled("{\"prompt\": \"a\", \"controls\": [", "{\"image\": 1},", "0]}")),
        (FORM, filled("", "a&", "a")),
        (FORM, filled("prompt=", "%61", "")),
        (MULTIPART, filled(part, "a", "\r\n--frontier--\r\n")),
    ]
}

async fn send(server: &Server, (kind, body): (&str, String)) {
    let request = server.client.post(server.url("/v1/images")).header("Content-Type", kind).body(body);
    let refused = request.send().await.unwrap();
    assert!(refused.status().is_client_error(), "{}", refused.status());
    let problem = refused.text().await.unwrap();
    assert!(problem.len() < 200_000, "an answer of {} bytes", problem.len());
    assert!(serde_json::from_str::<Value>(&problem).unwrap()["code"].is_string(), "{problem}");
}

#[tokio::test]
async fn large_bodies_are_refused_and_their_memory_is_freed() {
    const SLACK: u64 = 64 << 20;
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;
    send(&server, (JSON, "{}".to_owned())).await;
    let before = server.resident_bytes();
    for body in bodies() {
        send(&server, body).await;
    }
    futures::future::join_all(bodies().into_iter().take(4).map(|body| send(&server, body))).await;
    server.until("memory is freed", async |server: &Server| server.resident_bytes() < before + SLACK).await;
    assert_eq!(server.get("/health").await.status(), 200);
}
