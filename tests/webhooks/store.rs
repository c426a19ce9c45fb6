//! Tests of stored webhooks on SQLite and PostgreSQL: writing, claiming, settling and purging deliveries; endpoints.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use latentd::{
    config::{Config, Sources},
    generation::{
        DeliveryId, DeliveryState, Endpoint, EndpointId, EndpointSettings, EventKind, GenerationId, Job, SigningSecret,
        WebhookEvent,
    },
    ledger::{
        Acceptance, Claimant, ClaimedDelivery, DeliveryAnswer, Lease, Ledger, NewEndpoint, Next, Outcome, Store,
        Webhooks,
    },
};
use serde_json::{Value, json};

use crate::postgres::Cluster;

const HOUR: Duration = Duration::from_secs(3600);
const TENANT: &str = "default";

/// A new store for one case.
struct Place {
    store: Arc<dyn Store>,
    webhooks: Arc<dyn Webhooks>,
    _data: Option<tempfile::TempDir>,
}

async fn sqlite(retention: Duration) -> Place {
    let data = tempfile::tempdir().unwrap();
    let store = Arc::new(Ledger::open_sqlite(data.path(), retention).await.unwrap());
    Place { store: store.clone(), webhooks: store, _data: Some(data) }
}

/// Returns `None` if PostgreSQL is not installed.
async fn postgres(retention: Duration) -> Option<Place> {
    let url = Cluster::shared()?.create_database().await;
    let flags = [("database.url", url.as_str()), ("database.max_connections", "4"), ("database.timeout_s", "60")];
    let flags = flags.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let settings = Config::load(&Sources { flags, ..Sources::default() }).unwrap().database;
    let store = Arc::new(Ledger::open_postgres(&settings, retention).await.unwrap());
    Some(Place { store: store.clone(), webhooks: store, _data: None })
}

/// Makes one test of each case for each store.
macro_rules! suite {
    ($($case:ident: $retention:expr,)*) => {
        mod on_sqlite {
            use super::*;
            $(
                #[tokio::test]
                async fn $case() {
                    super::$case(super::sqlite($retention).await).await;
                }
            )*
        }

        mod on_postgres {
            use super::*;
            $(
                #[tokio::test]
                async fn $case() {
                    if let Some(place) = super::postgres($retention).await {
                        super::$case(place).await;
                    }
                }
            )*
        }
    };
}

suite! {
    a_generation_without_a_webhook_causes_no_delivery: HOUR,
    each_class_of_events_is_delivered_only_if_requested: HOUR,
    every_final_state_is_delivered: HOUR,
    a_claim_excludes_others_until_it_ends: HOUR,
    deliveries_of_a_generation_keep_their_order_after_failures: HOUR,
    concurrent_claimers_get_each_delivery_once: HOUR,
    receivers_in_the_list_of_busy_ones_are_skipped: HOUR,
    a_released_claim_changes_nothing: HOUR,
    a_receiver_that_is_gone_gets_no_more_deliveries: HOUR,
    a_released_delivery_is_due_at_once_and_not_counted: HOUR,
    a_retry_resets_the_attempts_and_ends_the_current_claim: HOUR,
    an_endpoint_belongs_to_its_tenant: HOUR,
    deleting_an_endpoint_deletes_its_deliveries: HOUR,
    an_old_secret_signs_until_it_expires: HOUR,
    ended_deliveries_are_purged_and_pending_ones_are_kept: Duration::ZERO,
    the_log_is_read_page_by_page: HOUR,
    the_number_of_endpoints_of_a_tenant_is_bounded: HOUR,
}

fn generation(webhook: Value) -> Job {
    let mut params = json!({
        "model": "tiny", "prompt": "a red fox", "negative_prompt": "", "width": 64, "height": 64, "n": 1, "steps": 1,
        "guidance_scale": 1.0, "guidance_rescale": 0.0, "scheduler": "euler", "eta": 0.0, "clip_skip": 0, "seed": 1,
        "seed_mode": "per_image", "previews": 0, "metadata_level": "full", "on_disconnect": "keep",
        "start_timeout_s": 600, "metadata": {},
    });
    if !webhook.is_null() {
        params["webhook"] = webhook;
    }
    serde_json::from_value(params).unwrap()
}

