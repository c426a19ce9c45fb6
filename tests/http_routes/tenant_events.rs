//! Tests of the stream of all own generations.

use std::time::Duration;

use axum::{
    body::{Body, BodyDataStream},
    http::Request,
};
use futures::StreamExt;
use serde_json::{Value, json};
use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::{
    PNG,
    api::{TestApi, post},
    conforms::{assert_conforms, events},
    read::{preview, progress},
};

/// An open stream.
struct Reader {
    stream: BodyDataStream,
    read: String,
}

impl Reader {
    async fn open(api: &TestApi, path: &str, headers: &[(&str, &str)]) -> Reader {
        let request = headers.iter().fold(Request::get(path), |request, (name, value)| request.header(*name, *value));
        let response = api.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(
            (response.status().as_u16(), &response.headers()["x-accel-buffering"]),
            (200, &"no".parse().unwrap())
        );
        Reader { stream: response.into_body().into_data_stream(), read: String::new() }
    }

    /// The events until one that `is_last`, checked against the contract.
    async fn until(&mut self, is_last: impl Fn(&Value) -> bool) -> Vec<Value> {
        let all = async {
            loop {
                let found = events(&self.read);
                if found.last().is_some_and(&is_last) {
                    return found;
                }
                self.read += std::str::from_utf8(&self.stream.next().await.expect("it goes on").unwrap()).unwrap();
            }
        };
        let all = tokio::time::timeout(Duration::from_secs(30), all).await.expect("the event does not come");
        assert_conforms("GET", "/v1/events", 200, self.read.as_bytes());
        self.read.clear();
        all
    }

    async fn until_named(&mut self, name: &str) -> Vec<Value> {
        self.until(|event| event["event"] == name).await
    }
}

/// Id, name and generation of the numbered events.
fn numbered(events: &[Value]) -> Vec<(i64, &str, &str)> {
    let named = events.iter().filter(|event| event.get("event").is_some());
    let id = |event: &'_ Value| event["data"].pointer("/generation/id").is_some();
    named
        .filter_map(|event| {
            let of = if id(event) { &event["data"]["generation"]["id"] } else { &event["data"]["id"] };
            Some((event["id"].as_i64()?, event["event"].as_str()?, of.as_str()?))
        })
        .collect()
}

