//! Tests of the operator's routes: dead generations, lists, kills, workers and keys.

use std::time::Duration;

use axum::http::Method;
use latentd::ledger::{Claimant, Heartbeat, Reaping};
use serde_json::{Value, json};

use crate::{
    api::{TestApi, post},
    conforms::events,
};

const GET: Method = Method::GET;
const POST: Method = Method::POST;

fn fox() -> Value {
    json!({"prompt": "a red fox"})
}

/// Creates a generation that has failed as dead after a crash of its worker; returns its id.
async fn dead(api: &TestApi) -> String {
    let id = api.create(fox()).await;
    let by = Claimant {
        worker: "w".to_owned(),
        lease: Duration::from_secs(600),
        models: vec!["emoji".to_owned()],
        alone_from: 2,
    };
    api.store.claim(&by, 1, true).await.unwrap().pop().unwrap();
    let reaping = Reaping { all: true, max_crashes: 1, backoff: Duration::ZERO };
    assert_eq!(api.store.reap(&reaping).await.unwrap().ended.len(), 1);
    id.to_string()
}

#[tokio::test]
async fn the_operator_can_find_and_requeue_a_dead_generation() {
    let api = TestApi::open(&[]).await;
    let (dead, alive) = (dead(&api).await, api.create(fox()).await.to_string());
    let list = api.operate(GET, "/admin/generations?dead=true", Value::Null).await.json();
    assert_eq!(list["data"].as_array().unwrap().len(), 1);
    let found = &list["data"][0];
    assert_eq!((found["id"].as_str(), found["dead"].as_bool()), (Some(&*dead), Some(true)));
    assert_eq!((found["tenant"].as_str(), found["crash_count"].as_u64()), (Some("default"), Some(1)));
    assert_eq!(found["error"]["code"], "worker_crashed");

    let refused = api.operate(POST, &format!("/admin/generations/{alive}/requeue"), Value::Null).await;
    assert_eq!((refused.status, refused.json()["code"].as_str()), (409, Some("generation_not_dead")));
    let path = format!("/admin/generations/{dead}/requeue");
    let revived = api.operate(POST, &path, Value::Null).await;
    assert_eq!((revived.status, revived.json()["status"].as_str()), (200, Some("queued")));
    assert_eq!((revived.json()["attempt"].as_u64(), revived.json()["dead"].as_bool()), (Some(0), Some(false)));
    assert_eq!(api.operate(POST, &path, Value::Null).await.status, 409);
    let unknown = latentd::generation::GenerationId::new();
    let unknown = api.operate(POST, &format!("/admin/generations/{unknown}/requeue"), Value::Null).await;
    assert_eq!(unknown.status, 404);

    // A client that waits for the requeued generation waits for its new end, not for the earlier failure.
    let path = format!("/v1/images/{dead}");
    let waiting = api.get_with(&path, "prefer", "wait=20");
    let (ended, ()) = tokio::join!(waiting, async {
        let lease = api.begin().await;
        assert_eq!(lease.id().to_string(), dead);
        api.succeed(lease, crate::PNG).await;
    });
    assert_eq!(ended.json()["status"], "succeeded");
    let history = events(api.get(&format!("{path}/events")).await.text());
    let kinds: Vec<_> = history.iter().filter_map(|event| event["event"].as_str()).collect();
    let last = ["generation.retrying", "generation.started", "generation.succeeded"];
    assert_eq!(kinds[..3], ["generation.queued", "generation.started", "generation.failed"]);
    assert_eq!(kinds[3..], last, "the history continues after the earlier failure");
}

