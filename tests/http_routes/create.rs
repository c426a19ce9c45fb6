//! Creating generations: the three answers, and clients that leave.

use axum::{body::Body, http::Request};
use futures::StreamExt;
use latentd::ledger::Outcome;
use serde_json::{Value, json};

use crate::{
    PNG,
    conforms::events,
    desk::{Answer, Desk, post, read},
};

fn fox() -> Value {
    json!({"prompt": "a red fox", "seed": 7})
}

#[tokio::test]
async fn a_receipt_says_where_and_when_to_look() {
    let desk = Desk::open(&[]).await;
    let answer = desk.ask(post(&fox(), &[])).await;
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(answer.status, 202);
    assert_eq!(answer.header("location"), format!("/v1/images/{id}"));
    assert_eq!(answer.header("latentd-generation-id"), id);
    assert_eq!(answer.header("retry-after"), "1");
    assert_eq!(answer.header("vary"), "Accept, Prefer");
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("preference-applied"), "");
    assert_eq!(answer.json()["queue"]["position"], 0);

    let later = desk.ask(post(&fox(), &[("prefer", "respond-async")])).await;
    assert_eq!((later.status, later.header("preference-applied")), (202, "respond-async"));
    for bare in ["wait=soon", "wait=-1", "handling=strict; wait=1"] {
        let ignored = desk.ask(post(&fox(), &[("prefer", bare)])).await;
        assert_eq!((ignored.status, ignored.header("preference-applied")), (202, ""), "{bare}");
    }
    let impatient = desk.ask(post(&fox(), &[("prefer", "wait=0")])).await;
    assert_eq!((impatient.status, impatient.header("preference-applied")), (202, "wait=0"));
}

/// A creation beside which the test plays the worker.
async fn beside(desk: &Desk, headers: &[(&str, &str)], end: impl AsyncFnOnce(&Desk)) -> Answer {
    let (answer, ()) = tokio::join!(desk.ask(post(&fox(), headers)), end(desk));
    answer
}

#[tokio::test]
async fn who_waits_gets_the_end() {
    let desk = Desk::open(&[]).await;
    let succeed = async |desk: &Desk| desk.succeed(desk.begin_next().await, PNG).await;
    let answer = beside(&desk, &[("prefer", "wait=20")], succeed).await;
    assert_eq!((answer.status, answer.header("preference-applied")), (200, "wait=20"));
    let object = answer.json();
    assert_eq!((object["status"].as_str(), object["attempt"].as_u64()), (Some("succeeded"), Some(1)));

    let bare = beside(&desk, &[("prefer", "wait")], succeed).await;
    assert_eq!((bare.status, bare.header("preference-applied")), (200, "wait=60"));

    let picture = beside(&desk, &[("accept", "image/png"), ("prefer", "wait=20")], succeed).await;
    assert_eq!((picture.status, picture.body.as_slice()), (200, PNG));
    assert_eq!(picture.header("content-type"), "image/png");
    assert_eq!(picture.header("latentd-seed"), "7");
    assert_eq!(picture.header("content-location"), format!("{}/content/0", picture.header("location")));
    assert_eq!(picture.header("etag").len(), 66);
    assert_eq!(picture.header("preference-applied"), "wait=20");
}

#[tokio::test]
async fn the_path_can_ask_for_the_picture() {
    let desk = Desk::open(&[]).await;
    let request = Request::post("/v1/images.png")
        .header("content-type", "application/x-www-form-urlencoded")
        .header("accept", "*/*")
        .body(Body::from("prompt=a red fox"))
        .unwrap();
    let (answer, ()) = tokio::join!(desk.ask(request), async { desk.succeed(desk.begin_next().await, PNG).await });
    assert_eq!((answer.status, answer.body.as_slice()), (200, PNG));
}

#[tokio::test]
async fn a_picture_that_does_not_come_is_an_error() {
    let desk = Desk::open(&[]).await;
    let png = ("accept", "image/png");
    let late = desk.ask(post(&fox(), &[png, ("prefer", "wait=0")])).await;
    assert_eq!((late.status, late.json()["code"].as_str()), (504, Some("wait_timeout")));
    assert!(late.header("location").starts_with("/v1/images/img_"));
    let waiting = desk.get(late.header("location")).await.json();
    assert_eq!(waiting["status"], "queued", "the generation goes on");
    desk.succeed(desk.begin().await, PNG).await;

    for (code, status) in [("internal", 500), ("out_of_memory", 500), ("run_timeout", 504), ("never heard of", 500)] {
        let failed = beside(&desk, &[png], async |desk| desk.fail(desk.begin_next().await, code).await).await;
        assert_eq!(failed.status, status, "{code}");
        assert_eq!(failed.json()["detail"], "as tested");
        assert!(failed.header("location").starts_with("/v1/images/img_"));
    }
    let cancel = async |desk: &Desk| desk.end(desk.begin_next().await, Outcome::Canceled).await;
    let canceled = beside(&desk, &[png], cancel).await;
    assert_eq!((canceled.status, canceled.header("x-should-retry")), (409, "false"));
}

