//! Tests of requests that OpenAI's SDKs repeat by themselves.

use axum::http::Request;

use super::*;

/// The request of try number `count`.
fn attempt(count: &str, prompt: &str) -> Request<Body> {
    sdk(GENERATIONS, &json!({ "prompt": prompt }), &[("x-stainless-retry-count", count)])
}

/// Sends the request and disconnects once its generation has begun; returns the generation.
async fn lose(api: &TestApi, request: Request<Body>) -> latentd::ledger::Lease {
    tokio::select! {
        response = api.send(request) => panic!("answered {response:?}"),
        lease = api.begin_next() => lease,
    }
}

#[tokio::test]
async fn a_retry_gets_the_generation_of_the_lost_try() {
    let api = TestApi::open(&[]).await;
    let lease = lose(&api, attempt("0", "a")).await;
    let id = lease.id().to_string();
    let retry = api.ask(attempt("1", "a"));
    let (answer, ()) = tokio::join!(retry, api.succeed(lease, PNG));
    assert_eq!((answer.status, answer.json()["id"].clone()), (200, json!(id)), "{}", answer.text());
    assert_eq!(answer.header("idempotency-replayed"), "true");
    // The answer was lost, too.
    let again = api.ask(attempt("2", "a")).await;
    assert_eq!((again.status, again.json()["id"].clone()), (200, json!(id)));
    assert_eq!(api.store.counts().await.unwrap().queued, 0, "nothing was drawn twice");
}

#[tokio::test]
async fn a_new_request_another_body_and_a_failed_try_draw_again() {
    let api = TestApi::open(&[]).await;
    let (first, _) = drawn(&api, attempt("0", "a")).await;
    let (same, _) = drawn(&api, attempt("0", "a")).await;
    assert_ne!(first.json()["id"], same.json()["id"], "try 0 is always new");
    let (other, _) = drawn(&api, attempt("1", "b")).await;
    assert_ne!(other.json()["id"], same.json()["id"]);
    let fail = async { api.fail(api.begin_next().await, "internal").await };
    let (failed, ()) = tokio::join!(api.ask(attempt("0", "c")), fail);
    assert_eq!(failed.status, 500);
    let (retried, _) = drawn(&api, attempt("1", "c")).await;
    assert_eq!(retried.status, 200);
}

/// Whether the only generation is canceled after its client has disconnected for good.
async fn is_canceled(headers: &[(&str, &str)], more: Value) -> bool {
    let api = TestApi::open(&[("http.return_s", "0.001")]).await;
    let mut body = json!({"prompt": "a"});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let _lease = lose(&api, sdk(GENERATIONS, &body, headers)).await;
    api.afterwork.close();
    api.afterwork.wait().await;
    let id = active(&api).await;
    api.store.get(id).await.unwrap().unwrap().cancel_requested
}

#[tokio::test]
async fn a_client_that_does_not_return_cancels_its_generation() {
    assert!(is_canceled(&[], json!({})).await);
    assert!(is_canceled(&[("x-stainless-retry-count", "0")], json!({})).await);
    assert!(is_canceled(&[("x-stainless-retry-count", "0")], json!({"on_disconnect": "cancel"})).await);
    assert!(!is_canceled(&[("x-stainless-retry-count", "0")], json!({"on_disconnect": "keep"})).await);
    assert!(!is_canceled(&[("idempotency-key", "k")], json!({})).await);
}

#[tokio::test]
async fn a_retry_is_of_its_tenant() {
    let api = TestApi::open(&[]).await;
    let (alice, bob) = (api.key("alice", 9).await, api.key("bob", 9).await);
    let of = |key: &str, count: &str| {
        let request = Request::post(GENERATIONS).header("content-type", "application/json");
        let request = request.header("authorization", key).header("x-stainless-retry-count", count);
        request.body(Body::from(json!({"prompt": "a"}).to_string())).unwrap()
    };
    let (first, _) = drawn(&api, of(&alice, "0")).await;
    let (other, _) = drawn(&api, of(&bob, "1")).await;
    assert_ne!(first.json()["id"], other.json()["id"]);
}
