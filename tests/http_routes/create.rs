//! Tests of creating generations: answers as JSON, as a picture and as an event stream, and clients that disconnect.

use axum::{body::Body, http::Request};
use futures::StreamExt;
use latentd::ledger::Outcome;
use serde_json::{Value, json};

use crate::{
    PNG,
    api::{Answer, TestApi, post, read},
    conforms::events,
};

fn fox() -> Value {
    json!({"prompt": "a red fox", "seed": 7})
}

#[tokio::test]
async fn an_accepted_request_gets_a_location_and_a_retry_time() {
    let api = TestApi::open(&[]).await;
    let answer = api.ask(post(&fox(), &[])).await;
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(answer.status, 202);
    assert_eq!(answer.header("location"), format!("/v1/images/{id}"));
    assert_eq!(answer.header("latentd-generation-id"), id);
    assert_eq!(answer.header("retry-after"), "1");
    assert_eq!(answer.header("vary"), "Accept, Prefer");
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("preference-applied"), "");
    assert_eq!(answer.json()["queue"]["position"], 0);

    let later = api.ask(post(&fox(), &[("prefer", "respond-async")])).await;
    assert_eq!((later.status, later.header("preference-applied")), (202, "respond-async"));
    for bare in ["wait=soon", "wait=-1", "handling=strict; wait=1"] {
        let ignored = api.ask(post(&fox(), &[("prefer", bare)])).await;
        assert_eq!((ignored.status, ignored.header("preference-applied")), (202, ""), "{bare}");
    }
    let impatient = api.ask(post(&fox(), &[("prefer", "wait=0")])).await;
    assert_eq!((impatient.status, impatient.header("preference-applied")), (202, "wait=0"));
}

/// Sends a creation and runs `end`, in which the test plays the worker, at the same time.
async fn create_while(api: &TestApi, headers: &[(&str, &str)], end: impl AsyncFnOnce(&TestApi)) -> Answer {
    let (answer, ()) = tokio::join!(api.ask(post(&fox(), headers)), end(api));
    answer
}

#[tokio::test]
async fn a_waiting_client_gets_the_finished_generation() {
    let api = TestApi::open(&[]).await;
    let succeed = async |api: &TestApi| api.succeed(api.begin_next().await, PNG).await;
    let answer = create_while(&api, &[("prefer", "wait=20")], succeed).await;
    assert_eq!((answer.status, answer.header("preference-applied")), (200, "wait=20"));
    let object = answer.json();
    assert_eq!((object["status"].as_str(), object["attempt"].as_u64()), (Some("succeeded"), Some(1)));

    let bare = create_while(&api, &[("prefer", "wait")], succeed).await;
    assert_eq!((bare.status, bare.header("preference-applied")), (200, "wait=60"));

    let picture = create_while(&api, &[("accept", "image/png"), ("prefer", "wait=20")], succeed).await;
    assert_eq!((picture.status, picture.body.as_slice()), (200, PNG));
    assert_eq!(picture.header("content-type"), "image/png");
    assert_eq!(picture.header("latentd-seed"), "7");
    assert_eq!(picture.header("content-location"), format!("{}/content/0", picture.header("location")));
    assert_eq!(picture.header("etag").len(), 66);
    assert_eq!(picture.header("preference-applied"), "wait=20");

    let picture = create_while(&api, &[("accept", "image/png"), ("prefer", "respond-async")], succeed).await;
    assert_eq!((picture.status, picture.header("preference-applied")), (200, ""), "an answer with a picture waits");
}

#[tokio::test]
async fn the_path_can_request_a_picture() {
    let api = TestApi::open(&[]).await;
    let request = Request::post("/v1/images.png")
        .header("content-type", "application/x-www-form-urlencoded")
        .header("accept", "*/*")
        .body(Body::from("prompt=a red fox"))
        .unwrap();
    let (answer, ()) = tokio::join!(api.ask(request), async { api.succeed(api.begin_next().await, PNG).await });
    assert_eq!((answer.status, answer.body.as_slice()), (200, PNG));
}

