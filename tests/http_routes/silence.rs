//! Tests of the server's answers while the database does not answer.

use std::{collections::HashMap, future::pending, time::Duration};

use async_trait::async_trait;
use axum::{
    body::Body,
    http::{Method, Request},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use futures::stream::BoxStream;
use latentd::{
    crash::Attempt,
    generation::{
        Delivery, DeliveryId, Endpoint, EndpointId, EndpointSettings, Event, GenerationId, Preview, Record,
        SigningSecret, Spent, TenantEvent,
    },
    http::{operator_routes, public_routes},
    ledger::{
        Acceptance, Accepted, Accepts, Census, Claimant, ClaimedDelivery, Claims, Counts, Crew, DeliveryAnswer,
        DeliveryClaim, Estimates, Fingerprint, Fleet, Heartbeat, Hint, KeyQuery, KeyRecord, Keys, Lease, Ledger,
        ListQuery, Measured, NewEndpoint, Newcomer, Next, Outcome, Page, QueuePosition, Reads, Reaped, Reaping,
        Renewed, Report, Snapshot, StoreError, StoredKey, Upkeep, UsageOfDay, Usages, Webhooks, WorkerRecord, Workload,
    },
};
use serde_json::{Value, json};

use crate::api::TestApi;

/// A store that never answers.
pub struct SilentStore;

impl AsRef<Ledger> for SilentStore {
    fn as_ref(&self) -> &Ledger {
        unreachable!("this store implements every method itself")
    }
}

#[async_trait]
impl Accepts for SilentStore {
    async fn accept(&self, _: &Acceptance<'_>) -> Result<Accepted, StoreError> {
        pending().await
    }

    async fn find_accepted(&self, _: &str, _: &str) -> Result<Option<(GenerationId, Fingerprint)>, StoreError> {
        pending().await
    }

    async fn cancel(&self, _: GenerationId) -> Result<Option<Record>, StoreError> {
        pending().await
    }

    async fn revive(&self, _: GenerationId) -> Result<Option<Record>, StoreError> {
        pending().await
    }

    async fn star(&self, _: GenerationId, _: bool, _: usize) -> Result<Option<Record>, StoreError> {
        pending().await
    }

    async fn delete(&self, _: GenerationId, _: Option<&Record>) -> Result<Option<Record>, StoreError> {
        pending().await
    }
}

#[async_trait]
impl Reads for SilentStore {
    async fn get(&self, _: GenerationId) -> Result<Option<Record>, StoreError> {
        pending().await
    }

    async fn list(&self, _: &ListQuery) -> Result<Page, StoreError> {
        pending().await
    }

    async fn events(&self, _: GenerationId, _: i64) -> Result<Vec<Event>, StoreError> {
        pending().await
    }

    async fn events_of(&self, _: &str, _: i64, _: usize) -> Result<Vec<TenantEvent>, StoreError> {
        pending().await
    }

    async fn last_event_of(&self, _: &str) -> Result<i64, StoreError> {
        pending().await
    }

    async fn find_input(&self, _: &str, _: &str) -> Result<Option<GenerationId>, StoreError> {
        pending().await
    }

    async fn counts(&self) -> Result<Counts, StoreError> {
        pending().await
    }

    async fn counts_of(&self, _: &str) -> Result<Counts, StoreError> {
        pending().await
    }

    async fn workload(&self, _: &Newcomer<'_>, _: &Crew<'_>) -> Result<Workload, StoreError> {
        pending().await
    }

    async fn place(&self, _: GenerationId, _: &Crew<'_>) -> Result<Option<QueuePosition>, StoreError> {
        pending().await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        pending().await
    }
}

#[async_trait]
impl Claims for SilentStore {
    async fn claim(&self, _: &Claimant, _: usize, _: bool) -> Result<Vec<(Record, Lease)>, StoreError> {
        pending().await
    }

    async fn renew(&self, _: &Claimant, _: &[Lease]) -> Result<Vec<Renewed>, StoreError> {
        pending().await
    }

    async fn finish(&self, _: Lease, _: Outcome) -> Result<Option<Record>, StoreError> {
        pending().await
    }
}

#[async_trait]
impl Upkeep for SilentStore {
    async fn reap(&self, _: &Reaping) -> Result<Reaped, StoreError> {
        pending().await
    }

    async fn give_up_aborted(&self, _: Attempt) -> Result<Option<Record>, StoreError> {
        pending().await
    }

    async fn expire_overdue(&self) -> Result<Vec<Record>, StoreError> {
        pending().await
    }

    async fn age(&self, _: Duration) -> Result<(), StoreError> {
        pending().await
    }

    async fn overdue_for_deletion(&self, _: usize) -> Result<Vec<Record>, StoreError> {
        pending().await
    }

    async fn purge(&self) -> Result<(), StoreError> {
        pending().await
    }
}

#[async_trait]
impl Fleet for SilentStore {
    fn is_shared(&self) -> bool {
        true
    }

    async fn report(&self, _: &[Report]) -> Result<(), StoreError> {
        pending().await
    }

    async fn snapshots(&self, _: &[GenerationId]) -> Result<Vec<Snapshot>, StoreError> {
        pending().await
    }

    async fn previews(&self, _: GenerationId) -> Result<Vec<Preview>, StoreError> {
        pending().await
    }

    async fn heartbeat(&self, _: &Heartbeat) -> Result<bool, StoreError> {
        pending().await
    }

    async fn workers(&self) -> Result<Vec<WorkerRecord>, StoreError> {
        pending().await
    }

    async fn drain_worker(&self, _: &str, _: bool) -> Result<bool, StoreError> {
        pending().await
    }

    async fn leave(&self, _: &str) -> Result<(), StoreError> {
        pending().await
    }

    async fn hint(&self, _: &[Hint]) -> Result<(), StoreError> {
        pending().await
    }

    fn hints(&self) -> BoxStream<'static, Hint> {
        Box::pin(futures::stream::pending())
    }
}