impl Place {
    async fn endpoint(&self, events: &[WebhookEvent]) -> Endpoint {
        let terms = EndpointSettings {
            url: "https://example.org/hook".to_owned(),
            events: events.to_vec(),
            description: "a receiver".to_owned(),
            enabled: true,
        };
        let new = NewEndpoint { id: EndpointId::new(), tenant: TENANT, terms: &terms, secret: &secret(1) };
        let endpoint = self.webhooks.create_endpoint(&new, 100).await.unwrap().unwrap();
        assert_eq!((endpoint.id, &endpoint.terms, endpoint.gone), (new.id, &terms, false));
        endpoint
    }

    async fn accept(&self, webhook: Value) -> GenerationId {
        let (id, generation) = (GenerationId::new(), generation(webhook));
        let acceptance = Acceptance {
            id,
            tenant: TENANT,
            api_key: None,
            job: &generation,
            fingerprint: [0; 32],
            key: None,
            cost: 1.0,
            assumed_speed: 100.0,
            max_queued: 1000,
        };
        self.store.accept(&acceptance).await.unwrap();
        id
    }

    async fn begin(&self) -> Lease {
        let by = Claimant { worker: "one".to_owned(), lease: HOUR, models: vec!["tiny".to_owned()], alone_from: 2 };
        self.store.claim(&by, 1, true).await.unwrap().pop().expect("a generation is queued").1
    }

    async fn accept_with_webhook(&self, endpoint: &Endpoint) -> GenerationId {
        self.accept(json!({"endpoint": endpoint.id})).await
    }

    /// Accepts a generation, claims it and ends it as canceled. Returns its id.
    async fn run_and_cancel(&self, endpoint: &Endpoint) -> GenerationId {
        let id = self.accept_with_webhook(endpoint).await;
        let lease = self.begin().await;
        self.store.finish(lease, Outcome::Canceled).await.unwrap().unwrap();
        id
    }

    async fn claim(&self, limit: usize) -> Vec<ClaimedDelivery> {
        self.webhooks.claim_deliveries(limit, HOUR, &[]).await.unwrap()
    }

    async fn claim_one(&self) -> ClaimedDelivery {
        let mut claimed = self.claim(10).await;
        assert_eq!(claimed.len(), 1, "{claimed:?}");
        claimed.remove(0)
    }

    async fn settle(&self, claimed: &ClaimedDelivery, status: u16, next: Next) -> bool {
        let answer = DeliveryAnswer { status: Some(status), error: None };
        self.webhooks.settle_delivery(claimed.claim, &answer, next).await.unwrap()
    }

    async fn log(&self, endpoint: &Endpoint) -> Vec<latentd::generation::Delivery> {
        self.webhooks.deliveries(TENANT, endpoint.id, 100, None).await.unwrap().unwrap().records
    }
}

fn secret(byte: u8) -> SigningSecret {
    SigningSecret::from_key(vec![byte; 32]).unwrap()
}

fn kind(claimed: &ClaimedDelivery) -> String {
    serde_json::from_str::<Value>(&claimed.body).unwrap()["type"].as_str().unwrap().to_owned()
}

const BOTH: [WebhookEvent; 2] = [WebhookEvent::Started, WebhookEvent::Completed];
const COMPLETED: [WebhookEvent; 1] = [WebhookEvent::Completed];
const AT_ONCE: Next = Next::Retry { after: Duration::ZERO };

async fn a_generation_without_a_webhook_causes_no_delivery(place: Place) {
    place.accept(Value::Null).await;
    let lease = place.begin().await;
    place.store.finish(lease, Outcome::Canceled).await.unwrap().unwrap();
    assert_eq!(place.webhooks.backlog().await.unwrap(), 0);
    // Neither does a generation whose endpoint has been deleted.
    let endpoint = place.endpoint(&BOTH).await;
    place.accept_with_webhook(&endpoint).await;
    assert!(place.webhooks.delete_endpoint(TENANT, endpoint.id).await.unwrap());
    let lease = place.begin().await;
    place.store.finish(lease, Outcome::Canceled).await.unwrap().unwrap();
    assert_eq!(place.webhooks.backlog().await.unwrap(), 0);
}