#[tokio::test]
async fn a_request_for_a_picture_gets_an_error_if_there_is_no_picture() {
    let api = TestApi::open(&[]).await;
    let png = ("accept", "image/png");
    let late = api.ask(post(&fox(), &[png, ("prefer", "wait=0")])).await;
    assert_eq!((late.status, late.json()["code"].as_str()), (504, Some("wait_timeout")));
    assert!(late.header("location").starts_with("/v1/images/img_"));
    let waiting = api.get(late.header("location")).await.json();
    assert_eq!(waiting["status"], "queued", "the generation stays queued");
    api.succeed(api.begin().await, PNG).await;

    let failures =
        [("internal", 500), ("not_finite", 500), ("out_of_memory", 500), ("run_timeout", 504), ("never heard of", 500)];
    for (code, status) in failures {
        let failed = create_while(&api, &[png], async |api| api.fail(api.begin_next().await, code).await).await;
        assert_eq!(failed.status, status, "{code}");
        assert_eq!(failed.json()["detail"], "as tested");
        assert!(failed.header("location").starts_with("/v1/images/img_"));
    }
    let cancel = async |api: &TestApi| api.end(api.begin_next().await, Outcome::Canceled).await;
    let canceled = create_while(&api, &[png], cancel).await;
    assert_eq!((canceled.status, canceled.header("x-should-retry")), (409, "false"));
}

/// Parts after the eighth are never read, so they would be lost without a word.
#[tokio::test]
async fn a_prompt_with_too_many_parts_is_refused() {
    let api = TestApi::open(&[]).await;
    let prompt = |parts: usize| vec!["fox"; parts].join(" BREAK ");
    for (parts, syntax, status) in [(8, "weighted", 202), (9, "weighted", 422), (9, "plain", 202)] {
        for field in ["prompt", "negative_prompt"] {
            let mut body = json!({"prompt": "a", "prompt_syntax": syntax});
            body[field] = prompt(parts).into();
            let answer = api.ask(post(&body, &[])).await;
            assert_eq!(answer.status, status, "{parts} {syntax} {}", answer.text());
            if status == 422 {
                let errors = answer.json()["errors"].clone();
                assert_eq!((&errors[0]["pointer"], errors.as_array().unwrap().len()), (&json!(format!("/{field}")), 1));
                assert_eq!(errors[0]["detail"], format!("{field} must have at most 8 parts between BREAKs, not 9"));
            }
        }
    }
}

#[tokio::test]
async fn a_request_that_cannot_be_answered_is_not_accepted() {
    let api = TestApi::open(&[]).await;
    let mut two = fox();
    two["n"] = json!(2);
    for (body, headers, status, code) in [
        (&two, ("accept", "image/png"), 406, "multiple_images"),
        (&fox(), ("accept", "image/avif"), 406, "not_acceptable"),
        (&fox(), ("accept", "image/png;q=7"), 400, "bad_header"),
        (&json!({"prompt": "a", "color": "red"}), ("accept", "*/*"), 422, "unknown_field"),
        (&json!({"prompt": "a", "model": "x"}), ("accept", "*/*"), 422, "unknown_model"),
        (&json!({"steps": 0}), ("accept", "*/*"), 422, "validation_failed"),
    ] {
        let answer = api.ask(post(body, &[headers])).await;
        assert_eq!((answer.status, answer.json()["code"].as_str()), (status, Some(code)), "{headers:?}");
    }
    assert_eq!(api.store.counts().await.unwrap().queued, 0);
}

#[tokio::test]
async fn a_full_queue_names_a_retry_time() {
    let api = TestApi::open(&[("queue.max_queued", "1")]).await;
    api.create(fox()).await;
    let refused = api.ask(post(&fox(), &[])).await;
    assert_eq!((refused.status, refused.json()["code"].as_str()), (503, Some("queue_full")));
    assert_eq!(refused.header("retry-after"), refused.json()["retry_after_s"].to_string());
}