#[async_trait]
impl Estimates for SilentStore {
    async fn learn(&self, _: &HashMap<String, Measured>) -> Result<(), StoreError> {
        pending().await
    }

    async fn census(&self) -> Result<Census, StoreError> {
        pending().await
    }
}

#[async_trait]
impl Keys for SilentStore {
    async fn create_key(&self, _: &KeyRecord) -> Result<(), StoreError> {
        pending().await
    }

    async fn has_keys(&self) -> Result<bool, StoreError> {
        pending().await
    }

    async fn find_key(&self, _: &str) -> Result<Option<StoredKey>, StoreError> {
        pending().await
    }

    async fn list_keys(&self, _: &KeyQuery) -> Result<Page<StoredKey>, StoreError> {
        pending().await
    }

    async fn revoke_key(&self, _: &str) -> Result<Option<StoredKey>, StoreError> {
        pending().await
    }

    async fn rotate_key(&self, _: &str, _: &[u8; 32], _: Duration) -> Result<Option<StoredKey>, StoreError> {
        pending().await
    }

    async fn mark_key_used(&self, _: &str) -> Result<(), StoreError> {
        pending().await
    }
}

#[async_trait]
impl Usages for SilentStore {
    async fn spent(&self, _: &str) -> Result<Option<Spent>, StoreError> {
        pending().await
    }

    async fn usage(&self, _: &str, _: &str, _: usize) -> Result<Vec<UsageOfDay>, StoreError> {
        pending().await
    }
}

#[async_trait]
impl Webhooks for SilentStore {
    async fn create_endpoint(&self, _: &NewEndpoint<'_>, _: usize) -> Result<Option<Endpoint>, StoreError> {
        pending().await
    }

    async fn endpoints(&self, _: &str) -> Result<Vec<Endpoint>, StoreError> {
        pending().await
    }

    async fn endpoint(&self, _: &str, _: EndpointId) -> Result<Option<Endpoint>, StoreError> {
        pending().await
    }

    async fn replace_endpoint(
        &self,
        _: &str,
        _: EndpointId,
        _: &EndpointSettings,
    ) -> Result<Option<Endpoint>, StoreError> {
        pending().await
    }

    async fn delete_endpoint(&self, _: &str, _: EndpointId) -> Result<bool, StoreError> {
        pending().await
    }

    async fn rotate_secret(
        &self,
        _: &str,
        _: EndpointId,
        _: &SigningSecret,
        _: Duration,
    ) -> Result<Option<Endpoint>, StoreError> {
        pending().await
    }

    async fn deliveries(
        &self,
        _: &str,
        _: EndpointId,
        _: usize,
        _: Option<DeliveryId>,
    ) -> Result<Option<Page<Delivery>>, StoreError> {
        pending().await
    }

    async fn retry_delivery(&self, _: &str, _: EndpointId, _: DeliveryId) -> Result<Option<Delivery>, StoreError> {
        pending().await
    }

    async fn claim_deliveries(&self, _: usize, _: Duration, _: &[String]) -> Result<Vec<ClaimedDelivery>, StoreError> {
        pending().await
    }

    async fn settle_delivery(&self, _: DeliveryClaim, _: &DeliveryAnswer, _: Next) -> Result<bool, StoreError> {
        pending().await
    }

    async fn release_delivery(&self, _: DeliveryClaim) -> Result<(), StoreError> {
        pending().await
    }

    async fn backlog(&self) -> Result<usize, StoreError> {
        pending().await
    }

    async fn purge_deliveries(&self) -> Result<(), StoreError> {
        pending().await
    }
}

/// A timeout for hanging requests, longer than any answer takes.
const HANG: Duration = Duration::from_secs(20);

