//! What those hear who wait while the only worker is drained.

use axum::http::Method;
use serde_json::{Value, json};

use crate::{
    PNG,
    conforms::events,
    desk::{Desk, post},
};

fn fox() -> Value {
    json!({"prompt": "a red fox"})
}

#[tokio::test]
async fn who_waits_for_what_nobody_begins_is_told_at_once() {
    let desk = Desk::open(&[]).await;
    desk.drain.set(true);
    let receipt = desk.ask(post(&fox(), &[("prefer", "wait=300")])).await;
    assert_eq!((receipt.status, receipt.json()["status"].as_str()), (202, Some("queued")));
    assert_eq!(receipt.header("preference-applied"), "", "it was not waited for");
    let both = desk.ask(post(&fox(), &[("prefer", "respond-async, wait=300")])).await;
    assert_eq!(both.header("preference-applied"), "respond-async");
    let elapsed = desk.ask(post(&fox(), &[("prefer", "wait=0")])).await;
    assert_eq!((elapsed.status, elapsed.json()["status"].as_str()), (202, Some("queued")));
    let path = format!("/v1/images/{}", receipt.json()["id"].as_str().unwrap());
    let read = desk.get_with(&path, "prefer", "wait=300").await;
    assert_eq!((read.status, read.json()["status"].as_str()), (200, Some("queued")));
    assert_eq!(read.header("preference-applied"), "");
    let picture = desk.ask(post(&fox(), &[("accept", "image/png")])).await;
    assert_eq!((picture.status, picture.json()["code"].as_str()), (503, Some("draining")));
    assert_eq!(picture.header("preference-applied"), "");
    let title = picture.json()["title"].as_str().unwrap().to_owned();
    assert!(!title.contains("stopping"), "{title}");
    assert_eq!(desk.get(picture.header("location")).await.json()["status"], "queued", "it is kept");
    let stream = desk.get(&format!("{path}/events")).await;
    let kinds: Vec<Value> = events(stream.text()).into_iter().filter_map(|event| event.get("event").cloned()).collect();
    assert_eq!(kinds, ["generation.queued", "server.draining"]);

    let unready = desk.operate(Method::GET, "/readyz", Value::Null).await;
    assert!(unready.json()["reasons"].as_array().unwrap().contains(&json!("worker_drained")), "{unready:?}");
    assert_eq!((unready.status, unready.json()["code"].as_str()), (503, Some("drained")));
    let unstarted = desk.operate(Method::GET, "/startupz", Value::Null).await;
    assert_eq!(unstarted.json()["code"], "starting", "a drain does not undo the start");
    desk.drain.set(false);
    let ready = desk.operate(Method::GET, "/readyz", Value::Null).await;
    assert!(!ready.text().contains("worker_drained"));
    assert_eq!(ready.json()["code"], "starting", "the model was never loaded here");
    desk.drain.set(true);
    desk.draining.cancel();
    let stopping = desk.operate(Method::GET, "/readyz", Value::Null).await;
    assert_eq!(stopping.json()["code"], "draining");
}

#[tokio::test]
async fn who_waits_already_is_told_and_what_runs_is_waited_for() {
    let desk = Desk::open(&[]).await;
    desk.create(fox()).await;
    let lease = desk.begin().await;
    let running = format!("/v1/images/{}", lease.id());
    let queued = format!("/v1/images/{}", desk.create(fox()).await);
    let (queued_events, running_events) = (format!("{queued}/events"), format!("{running}/events"));
    let waiting = async {
        let told = tokio::join!(desk.get_with(&queued, "prefer", "wait=300"), desk.get(&queued_events));
        desk.succeed(lease, PNG).await;
        told
    };
    let drained = async {
        tokio::task::yield_now().await;
        desk.drain.set(true);
    };
    let ((read, stream), ended, ended_events, ()) =
        tokio::join!(waiting, desk.get_with(&running, "prefer", "wait=300"), desk.get(&running_events), drained);
    assert_eq!(read.json()["status"], "queued");
    assert_eq!(events(stream.text()).last().unwrap()["event"], "server.draining");
    assert_eq!((ended.json()["status"].as_str(), ended.header("preference-applied")), (Some("succeeded"), "wait=300"));
    assert_eq!(events(ended_events.text()).last().unwrap()["event"], "generation.succeeded");
}