#[tokio::test]
async fn the_stream_of_a_creation_begins_with_the_generation() {
    let api = TestApi::open(&[]).await;
    let succeed = async |api: &TestApi| api.succeed(api.begin_next().await, PNG).await;
    let answer = create_while(&api, &[("accept", "text/event-stream")], succeed).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "text/event-stream"));
    assert!(answer.header("location").ends_with(answer.header("latentd-generation-id")));
    let events = events(answer.text());
    assert_eq!(events[0], json!({"id": 0, "retry": 2000, "data": ""}));
    assert_eq!(events[1]["event"], "generation.queued");
    assert_eq!(events[1]["data"]["generation"]["id"], answer.header("latentd-generation-id"));
    assert_eq!(events.last().unwrap()["data"]["generation"]["status"], "succeeded");
}

/// Whether the only generation is `canceled` or `kept` after its waiting client has disconnected.
async fn outcome_after_disconnect(accept: &str, prefer: &str, on_disconnect: Option<&str>) -> String {
    let api = TestApi::open(&[]).await;
    let mut body = fox();
    body["on_disconnect"] = json!(on_disconnect);
    let request = post(&body, &[("accept", accept), ("prefer", prefer)]);
    if accept == "text/event-stream" {
        let mut stream = api.send(request).await.into_body().into_data_stream();
        stream.next().await.unwrap().unwrap();
        api.begin_next().await;
    } else {
        // The request is dropped once its generation has begun. The generation never ends, so no answer comes.
        tokio::select! {
            response = api.send(request) => panic!("answered {response:?}"),
            _ = api.begin_next() => {}
        }
    }
    api.afterwork.close();
    api.afterwork.wait().await;
    let list = api.get("/v1/images").await.json();
    let id = list["data"][0]["id"].as_str().unwrap().parse().unwrap();
    let asked = api.store.get(id).await.unwrap().unwrap().cancel_requested;
    if asked { "canceled".to_owned() } else { "kept".to_owned() }
}

#[tokio::test]
async fn a_disconnect_cancels_if_no_other_client_can_get_the_result() {
    assert_eq!(outcome_after_disconnect("image/png", "x", None).await, "canceled");
    assert_eq!(outcome_after_disconnect("image/png", "wait=20", None).await, "canceled");
    assert_eq!(outcome_after_disconnect("text/event-stream", "x", None).await, "canceled");
    assert_eq!(outcome_after_disconnect("application/json", "wait=20", None).await, "kept");
}

#[tokio::test]
async fn a_request_can_choose_the_effect_of_a_disconnect() {
    assert_eq!(outcome_after_disconnect("image/png", "x", Some("keep")).await, "kept");
    assert_eq!(outcome_after_disconnect("text/event-stream", "x", Some("keep")).await, "kept");
    assert_eq!(outcome_after_disconnect("application/json", "wait=20", Some("cancel")).await, "canceled");
}

#[tokio::test]
async fn a_stopping_server_dismisses_waiting_clients_and_keeps_their_generations() {
    for accept in ["image/png", "application/json"] {
        let api = TestApi::open(&[]).await;
        let stop = async |api: &TestApi| {
            api.begin_next().await;
            api.draining.cancel();
        };
        let answer = create_while(&api, &[("accept", accept), ("prefer", "wait=20")], stop).await;
        assert_eq!((answer.status, answer.json()["code"].as_str()), (503, Some("draining")));
        assert_ne!(answer.header("retry-after"), "");
        let id = answer.header("location").rsplit('/').next().unwrap().parse().unwrap();
        api.afterwork.close();
        api.afterwork.wait().await;
        assert!(!api.store.get(id).await.unwrap().unwrap().cancel_requested);
    }
}

#[tokio::test]
async fn a_stopping_server_refuses_requests_and_is_not_healthy() {
    let api = TestApi::open(&[]).await;
    assert_eq!(api.get("/health").await.status, 200);
    api.draining.cancel();
    let refused = api.ask(post(&fox(), &[])).await;
    assert_eq!((refused.status, refused.json()["code"].as_str()), (503, Some("draining")));
    assert_eq!(api.get("/health").await.status, 503);
    let request = Request::get("/readyz").body(Body::empty()).unwrap();
    let unready = read(tower::ServiceExt::oneshot(api.operator.clone(), request).await.unwrap()).await;
    assert_eq!(unready.status, 503);
    assert!(unready.json()["reasons"].as_array().unwrap().contains(&json!("draining")));
}
