//! Tests of stars, which keep generations.

use axum::{
    body::Body,
    http::{Method, Request},
};
use latentd::generation::GenerationId;
use serde_json::{Value, json};

use crate::{
    PNG,
    api::{Answer, TestApi, post},
};

async fn ask(api: &TestApi, method: Method, path: &str, key: &str) -> Answer {
    let request = Request::builder().method(method).uri(path).header("authorization", key);
    api.ask(request.body(Body::empty()).unwrap()).await
}

/// A generation that has succeeded.
async fn succeeded(api: &TestApi) -> GenerationId {
    let id = api.create(json!({"prompt": "a red fox"})).await;
    api.succeed(api.begin().await, PNG).await;
    id
}

fn star(id: GenerationId) -> String {
    format!("/v1/images/{id}/star")
}

fn ids(list: &Answer) -> Vec<String> {
    list.json()["data"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_star_is_given_and_taken_away() {
    let api = TestApi::open(&[]).await;
    let kept = succeeded(&api).await;
    let path = format!("/v1/images/{kept}");
    let before = api.get(&path).await;
    assert_eq!(before.json()["starred"], false);

    // The second request changes nothing.
    let first = api.act(Method::PUT, &star(kept)).await;
    assert_eq!((first.status, first.header("cache-control")), (200, "no-store"));
    assert_eq!((&first.json()["starred"], &first.json()["expires_at"]), (&json!(true), &Value::Null));
    assert_eq!(api.act(Method::PUT, &star(kept)).await.json(), first.json());
    let now = api.get_with(&path, "if-none-match", before.header("etag")).await;
    assert_eq!((now.status, now.json()), (200, first.json()), "a star is a change");

    let taken = api.act(Method::DELETE, &star(kept)).await;
    assert_eq!((taken.status, &taken.json()["starred"]), (200, &json!(false)));
    assert!(taken.json()["expires_at"].is_string());
    assert_eq!(api.act(Method::DELETE, &star(kept)).await.json(), taken.json());

    // A generation with a star is deleted as any other.
    api.act(Method::PUT, &star(kept)).await;
    assert_eq!(api.act(Method::DELETE, &path).await.status, 204);
    for method in [Method::PUT, Method::DELETE] {
        assert_eq!(api.act(method, &star(kept)).await.status, 404);
    }
}

#[tokio::test]
async fn lists_are_filtered_by_stars() {
    let api = TestApi::open(&[]).await;
    let mut all = Vec::new();
    for _ in 0..4 {
        all.push(succeeded(&api).await);
    }
    for id in &all[..3] {
        api.act(Method::PUT, &star(*id)).await;
    }
    let text = |at: usize| all[at].to_string();
    let page = api.get("/v1/images?starred=true&limit=2").await;
    assert_eq!(ids(&page), [text(2), text(1)]);
    let next = page.header("link").split(['<', '>']).nth(1).unwrap().to_owned();
    assert_eq!(ids(&api.get(&next).await), [text(0)], "the next page has the same filter: {next}");
    assert_eq!(ids(&api.get("/v1/images?starred=false").await), [text(3)]);
    assert_eq!(ids(&api.get("/v1/images").await).len(), 4);
    assert_eq!(ids(&api.operate(Method::GET, "/admin/generations?starred=false", Value::Null).await), [text(3)]);
    for wrong in ["yes", "null", ""] {
        let refused = api.get(&format!("/v1/images?starred={wrong}")).await;
        assert_eq!((refused.status, &refused.json()["errors"][0]["pointer"]), (422, &json!("/starred")), "{wrong}");
    }
}

#[tokio::test]
async fn the_number_of_stars_is_bounded() {
    let api = TestApi::open(&[("retention.max_starred", "1")]).await;
    let (first, second) = (succeeded(&api).await, succeeded(&api).await);
    assert_eq!(api.act(Method::PUT, &star(first)).await.status, 200);
    let refused = api.act(Method::PUT, &star(second)).await;
    assert_eq!((refused.status, refused.json()["code"].as_str()), (409, Some("stars_full")));
    assert!(refused.json()["detail"].as_str().unwrap().starts_with("1 of your generations"), "{refused:?}");
    assert_eq!(refused.header("x-should-retry"), "false");
    assert_eq!(api.act(Method::PUT, &star(first)).await.status, 200, "it has a star already");
    api.act(Method::DELETE, &star(first)).await;
    assert_eq!(api.act(Method::PUT, &star(second)).await.status, 200);
}

#[tokio::test]
async fn only_pictures_have_stars() {
    let api = TestApi::open(&[]).await;
    let failed = api.create(json!({"prompt": "a"})).await;
    api.fail(api.begin().await, "out_of_memory").await;
    let queued = api.create(json!({"prompt": "b"})).await;
    for id in [failed, queued] {
        let refused = api.act(Method::PUT, &star(id)).await;
        assert_eq!((refused.status, refused.json()["code"].as_str()), (409, Some("generation_not_succeeded")));
        let unchanged = api.act(Method::DELETE, &star(id)).await;
        assert_eq!((unchanged.status, &unchanged.json()["starred"]), (200, &json!(false)));
    }
    assert_eq!(api.act(Method::PUT, "/v1/images/nonsense/star").await.status, 404);
}

#[tokio::test]
async fn stars_belong_to_a_tenant_and_need_the_scope_generate() {
    let api = TestApi::open(&[("retention.max_starred", "1")]).await;
    let (alice, bob) = (api.key("alice", 9).await, api.key("bob", 9).await);
    let mut own = Vec::new();
    for key in [&alice, &bob] {
        let created = api.ask(post(&json!({"prompt": "a red fox"}), &[("authorization", key)])).await;
        own.push(created.json()["id"].as_str().unwrap().parse::<GenerationId>().unwrap());
        api.succeed(api.begin().await, PNG).await;
    }
    for method in [Method::PUT, Method::DELETE] {
        let hidden = ask(&api, method, &star(own[0]), &bob).await;
        assert_eq!((hidden.status, hidden.json()["code"].as_str()), (404, Some("not_found")));
    }
    // Each tenant has its own bound.
    for (id, key) in own.iter().zip([&alice, &bob]) {
        assert_eq!(ask(&api, Method::PUT, &star(*id), key).await.status, 200);
        assert_eq!(ids(&ask(&api, Method::GET, "/v1/images?starred=true", key).await), [id.to_string()]);
    }
    let made = api.operate(Method::POST, "/admin/keys", json!({"tenant": "alice", "scopes": ["read"]})).await;
    let reader = format!("Bearer {}", made.json()["key"].as_str().unwrap());
    for method in [Method::PUT, Method::DELETE] {
        let refused = ask(&api, method, &star(own[0]), &reader).await;
        assert_eq!((refused.status, refused.json()["code"].as_str()), (403, Some("scope_missing")));
    }
}