#[tokio::test]
async fn the_operator_lists_generations_of_all_tenants_in_pages() {
    let api = TestApi::open(&[]).await;
    let (alice, bob) = (api.key("alice", 9).await, api.key("bob", 9).await);
    for key in [&alice, &bob, &alice] {
        assert_eq!(api.ask(post(&fox(), &[("authorization", key)])).await.status, 202);
    }
    let list = async |query: &str| api.operate(GET, &format!("/admin/generations{query}"), Value::Null).await;
    let tenants = |list: &Value| -> Vec<String> {
        list["data"].as_array().unwrap().iter().map(|one| one["tenant"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(tenants(&list("").await.json()), ["alice", "bob", "alice"]);
    assert_eq!(tenants(&list("?tenant=bob").await.json()), ["bob"]);
    assert_eq!(tenants(&list("?status=running").await.json()), [""; 0]);
    let first = list("?limit=2&status=queued").await;
    assert_eq!(tenants(&first.json()), ["alice", "bob"]);
    let next = first.header("link").trim_start_matches('<').split('>').next().unwrap().to_owned();
    let second = api.operate(GET, &next, Value::Null).await;
    assert_eq!((tenants(&second.json()), second.json()["has_more"].as_bool()), (vec!["alice".to_owned()], Some(false)));
    // The link keeps the filters of its page.
    let first = list("?tenant=alice&limit=1").await;
    let next = first.header("link").trim_start_matches('<').split('>').next().unwrap().to_owned();
    let second = api.operate(GET, &next, Value::Null).await;
    assert_eq!((tenants(&first.json()), tenants(&second.json())), (vec!["alice".to_owned()], vec!["alice".to_owned()]));
    let refused = list("?dead=perhaps&limit=0&color=red").await;
    assert_eq!((refused.status, refused.json()["errors"].as_array().unwrap().len()), (422, 3));
}

#[tokio::test]
async fn the_operator_can_end_a_generation_of_any_tenant() {
    let api = TestApi::open(&[]).await;
    let alice = api.key("alice", 9).await;
    let created = api.ask(post(&fox(), &[("authorization", &alice)])).await.json();
    let path = format!("/admin/generations/{}/kill", created["id"].as_str().unwrap());
    let killed = api.operate(POST, &path, Value::Null).await;
    assert_eq!((killed.status, killed.json()["status"].as_str()), (200, Some("canceled")));
    let running = api.create(fox()).await;
    let _lease = api.begin().await;
    let killed = api.operate(POST, &format!("/admin/generations/{running}/kill"), Value::Null).await;
    assert_eq!((killed.status, killed.json()["status"].as_str()), (202, Some("running")));
    assert!(api.store.get(running).await.unwrap().unwrap().cancel_requested);
}

#[tokio::test]
async fn the_operator_can_list_and_drain_workers() {
    let api = TestApi::open(&[]).await;
    let beat = Heartbeat {
        worker: "one".to_owned(),
        version: "0.1.0".to_owned(),
        models: vec!["emoji".to_owned()],
        running: 3,
        speed: Some(2.5),
    };
    assert!(!api.store.heartbeat(&beat).await.unwrap());
    let list = api.operate(GET, "/admin/workers", Value::Null).await.json();
    assert_eq!((list["data"][0]["id"].as_str(), list["data"][0]["speed"].as_f64()), (Some("one"), Some(2.5)));
    assert_eq!((list["data"][0]["running"].as_u64(), list["data"][0]["draining"].as_bool()), (Some(3), Some(false)));
    let drained = api.operate(POST, "/admin/workers/one/drain", Value::Null).await;
    assert_eq!((drained.status, drained.json()["draining"].as_bool()), (202, Some(true)));
    assert!(api.store.heartbeat(&beat).await.unwrap());
    assert_eq!(api.operate(POST, "/admin/workers/two/drain", Value::Null).await.status, 404);
}

#[tokio::test]
async fn the_operator_can_create_a_key() {
    let api = TestApi::open(&[("tenants.max_queued", "1")]).await;
    let made = api.operate(POST, "/admin/keys", json!({"tenant": "studio", "weight": 2})).await;
    assert_eq!((made.status, made.header("cache-control")), (201, "no-store"));
    let key = made.json();
    assert_eq!((key["max_queued"].as_u64(), key["max_running"].as_u64()), (Some(1), Some(8)));
    let record = api.store.find_key(key["id"].as_str().unwrap()).await.unwrap().unwrap().record;
    assert_eq!((&*record.tenant, record.weight), ("studio", 2.0));
    let bearer = format!("Bearer {}", key["key"].as_str().unwrap());
    for status in [202, 429] {
        assert_eq!(api.ask(post(&fox(), &[("authorization", &bearer)])).await.status, status);
    }
    let refused = api.operate(POST, "/admin/keys", json!({"tenant": "default", "weight": -1, "color": "red"})).await;
    assert_eq!((refused.status, refused.json()["errors"].as_array().unwrap().len()), (422, 3));
    let public = axum::http::Request::post("/admin/keys").body(axum::body::Body::empty()).unwrap();
    assert_eq!(api.send(public).await.status(), 404, "not on the public listener");
}