/// A path of a route, with valid ids in place of the parameters.
fn concrete(path: &str) -> String {
    let id = match path.split('/').nth(2) {
        Some("models") => "emoji",
        Some("webhook_endpoints") => "whe_01k39v5q8me7x9t4n2hz0w6r1s",
        _ => "img_01k39v5q8me7x9t4n2hz0w6r1s",
    };
    path.replace("{id}", id)
        .replace("{n}", "0")
        .replace("{sha256}", &"0".repeat(64))
        .replace("{delivery}", "msg_01k39v5q8me7x9t4n2hz0w6r1s")
}

/// The base64 of a PNG file.
fn picture() -> String {
    let mut file = Vec::new();
    let encoder = png::Encoder::new(&mut file, 64, 64);
    encoder.write_header().unwrap().write_image_data(&[0x80; 64 * 64]).unwrap();
    BASE64_STANDARD.encode(file)
}

#[tokio::test]
async fn every_route_that_needs_the_database_answers_503_without_it() {
    let api = TestApi::on_silent_store(&[("database.timeout_s", "0.05")]);
    let key = format!("Bearer {}", latentd::service::ApiKey::new().unwrap().expose());
    let without_database = [
        "/v1/verify",
        "/v1/models",
        "/v1/models/{id}",
        "/v1/models/{id}/schema",
        "/v1/models/{id}/card",
        "/v1/loras",
        "/v1/embeddings",
        "/v1/controlnets",
        "/v1/schedulers",
    ];
    let mut asked = 0;
    for end in public_routes().iter().filter(|end| end.path.starts_with("/v1/")) {
        for key in [None, Some(&key)] {
            if key.is_none() && without_database.contains(&end.path) {
                continue;
            }
            let request = Request::builder().method(&end.method).uri(concrete(end.path));
            let request = request.header("content-type", "application/json").header("prefer", "wait=10");
            let request = key.into_iter().fold(request, |request, key| request.header("authorization", key));
            // The embedded model only draws, so other requests need the database before they are refused only if they
            // are repeated.
            let repeats = end.method == Method::POST && ["/v1/audio", "/v1/videos"].contains(&end.path);
            let request = if repeats { request.header("idempotency-key", "a-1") } else { request };
            let body = match [Method::POST, Method::PUT].contains(&end.method) {
                true if end.path.ends_with("verify") => json!({"image": picture()}).to_string(),
                true if end.path.contains("webhook") => json!({"url": "https://8.8.8.8/"}).to_string(),
                true if end.path.ends_with("edits") || end.path.ends_with("variations") => {
                    json!({"prompt": "a red fox", "image": picture()}).to_string()
                }
                true => json!({"prompt": "a red fox"}).to_string(),
                false => String::new(),
            };
            let answer = tokio::time::timeout(HANG, api.ask(request.body(Body::from(body)).unwrap())).await;
            let answer = answer.unwrap_or_else(|_| panic!("{} {} hangs", end.method, end.path));
            let body = answer.json();
            let code = body.get("code").or(body.pointer("/error/code")).and_then(Value::as_str);
            assert_eq!((answer.status, code), (503, Some("database_unavailable")), "{}", end.path);
            assert!(answer.header("retry-after").parse::<u64>().unwrap() >= 1);
            asked += 1;
        }
    }
    assert!(asked > 20, "only {asked} routes were asked");
    for end in operator_routes().iter().filter(|end| end.path.starts_with("/admin/") && end.path != "/admin/reload") {
        let body = match (&end.method, end.path) {
            (&Method::POST, "/admin/keys") => json!({"tenant": "studio"}),
            (_, "/admin/keys/{id}/rotate") => json!({}),
            _ => Value::Null,
        };
        let answer = tokio::time::timeout(HANG, api.operate(end.method.clone(), &concrete(end.path), body)).await;
        let answer = answer.unwrap_or_else(|_| panic!("{} {} hangs", end.method, end.path));
        assert_eq!(
            (answer.status, answer.json()["code"].as_str()),
            (503, Some("database_unavailable")),
            "{}",
            end.path
        );
    }
}

#[tokio::test]
async fn a_server_without_its_database_is_alive_and_not_ready() {
    let api = TestApi::on_silent_store(&[("database.timeout_s", "0.05")]);
    let ask = async |path: &str| {
        let asked = tokio::time::timeout(HANG, api.operate(Method::GET, path, Value::Null)).await;
        asked.unwrap_or_else(|_| panic!("{path} hangs"))
    };
    assert_eq!(ask("/livez").await.status, 200);
    let unready = ask("/readyz").await;
    assert_eq!((unready.status, unready.json()["code"].as_str()), (503, Some("database_unavailable")));
    assert_eq!(unready.json()["reasons"][0], "store: the database did not answer in time");
    assert_eq!(
        ask("/startupz").await.json()["reasons"],
        json!(["model emoji: cold"]),
        "the database is not among the reasons"
    );
    assert_eq!(ask("/metrics").await.status, 200);
    assert_eq!(api.get("/health").await.status, 200);
    assert_eq!(api.get("/v1/models").await.status, 200);
}