async fn each_class_of_events_is_delivered_only_if_requested(place: Place) {
    let asked = |events: &[&str]| json!({"url": "https://example.org/own", "events": events});
    for (webhook, expected) in [
        (asked(&["started"]), vec!["generation.started"]),
        (asked(&["completed"]), vec!["generation.canceled"]),
        (asked(&["started", "completed"]), vec!["generation.started", "generation.canceled"]),
    ] {
        let id = place.accept(webhook).await;
        let lease = place.begin().await;
        place.store.finish(lease, Outcome::Canceled).await.unwrap().unwrap();
        let mut seen = Vec::new();
        while let Some(claimed) = place.claim(1).await.pop() {
            assert_eq!((claimed.generation, claimed.attempts), (id, 1));
            assert_eq!((claimed.url.as_str(), claimed.secrets.len()), ("https://example.org/own", 0));
            let body: Value = serde_json::from_str(&claimed.body).unwrap();
            assert_eq!(body["data"]["id"], json!(id));
            assert!(!claimed.body.contains("red fox"));
            seen.push(kind(&claimed));
            assert!(place.settle(&claimed, 200, Next::Delivered).await);
        }
        assert_eq!(seen, expected);
    }
    let endpoint = place.endpoint(&COMPLETED).await;
    place.run_and_cancel(&endpoint).await;
    let claimed = place.claim_one().await;
    assert_eq!(kind(&claimed), "generation.canceled");
    assert_eq!((claimed.url.as_str(), claimed.secrets), (endpoint.terms.url.as_str(), vec![secret(1)]));
}

async fn every_final_state_is_delivered(place: Place) {
    let endpoint = place.endpoint(&COMPLETED).await;
    // A generation that is canceled in the queue.
    let canceled = place.accept_with_webhook(&endpoint).await;
    place.store.cancel(canceled).await.unwrap().unwrap();
    // A generation that fails. The message contains the code of the error, but not its text.
    place.accept_with_webhook(&endpoint).await;
    let problem =
        latentd::generation::Problem { code: "internal".into(), message: "swordfish".into(), retryable: false };
    let lease = place.begin().await;
    place.store.finish(lease, Outcome::Failed(problem)).await.unwrap().unwrap();
    // A generation that succeeds.
    place.accept_with_webhook(&endpoint).await;
    let artifact = latentd::generation::Artifact {
        index: 0,
        media_type: latentd::generation::Format::Png.into(),
        bytes: 1,
        sha256: "0".repeat(64),
        unsigned_sha256: None,
        watermark: None,
        blob: "swordfish".to_owned(),
        flagged: None,
        facts: latentd::generation::Facts::Picture { width: 64, height: 64, seed: 1 },
    };
    let lease = place.begin().await;
    place.store.finish(lease, Outcome::Succeeded(vec![artifact])).await.unwrap().unwrap();
    let claimed = place.claim(10).await;
    let kinds: BTreeSet<String> = claimed.iter().map(kind).collect();
    let expected = ["generation.canceled", "generation.failed", "generation.succeeded"];
    assert_eq!(kinds, expected.map(str::to_owned).into());
    assert!(claimed.iter().all(|one| !one.body.contains("swordfish")));
    let failed = claimed.iter().find(|one| kind(one) == "generation.failed").unwrap();
    let body: Value = serde_json::from_str(&failed.body).unwrap();
    assert_eq!(body["data"]["error"], json!({"code": "internal", "retryable": false}));
}

