//! Tests of answers to waiting clients while the only worker is drained.

use axum::http::Method;
use serde_json::{Value, json};

use crate::{
    PNG,
    api::{TestApi, post},
    conforms::events,
};

fn fox() -> Value {
    json!({"prompt": "a red fox"})
}

#[tokio::test]
async fn waiting_ends_at_once_if_the_only_worker_is_drained() {
    let api = TestApi::open(&[]).await;
    api.drain.set(true);
    let receipt = api.ask(post(&fox(), &[("prefer", "wait=300")])).await;
    assert_eq!((receipt.status, receipt.json()["status"].as_str()), (202, Some("queued")));
    assert_eq!(receipt.header("preference-applied"), "", "the answer did not wait");
    let both = api.ask(post(&fox(), &[("prefer", "respond-async, wait=300")])).await;
    assert_eq!(both.header("preference-applied"), "respond-async");
    let elapsed = api.ask(post(&fox(), &[("prefer", "wait=0")])).await;
    assert_eq!((elapsed.status, elapsed.json()["status"].as_str()), (202, Some("queued")));
    let path = format!("/v1/images/{}", receipt.json()["id"].as_str().unwrap());
    let read = api.get_with(&path, "prefer", "wait=300").await;
    assert_eq!((read.status, read.json()["status"].as_str()), (200, Some("queued")));
    assert_eq!(read.header("preference-applied"), "");
    let picture = api.ask(post(&fox(), &[("accept", "image/png")])).await;
    assert_eq!((picture.status, picture.json()["code"].as_str()), (503, Some("draining")));
    assert_eq!(picture.header("preference-applied"), "");
    let title = picture.json()["title"].as_str().unwrap().to_owned();
    assert!(!title.contains("stopping"), "{title}");
    assert_eq!(api.get(picture.header("location")).await.json()["status"], "queued", "the generation is kept");
    let stream = api.get(&format!("{path}/events")).await;
    let kinds: Vec<Value> = events(stream.text()).into_iter().filter_map(|event| event.get("event").cloned()).collect();
    assert_eq!(kinds, ["generation.queued", "server.draining"]);

    let unready = api.operate(Method::GET, "/readyz", Value::Null).await;
    assert!(unready.json()["reasons"].as_array().unwrap().contains(&json!("worker_drained")), "{unready:?}");
    assert_eq!((unready.status, unready.json()["code"].as_str()), (503, Some("drained")));
    let unstarted = api.operate(Method::GET, "/startupz", Value::Null).await;
    assert_eq!(unstarted.json()["code"], "starting", "a drain does not undo the start");
    api.drain.set(false);
    let ready = api.operate(Method::GET, "/readyz", Value::Null).await;
    assert!(!ready.text().contains("worker_drained"));
    assert_eq!(ready.json()["code"], "starting", "no test has loaded the model");
    api.drain.set(true);
    api.draining.cancel();
    let stopping = api.operate(Method::GET, "/readyz", Value::Null).await;
    assert_eq!(stopping.json()["code"], "draining");
}

#[tokio::test]
async fn a_process_without_devices_is_not_ready_and_shows_them_as_failed() {
    let api = TestApi::open(&[]).await;
    let listed = async || api.get("/v1/queue").await.json()["devices"].clone();
    assert_eq!(listed().await, json!([{"id": "cpu", "running": 0, "failed": false}]));
    api.devices.fail(0);
    assert_eq!(listed().await, json!([{"id": "cpu", "running": 0, "failed": true}]));
    let unready = api.operate(Method::GET, "/readyz", Value::Null).await;
    assert_eq!((unready.status, unready.json()["code"].as_str()), (503, Some("draining")));
    assert!(unready.json()["reasons"].as_array().unwrap().contains(&json!("devices_failed")), "{unready:?}");
    assert_eq!(api.operate(Method::GET, "/livez", Value::Null).await.status, 200);
}

#[tokio::test]
async fn a_drain_ends_waiting_for_queued_generations_and_not_for_running_ones() {
    let api = TestApi::open(&[]).await;
    api.create(fox()).await;
    let lease = api.begin().await;
    let running = format!("/v1/images/{}", lease.id());
    let queued = format!("/v1/images/{}", api.create(fox()).await);
    let (queued_events, running_events) = (format!("{queued}/events"), format!("{running}/events"));
    let waiting = async {
        let told = tokio::join!(api.get_with(&queued, "prefer", "wait=300"), api.get(&queued_events));
        api.succeed(lease, PNG).await;
        told
    };
    let drained = async {
        tokio::task::yield_now().await;
        api.drain.set(true);
    };
    let ((read, stream), ended, ended_events, ()) =
        tokio::join!(waiting, api.get_with(&running, "prefer", "wait=300"), api.get(&running_events), drained);
    assert_eq!(read.json()["status"], "queued");
    assert_eq!(events(stream.text()).last().unwrap()["event"], "server.draining");
    assert_eq!((ended.json()["status"].as_str(), ended.header("preference-applied")), (Some("succeeded"), "wait=300"));
    assert_eq!(events(ended_events.text()).last().unwrap()["event"], "generation.succeeded");
}