#[tokio::test]
async fn what_cannot_be_answered_is_not_accepted() {
    let desk = Desk::open(&[]).await;
    let mut two = fox();
    two["n"] = json!(2);
    for (body, headers, status, code) in [
        (&two, ("accept", "image/png"), 406, "multiple_images"),
        (&fox(), ("accept", "image/avif"), 406, "not_acceptable"),
        (&fox(), ("accept", "image/png;q=7"), 400, "bad_header"),
        (&json!({"prompt": "a", "colour": "red"}), ("accept", "*/*"), 422, "unknown_field"),
        (&json!({"prompt": "a", "model": "x"}), ("accept", "*/*"), 422, "unknown_model"),
        (&json!({"steps": 0}), ("accept", "*/*"), 422, "validation_failed"),
    ] {
        let answer = desk.ask(post(body, &[headers])).await;
        assert_eq!((answer.status, answer.json()["code"].as_str()), (status, Some(code)), "{headers:?}");
    }
    assert_eq!(desk.store.counts().await.unwrap().queued, 0);
}

#[tokio::test]
async fn a_full_queue_says_when_to_return() {
    let desk = Desk::open(&[("queue.max_queued", "1")]).await;
    desk.create(fox()).await;
    let refused = desk.ask(post(&fox(), &[])).await;
    assert_eq!((refused.status, refused.json()["code"].as_str()), (503, Some("queue_full")));
    assert_eq!(refused.header("retry-after"), refused.json()["retry_after_s"].to_string());
}

#[tokio::test]
async fn the_stream_of_a_creation_begins_with_the_generation() {
    let desk = Desk::open(&[]).await;
    let succeed = async |desk: &Desk| desk.succeed(desk.begin_next().await, PNG).await;
    let answer = beside(&desk, &[("accept", "text/event-stream")], succeed).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "text/event-stream"));
    assert!(answer.header("location").ends_with(answer.header("latentd-generation-id")));
    let events = events(answer.text());
    assert_eq!(events[0], json!({"id": 0, "retry": 2000, "data": ""}));
    assert_eq!(events[1]["event"], "generation.queued");
    assert_eq!(events[1]["data"]["generation"]["id"], answer.header("latentd-generation-id"));
    assert_eq!(events.last().unwrap()["data"]["generation"]["status"], "succeeded");
}

/// Status of the only generation after its waiting client has left.
async fn left(accept: &str, prefer: &str, on_disconnect: Option<&str>) -> String {
    let desk = Desk::open(&[]).await;
    let mut body = fox();
    body["on_disconnect"] = json!(on_disconnect);
    let request = post(&body, &[("accept", accept), ("prefer", prefer)]);
    if accept == "text/event-stream" {
        let mut stream = desk.send(request).await.into_body().into_data_stream();
        stream.next().await.unwrap().unwrap();
        desk.begin_next().await;
    } else {
        // Whichever is first; the generation does not end, so that it is never the answer.
        tokio::select! {
            response = desk.send(request) => panic!("answered {response:?}"),
            _ = desk.begin_next() => {}
        }
    }
    desk.afterwork.close();
    desk.afterwork.wait().await;
    let list = desk.get("/v1/images").await.json();
    let id = list["data"][0]["id"].as_str().unwrap().parse().unwrap();
    let asked = desk.store.get(id).await.unwrap().unwrap().cancel_requested;
    if asked { "canceled".to_owned() } else { "kept".to_owned() }
}

#[tokio::test]
async fn leaving_cancels_where_nobody_else_could_have_the_result() {
    assert_eq!(left("image/png", "x", None).await, "canceled");
    assert_eq!(left("image/png", "wait=20", None).await, "canceled");
    assert_eq!(left("text/event-stream", "x", None).await, "canceled");
    assert_eq!(left("application/json", "wait=20", None).await, "kept");
}

#[tokio::test]
async fn the_request_can_say_what_leaving_means() {
    assert_eq!(left("image/png", "x", Some("keep")).await, "kept");
    assert_eq!(left("text/event-stream", "x", Some("keep")).await, "kept");
    assert_eq!(left("application/json", "wait=20", Some("cancel")).await, "canceled");
}

#[tokio::test]
async fn a_stopping_server_sends_waiting_clients_away_and_keeps_their_work() {
    for accept in ["image/png", "application/json"] {
        let desk = Desk::open(&[]).await;
        let stop = async |desk: &Desk| {
            desk.begin_next().await;
            desk.draining.cancel();
        };
        let answer = beside(&desk, &[("accept", accept), ("prefer", "wait=20")], stop).await;
        assert_eq!((answer.status, answer.json()["code"].as_str()), (503, Some("draining")));
        assert_ne!(answer.header("retry-after"), "");
        let id = answer.header("location").rsplit('/').next().unwrap().parse().unwrap();
        desk.afterwork.close();
        desk.afterwork.wait().await;
        assert!(!desk.store.get(id).await.unwrap().unwrap().cancel_requested);
    }
}

#[tokio::test]
async fn a_stopping_server_says_so() {
    let desk = Desk::open(&[]).await;
    assert_eq!(desk.get("/health").await.status, 200);
    desk.draining.cancel();
    let refused = desk.ask(post(&fox(), &[])).await;
    assert_eq!((refused.status, refused.json()["code"].as_str()), (503, Some("draining")));
    assert_eq!(desk.get("/health").await.status, 503);
    let request = Request::get("/readyz").body(Body::empty()).unwrap();
    let unready = read(tower::ServiceExt::oneshot(desk.operator.clone(), request).await.unwrap()).await;
    assert_eq!(unready.status, 503);
    assert!(unready.json()["reasons"].as_array().unwrap().contains(&json!("draining")));
}
