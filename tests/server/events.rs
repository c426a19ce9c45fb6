//! Tests of following a generation by server-sent events.

use serde_json::{Value, json};

use crate::harness::{Server, request, with};

/// The id, name and data of each event of a complete stream.
fn parse(stream: &str) -> Vec<(Option<i64>, String, Value)> {
    let mut events = Vec::new();
    for block in stream.split("\n\n") {
        let value = |field: &str| {
            block
                .lines()
                .find_map(|line| line.strip_prefix(&format!("{field}:")).map(|rest| rest.trim_start().to_owned()))
        };
        if let (Some(name), Some(data)) = (value("event"), value("data")) {
            let id = value("id").map(|id| id.parse().unwrap());
            events.push((id, name, serde_json::from_str(&data).unwrap()));
        }
    }
    events
}

#[tokio::test]
async fn durable_events_are_numbered_and_resumable() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;
    let id = server.accept(&with(request("a red fox", 1), &json!({"steps": 12, "previews": 4}))).await;
    let path = format!("/v1/images/{id}/events");
    let events = parse(&server.get(&path).await.text().await.unwrap());
    let durable: Vec<(i64, &str)> = events.iter().filter_map(|(id, name, _)| Some(((*id)?, name.as_str()))).collect();
    assert_eq!(durable, [(1, "generation.queued"), (2, "generation.started"), (3, "generation.succeeded")]);
    let (_, _, last) = events.last().unwrap();
    assert_eq!(last["generation"]["status"], "succeeded", "{last}");

    let resumed = server.client.get(server.url(&path)).header("Last-Event-ID", "2").send().await.unwrap();
    let resumed = parse(&resumed.text().await.unwrap());
    assert_eq!(resumed.iter().filter_map(|(id, _, _)| *id).collect::<Vec<_>>(), [3]);
    let over = server.client.get(server.url(&path)).header("Last-Event-ID", "3").send().await.unwrap();
    assert_eq!(over.status(), 204, "no events are left");
}

#[tokio::test]
async fn progress_and_previews_arrive_while_a_generation_runs() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;
    let body = with(request("a red fox", 1), &json!({"steps": 200, "n": 2, "previews": 10}));
    let id = server.accept(&body).await;
    let stream = server.get(&format!("/v1/images/{id}/events")).await.text().await.unwrap();
    let events = parse(&stream);
    let steps: Vec<u64> = events
        .iter()
        .filter(|(_, name, _)| name == "generation.progress")
        .filter_map(|(_, _, data)| data["step"].as_u64())
        .collect();
    assert!(steps.len() > 2 && steps.is_sorted(), "{steps:?}");
    let previews: Vec<&Value> =
        events.iter().filter(|(_, name, _)| name == "generation.preview").map(|(_, _, data)| data).collect();
    assert!(!previews.is_empty());
    assert!(previews.iter().all(|preview| preview["b64"].as_str().unwrap().starts_with("iVBOR")), "each is a PNG");
    assert!(previews.iter().any(|preview| preview["index"] == 1), "each image has previews");
}

#[tokio::test]
async fn many_readers_of_one_generation_see_the_same_history() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;
    let id = server.accept(&with(request("a red fox", 1), &json!({"steps": 40}))).await;
    let path = format!("/v1/images/{id}/events");
    let streams =
        futures::future::join_all((0..20).map(|_| async { server.get(&path).await.text().await.unwrap() })).await;
    for stream in streams {
        let ids: Vec<i64> = parse(&stream).into_iter().filter_map(|(id, _, _)| id).collect();
        assert_eq!(ids, [1, 2, 3]);
    }
}