async fn a_claim_excludes_others_until_it_ends(place: Place) {
    let endpoint = place.endpoint(&COMPLETED).await;
    place.run_and_cancel(&endpoint).await;
    let short = Duration::from_millis(50);
    let first = place.webhooks.claim_deliveries(1, short, &[]).await.unwrap().remove(0);
    let second = loop {
        if let Some(claimed) = place.claim(1).await.pop() {
            break claimed;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!((second.claim.id(), second.attempts), (first.claim.id(), 2));
    assert_eq!(second.body, first.body, "the same bytes each time");
    assert!(place.claim(1).await.is_empty(), "the second claim lasts an hour");
    assert!(!place.settle(&first, 200, Next::Delivered).await, "the first claim has ended");
    assert!(place.settle(&second, 200, Next::Delivered).await);
    assert!(place.claim(1).await.is_empty());
}

async fn deliveries_of_a_generation_keep_their_order_after_failures(place: Place) {
    let endpoint = place.endpoint(&BOTH).await;
    let id = place.accept_with_webhook(&endpoint).await;
    let other = place.accept_with_webhook(&endpoint).await;
    // The first generation has two attempts before its end.
    let lease = place.begin().await;
    assert_eq!(lease.id(), id);
    let problem = latentd::generation::Problem { code: "x".into(), message: String::new(), retryable: true };
    place.store.finish(lease, Outcome::Retry { problem, delay: Duration::ZERO }).await.unwrap().unwrap();
    let lease = place.begin().await;
    assert_eq!(lease.id(), id);
    place.store.finish(lease, Outcome::Canceled).await.unwrap().unwrap();
    let mut seen = Vec::new();
    for _ in 0..3 {
        for status in [500, 500, 200] {
            let claimed = place.claim_one().await;
            assert!(place.claim(10).await.is_empty(), "the next delivery waits for this one");
            seen.push(kind(&claimed));
            let next = if status == 200 { Next::Delivered } else { AT_ONCE };
            assert!(place.settle(&claimed, status, next).await);
        }
    }
    let (started, canceled) = ("generation.started", "generation.canceled");
    assert_eq!(seen, [started, started, started, started, started, started, canceled, canceled, canceled]);
    // A dead delivery does not block the next one. Deliveries of other generations do not wait.
    let lease = place.begin().await;
    assert_eq!(lease.id(), other);
    place.store.finish(lease, Outcome::Canceled).await.unwrap().unwrap();
    let third = place.run_and_cancel(&endpoint).await;
    let claimed = place.claim(10).await;
    assert_eq!(claimed.iter().map(|one| one.generation).collect::<BTreeSet<_>>(), [other, third].into());
    assert_eq!(claimed.iter().map(kind).collect::<Vec<_>>(), [started, started]);
    let of_other = claimed.iter().find(|one| one.generation == other).unwrap();
    assert!(place.settle(of_other, 500, Next::Dead).await);
    let claimed = place.claim_one().await;
    assert_eq!((claimed.generation, kind(&claimed)), (other, canceled.to_owned()));
}

async fn concurrent_claimers_get_each_delivery_once(place: Place) {
    let endpoint = place.endpoint(&BOTH).await;
    for _ in 0..40 {
        place.run_and_cancel(&endpoint).await;
    }
    let claimers = (0..8).map(|_| {
        let webhooks = place.webhooks.clone();
        tokio::spawn(async move {
            let mut taken = Vec::new();
            while webhooks.backlog().await.unwrap() > 0 {
                for claimed in webhooks.claim_deliveries(3, HOUR, &[]).await.unwrap() {
                    let answer = DeliveryAnswer { status: Some(200), error: None };
                    assert!(webhooks.settle_delivery(claimed.claim, &answer, Next::Delivered).await.unwrap());
                    taken.push(claimed);
                }
            }
            taken
        })
    });
    let mut taken = Vec::new();
    for claimer in claimers.collect::<Vec<_>>() {
        taken.extend(claimer.await.unwrap());
    }
    let ids: BTreeSet<DeliveryId> = taken.iter().map(|one| one.claim.id()).collect();
    assert_eq!((taken.len(), ids.len()), (80, 80), "two deliveries for each of 40 generations");
    assert!(taken.iter().all(|one| one.attempts == 1));
}

async fn receivers_in_the_list_of_busy_ones_are_skipped(place: Place) {
    let (slow, other) = (place.endpoint(&COMPLETED).await, place.endpoint(&COMPLETED).await);
    for _ in 0..5 {
        place.run_and_cancel(&slow).await;
    }
    let wanted = place.run_and_cancel(&other).await;
    place.accept(json!({"url": "https://Example.org:8443/own", "events": ["started"]})).await;
    place.begin().await;
    let slow = slow.id.to_string();
    let claimed = place.webhooks.claim_deliveries(10, HOUR, std::slice::from_ref(&slow)).await.unwrap();
    let receivers: BTreeSet<&str> = claimed.iter().map(|one| one.receiver.as_str()).collect();
    assert_eq!(receivers, [other.id.to_string().as_str(), "https://example.org:8443"].into());
    assert!(claimed.iter().any(|one| one.generation == wanted));
    let claimed = place.claim(10).await;
    assert!(claimed.len() == 5 && claimed.iter().all(|one| one.receiver == slow));
}

async fn a_released_claim_changes_nothing(place: Place) {
    let endpoint = place.endpoint(&COMPLETED).await;
    place.run_and_cancel(&endpoint).await;
    let first = place.claim_one().await;
    place.webhooks.release_delivery(first.claim).await.unwrap();
    let second = place.claim_one().await;
    for next in [Next::Delivered, AT_ONCE, Next::Dead, Next::Gone] {
        assert!(!place.settle(&first, 410, next).await, "{next:?}");
    }
    place.webhooks.release_delivery(first.claim).await.unwrap();
    assert!(place.claim(1).await.is_empty(), "the second claim is valid");
    assert!(place.webhooks.endpoint(TENANT, endpoint.id).await.unwrap().unwrap().terms.enabled);
    assert!(place.settle(&second, 200, Next::Delivered).await);
    assert!(!place.settle(&second, 500, AT_ONCE).await, "an ended delivery does not change");
    let logged = place.log(&endpoint).await.remove(0);
    assert_eq!((logged.state, logged.last_status, logged.attempts), (DeliveryState::Delivered, Some(200), 1));
    assert!(logged.due_at.is_none() && logged.ended_at.is_some());
}

async fn a_receiver_that_is_gone_gets_no_more_deliveries(place: Place) {
    let (endpoint, other) = (place.endpoint(&COMPLETED).await, place.endpoint(&COMPLETED).await);
    for _ in 0..3 {
        place.run_and_cancel(&endpoint).await;
    }
    place.run_and_cancel(&other).await;
    let claimed = place.claim(1).await.remove(0);
    assert!(place.settle(&claimed, 410, Next::Gone).await);
    let gone = place.webhooks.endpoint(TENANT, endpoint.id).await.unwrap().unwrap();
    assert!(gone.gone && !gone.terms.enabled);
    assert!(place.log(&endpoint).await.iter().all(|one| one.state == DeliveryState::Dead));
    place.run_and_cancel(&endpoint).await;
    assert_eq!(place.log(&endpoint).await.len(), 3, "an endpoint that is gone gets no new deliveries");
    assert_eq!(place.webhooks.backlog().await.unwrap(), 1, "the other endpoint's delivery is unchanged");
    let terms = EndpointSettings { enabled: true, ..gone.terms };
    let back = place.webhooks.replace_endpoint(TENANT, endpoint.id, &terms).await.unwrap().unwrap();
    assert!(!back.gone && back.terms.enabled);
    place.run_and_cancel(&endpoint).await;
    assert_eq!(place.webhooks.backlog().await.unwrap(), 2);
    // An endpoint that its owner disables is not gone, but its pending deliveries are dead too.
    let terms = EndpointSettings { enabled: false, ..terms };
    let disabled = place.webhooks.replace_endpoint(TENANT, endpoint.id, &terms).await.unwrap().unwrap();
    assert!(!disabled.gone && !disabled.terms.enabled);
    assert_eq!(place.webhooks.backlog().await.unwrap(), 1);
    assert_eq!(place.log(&endpoint).await[0].last_error.as_deref(), Some("the endpoint is disabled"));
    // If the address of a request is gone, there is no endpoint to disable.
    place.accept(json!({"url": "https://example.org/own", "events": ["started"]})).await;
    place.begin().await;
    let claimed = place.claim(10).await;
    let own = claimed.iter().find(|one| one.url.ends_with("/own")).unwrap();
    assert!(place.settle(own, 410, Next::Gone).await);
}

async fn a_released_delivery_is_due_at_once_and_not_counted(place: Place) {
    let endpoint = place.endpoint(&COMPLETED).await;
    place.run_and_cancel(&endpoint).await;
    for _ in 0..3 {
        let claimed = place.claim_one().await;
        assert_eq!(claimed.attempts, 1);
        place.webhooks.release_delivery(claimed.claim).await.unwrap();
    }
    let claimed = place.claim_one().await;
    assert!(place.settle(&claimed, 503, Next::Retry { after: HOUR }).await);
    assert!(place.claim(10).await.is_empty());
    let logged = place.log(&endpoint).await.remove(0);
    assert_eq!((logged.state, logged.last_status, logged.attempts), (DeliveryState::Pending, Some(503), 1));
    let wait = logged.due_at.unwrap() - logged.last_at.unwrap();
    assert_eq!(wait, HOUR);
    place.webhooks.release_delivery(claimed.claim).await.unwrap();
    assert!(!place.settle(&claimed, 200, Next::Delivered).await);
    assert!(place.claim(10).await.is_empty(), "a claim can be settled or released once");
    assert_eq!(place.log(&endpoint).await[0].attempts, 1);
}

async fn a_retry_resets_the_attempts_and_ends_the_current_claim(place: Place) {
    let endpoint = place.endpoint(&COMPLETED).await;
    place.run_and_cancel(&endpoint).await;
    let claimed = place.claim_one().await;
    let (id, endpoint_id) = (claimed.claim.id(), endpoint.id);
    let due = place.webhooks.retry_delivery(TENANT, endpoint_id, id).await.unwrap().unwrap();
    assert_eq!((due.state, due.attempts, due.kind), (DeliveryState::Pending, 0, EventKind::Canceled));
    assert!(!place.settle(&claimed, 200, Next::Delivered).await, "the interrupted try does not count");
    let again = place.claim_one().await;
    assert_eq!((again.claim.id(), again.attempts), (id, 1));
    assert!(place.settle(&again, 200, Next::Delivered).await);
    let due = place.webhooks.retry_delivery(TENANT, endpoint_id, id).await.unwrap().unwrap();
    assert!(due.ended_at.is_none() && due.due_at.is_some());
    assert_eq!(place.claim_one().await.claim.id(), id);
    for (tenant, endpoint, id) in
        [("other", endpoint_id, id), (TENANT, EndpointId::new(), id), (TENANT, endpoint_id, DeliveryId::new())]
    {
        assert!(place.webhooks.retry_delivery(tenant, endpoint, id).await.unwrap().is_none());
    }
}

async fn an_endpoint_belongs_to_its_tenant(place: Place) {
    let endpoint = place.endpoint(&COMPLETED).await;
    let (other, id, webhooks) = ("other", endpoint.id, &place.webhooks);
    assert!(webhooks.endpoint(other, id).await.unwrap().is_none());
    assert!(webhooks.endpoints(other).await.unwrap().is_empty());
    assert!(webhooks.replace_endpoint(other, id, &endpoint.terms).await.unwrap().is_none());
    assert!(webhooks.rotate_secret(other, id, &secret(2), HOUR).await.unwrap().is_none());
    assert!(webhooks.deliveries(other, id, 10, None).await.unwrap().is_none());
    assert!(!webhooks.delete_endpoint(other, id).await.unwrap());
    assert_eq!(webhooks.endpoints(TENANT).await.unwrap().len(), 1);
}

async fn deleting_an_endpoint_deletes_its_deliveries(place: Place) {
    let endpoint = place.endpoint(&COMPLETED).await;
    place.run_and_cancel(&endpoint).await;
    let claimed = place.claim_one().await;
    assert!(place.webhooks.delete_endpoint(TENANT, endpoint.id).await.unwrap());
    assert!(!place.settle(&claimed, 200, Next::Delivered).await);
    assert!(!place.webhooks.delete_endpoint(TENANT, endpoint.id).await.unwrap());
    assert_eq!(place.webhooks.backlog().await.unwrap(), 0);
    assert!(place.webhooks.deliveries(TENANT, endpoint.id, 10, None).await.unwrap().is_none());
}

async fn an_old_secret_signs_until_it_expires(place: Place) {
    let endpoint = place.endpoint(&COMPLETED).await;
    place.run_and_cancel(&endpoint).await;
    let rotate = |byte, overlap| {
        let webhooks = place.webhooks.clone();
        async move { webhooks.rotate_secret(TENANT, endpoint.id, &secret(byte), overlap).await.unwrap().unwrap() }
    };
    let secrets = || async {
        let claimed = place.claim_one().await;
        place.webhooks.release_delivery(claimed.claim).await.unwrap();
        claimed.secrets
    };
    assert_eq!(secrets().await, [secret(1)]);
    assert!(rotate(2, HOUR).await.old_secret_until.is_some());
    assert_eq!(secrets().await, [secret(2), secret(1)]);
    // A second rotation keeps only the previous secret.
    rotate(3, HOUR).await;
    assert_eq!(secrets().await, [secret(3), secret(2)]);
    rotate(4, Duration::ZERO).await;
    assert_eq!(secrets().await, [secret(4)]);
}

async fn ended_deliveries_are_purged_and_pending_ones_are_kept(place: Place) {
    let endpoint = place.endpoint(&COMPLETED).await;
    let ids = [place.run_and_cancel(&endpoint).await, place.run_and_cancel(&endpoint).await];
    let claimed = place.claim(1).await.remove(0);
    assert!(place.settle(&claimed, 200, Next::Delivered).await);
    // A pending delivery outlives its generation.
    for id in ids {
        place.store.delete(id, None).await.unwrap().unwrap();
    }
    place.webhooks.purge_deliveries().await.unwrap();
    let log = place.log(&endpoint).await;
    assert_eq!(log.iter().map(|one| one.state).collect::<Vec<_>>(), [DeliveryState::Pending]);
    assert_ne!(log[0].id, claimed.claim.id());
    let claimed = place.claim_one().await;
    assert!(place.settle(&claimed, 500, Next::Dead).await);
    place.webhooks.purge_deliveries().await.unwrap();
    assert!(place.log(&endpoint).await.is_empty());
}

async fn the_log_is_read_page_by_page(place: Place) {
    let endpoint = place.endpoint(&COMPLETED).await;
    for _ in 0..5 {
        place.run_and_cancel(&endpoint).await;
    }
    let (mut after, mut seen) = (None, Vec::new());
    loop {
        let page = place.webhooks.deliveries(TENANT, endpoint.id, 2, after).await.unwrap().unwrap();
        seen.extend(page.records.iter().map(|one| one.id));
        after = seen.last().copied();
        if !page.has_more {
            break;
        }
        assert_eq!(page.records.len(), 2);
    }
    assert_eq!(seen.len(), 5);
    assert!(seen.windows(2).all(|pair| pair[0] > pair[1]), "newest first: {seen:?}");
}

async fn the_number_of_endpoints_of_a_tenant_is_bounded(place: Place) {
    let terms = EndpointSettings {
        url: "https://example.org/".to_owned(),
        events: BOTH.to_vec(),
        description: String::new(),
        enabled: true,
    };
    let create = |tenant: &'static str| {
        let (webhooks, terms) = (place.webhooks.clone(), terms.clone());
        async move {
            let new = NewEndpoint { id: EndpointId::new(), tenant, terms: &terms, secret: &secret(1) };
            webhooks.create_endpoint(&new, 2).await.unwrap()
        }
    };
    assert!(create(TENANT).await.is_some() && create(TENANT).await.is_some());
    assert!(create(TENANT).await.is_none());
    assert!(create("other").await.is_some(), "each tenant has its own bound");
    assert_eq!(place.webhooks.endpoints(TENANT).await.unwrap().len(), 2);
}