#[tokio::test]
async fn all_own_generations_are_one_stream_that_can_be_resumed() {
    let api = TestApi::open(&[]).await;
    let before = api.create(json!({"prompt": "before"})).await.to_string();
    let mut reader = Reader::open(&api, "/v1/events", &[]).await;
    let prime = reader.until(|event| event.get("retry").is_some()).await;
    assert_eq!(prime[0]["id"], 1, "the stream begins after the last event");

    let first = api.create(json!({"prompt": "first"})).await.to_string();
    let seen = reader.until_named("generation.queued").await;
    assert_eq!(numbered(&seen), [(2, "generation.queued", &*first)]);
    let second = api.create(json!({"prompt": "second"})).await.to_string();
    reader.until_named("generation.queued").await;
    api.succeed(api.begin().await, PNG).await;
    let seen = reader.until_named("generation.succeeded").await;
    assert_eq!(numbered(&seen), [(4, "generation.started", &*before), (5, "generation.succeeded", &*before)]);
    let lease = api.begin().await;
    reader.until_named("generation.started").await;
    drop(reader);

    // The stream contains events that happened in between, and readers that begin at 0 get all events.
    api.fail(lease, "out_of_memory").await;
    for headers in [("last-event-id", "6"), ("accept", "text/event-stream")] {
        let path = if headers.0 == "accept" { "/v1/events?after=6" } else { "/v1/events" };
        let seen = Reader::open(&api, path, &[headers]).await.until_named("generation.failed").await;
        assert_eq!(numbered(&seen), [(7, "generation.failed", &*first)]);
    }
    let all = Reader::open(&api, "/v1/events?after=0", &[]).await.until_named("generation.failed").await;
    let all = numbered(&all);
    assert_eq!(all.iter().map(|(number, ..)| *number).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(all[2], (3, "generation.queued", &*second));

    // Events of erased generations are skipped.
    assert_eq!(api.act(axum::http::Method::DELETE, &format!("/v1/images/{before}")).await.status, 204);
    let rest = Reader::open(&api, "/v1/events?after=0", &[]).await.until_named("generation.failed").await;
    assert_eq!(numbered(&rest).iter().map(|(number, ..)| *number).collect::<Vec<_>>(), [2, 3, 6, 7]);
    assert_eq!(api.get("/v1/events?after=x").await.status, 422);
    assert_eq!(api.get("/v1/events?color=red").await.status, 422);
}

/// More events than one read of the stream gets.
#[tokio::test]
async fn a_stream_goes_on_after_unreadable_events() {
    let api = TestApi::open(&[("tenants.max_queued", "1000"), ("tenants.max_running", "1000")]).await;
    for _ in 0..250 {
        api.create(json!({"prompt": "unreadable"})).await;
    }
    let options = SqliteConnectOptions::new().filename(api.data.path().join("latentd.db"));
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::query("UPDATE generation_events SET data = '{'").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let mut reader = Reader::open(&api, "/v1/events?after=0", &[]).await;
    let id = api.create(json!({"prompt": "readable"})).await.to_string();
    let seen = reader.until_named("generation.queued").await;
    assert_eq!(numbered(&seen), [(251, "generation.queued", &*id)]);
}

#[tokio::test]
async fn a_number_of_the_future_begins_with_the_next_event() {
    let api = TestApi::open(&[]).await;
    let mut reader = Reader::open(&api, "/v1/events", &[("last-event-id", "1000")]).await;
    assert_eq!(reader.until(|event| event.get("retry").is_some()).await[0]["id"], 0);
    let id = api.create(json!({"prompt": "a red fox"})).await.to_string();
    assert_eq!(numbered(&reader.until_named("generation.queued").await), [(1, "generation.queued", &*id)]);
}

#[tokio::test]
async fn progress_and_previews_of_running_generations_come_without_a_number() {
    let api = TestApi::open(&[("http.ping_interval_s", "0.05")]).await;
    let (running, later) = (api.create(json!({"prompt": "a"})).await, api.create(json!({"prompt": "b"})).await);
    let lease = api.begin().await;
    api.live.progress(running, progress(3));
    // One generation runs already, the other one begins while the stream is open.
    let mut reader = Reader::open(&api, "/v1/events", &[]).await;
    let seen = reader.until_named("generation.progress").await;
    let last = seen.last().unwrap();
    assert_eq!((last.get("id"), &last["data"]["id"], &last["data"]["step"]), (None, &json!(running), &json!(3)));
    reader.until_named("ping").await;
    api.begin().await;
    reader.until_named("generation.started").await;
    api.live.preview(later, preview(9));
    let seen = reader.until_named("generation.preview").await;
    assert_eq!(seen.last().unwrap()["data"]["id"], json!(later));
    api.succeed(lease, PNG).await;
    reader.until_named("generation.succeeded").await;
    api.draining.cancel();
    reader.until_named("server.draining").await;
    assert!(reader.stream.next().await.is_none());
}

#[tokio::test]
async fn tenants_see_only_their_own_events() {
    let api = TestApi::open(&[]).await;
    let key = api.key("studio", 8).await;
    let mut theirs = Reader::open(&api, "/v1/events", &[("authorization", &key)]).await;
    let mut anonymous = Reader::open(&api, "/v1/events", &[]).await;
    let own = api.create(json!({"prompt": "a"})).await.to_string();
    let answer = api.ask(post(&json!({"prompt": "b"}), &[("authorization", &key)])).await;
    let of_studio = answer.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(numbered(&theirs.until_named("generation.queued").await), [(1, "generation.queued", &*of_studio)]);
    assert_eq!(numbered(&anonymous.until_named("generation.queued").await), [(1, "generation.queued", &*own)]);
}

#[tokio::test]
async fn stars_are_told_to_the_tenant_alone() {
    let api = TestApi::open(&[]).await;
    let other = api.key("other", 5).await;
    let mut own = Reader::open(&api, "/v1/events", &[]).await;
    let mut others = Reader::open(&api, "/v1/events", &[("authorization", &other)]).await;
    own.until(|event| event.get("retry").is_some()).await;
    others.until(|event| event.get("retry").is_some()).await;
    let id = api.create(json!({"prompt": "first"})).await;
    api.succeed(api.begin().await, PNG).await;
    own.until_named("generation.succeeded").await;
    for (method, name, starred) in [
        (axum::http::Method::PUT, "generation.starred", true),
        (axum::http::Method::DELETE, "generation.unstarred", false),
    ] {
        // A repeated request changes nothing and sends no event.
        for _ in 0..2 {
            assert_eq!(api.act(method.clone(), &format!("/v1/images/{id}/star")).await.status, 200);
        }
        let seen = own.until_named(name).await;
        assert_eq!(
            seen.iter().filter(|event| event["event"].as_str().is_some_and(|it| it.ends_with("starred"))).count(),
            1
        );
        let told = seen.last().unwrap();
        let generation = &told["data"]["generation"];
        assert_eq!((&generation["id"], &generation["starred"]), (&json!(id), &json!(starred)));
        assert_eq!(told.get("id"), None);
    }
    let request = post(&json!({"prompt": "second"}), &[("authorization", &other)]);
    assert_eq!(api.ask(request).await.status, 202);
    let seen = others.until_named("generation.queued").await;
    let names: Vec<_> = seen.iter().filter_map(|event| event["event"].as_str()).collect();
    assert!(!names.iter().any(|name| name.ends_with("starred")), "{names:?}");
}

#[tokio::test]
async fn a_deletion_is_told_to_the_tenant_alone() {
    let api = TestApi::open(&[]).await;
    let other = api.key("other", 5).await;
    let mut own = Reader::open(&api, "/v1/events", &[]).await;
    let mut others = Reader::open(&api, "/v1/events", &[("authorization", &other)]).await;
    own.until(|event| event.get("retry").is_some()).await;
    others.until(|event| event.get("retry").is_some()).await;
    let id = api.create(json!({"prompt": "first"})).await;
    own.until_named("generation.queued").await;
    let lease = api.begin_next().await;
    api.succeed(lease, PNG).await;
    assert_eq!(api.act(axum::http::Method::DELETE, &format!("/v1/images/{id}")).await.status, 204);
    let seen = own.until_named("generation.deleted").await;
    let deleted = seen.last().unwrap();
    assert_eq!((&deleted["data"], deleted.get("id")), (&json!({"id": id.to_string()}), None));

    // The other tenant's next event is its own.
    let request = post(&json!({"prompt": "second"}), &[("authorization", &other)]);
    assert_eq!(api.ask(request).await.status, 202);
    let seen = others.until_named("generation.queued").await;
    assert!(!seen.iter().any(|event| event["event"] == "generation.deleted"), "{seen:?}");
}
