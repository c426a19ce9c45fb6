//! Tests of repeated requests: the same idempotency key or the same id.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use latentd::generation::{EventKind, GenerationId, Job};
use latentd::ledger::{Acceptance, Accepted, Counts, Crew, Outcome, Refusal, Store, StoreError};

use crate::place::{
    HOUR, Place, accept, artifact, claim_one, generation, get, history, known_record, new_record, request, seen,
};

const FOX: [u8; 32] = [1; 32];
const OWL: [u8; 32] = [2; 32];

/// A request with an idempotency key and a new id.
fn keyed<'a>(generation: &'a Job, key: &'a str, fingerprint: [u8; 32]) -> Acceptance<'a> {
    Acceptance { key: Some((key, HOUR)), fingerprint, ..request(generation) }
}

pub async fn a_repeated_key_returns_the_first_generation(place: &dyn Place) {
    let store = place.open().await;
    let generation = generation();
    let id = new_record(store.accept(&keyed(&generation, "key", FOX)).await).id;
    // The key returns the generation in every state.
    for stage in ["queued", "running", "succeeded"] {
        let lease = match stage {
            "queued" => None,
            _ => store.claim(&crate::place::worker("one"), 1, true).await.unwrap().pop().map(|(_, lease)| lease),
        };
        let again = keyed(&generation, "key", FOX);
        let record = known_record(store.accept(&again).await);
        assert_eq!((record.id, seen(&record)), (id, seen(&get(&*store, id).await)), "{stage}");
        assert!(store.get(again.id).await.unwrap().is_none(), "{stage}");
        if let Some(lease) = lease {
            store.finish(lease, Outcome::Succeeded(vec![artifact()])).await.unwrap().unwrap();
        }
    }
    assert_eq!(history(&*store, id).await, [EventKind::Queued, EventKind::Started, EventKind::Succeeded]);
    assert_eq!(store.find_accepted("default", "key").await.unwrap(), Some((id, FOX)));
}

pub async fn a_key_cannot_be_reused_for_another_request(place: &dyn Place) {
    let store = place.open().await;
    let generation = generation();
    let id = new_record(store.accept(&keyed(&generation, "key", FOX)).await).id;
    let before = seen(&get(&*store, id).await);
    let other = keyed(&generation, "key", OWL);
    let error = store.accept(&other).await.unwrap_err();
    assert!(matches!(error, StoreError::Refused(Refusal::KeyReused)), "{error:?}");
    // The ledger checks the key before the id.
    let error = store.accept(&Acceptance { id, ..other.clone() }).await.unwrap_err();
    assert!(matches!(error, StoreError::Refused(Refusal::KeyReused)), "{error:?}");
    assert!(store.get(other.id).await.unwrap().is_none());
    assert_eq!(seen(&get(&*store, id).await), before);
    assert_eq!(store.counts().await.unwrap(), Counts { queued: 1, running: 0 });
    // Keys are compared exactly.
    for key in ["KEY", "key ", "ke", "", "狐"] {
        assert_eq!(store.find_accepted("default", key).await.unwrap(), None);
        new_record(store.accept(&keyed(&generation, key, OWL)).await);
    }
}

pub async fn keys_are_separate_for_each_tenant(place: &dyn Place) {
    let store = place.open().await;
    let generation = generation();
    let id = new_record(store.accept(&keyed(&generation, "key", FOX)).await).id;
    let other = Acceptance { tenant: "other", ..keyed(&generation, "key", OWL) };
    assert_eq!(store.find_accepted("other", "key").await.unwrap(), None);
    let record = new_record(store.accept(&other).await);
    assert_eq!((record.id, record.tenant.as_str()), (other.id, "other"));
    assert_eq!(store.find_accepted("other", "key").await.unwrap(), Some((other.id, OWL)));
    assert_eq!(store.find_accepted("default", "key").await.unwrap(), Some((id, FOX)));
}

pub async fn an_expired_key_can_be_used_again(place: &dyn Place) {
    let store = place.open().await;
    let generation = generation();
    let short = |fingerprint| Acceptance { key: Some(("key", Duration::ZERO)), ..keyed(&generation, "", fingerprint) };
    let first = new_record(store.accept(&short(FOX)).await).id;
    assert_eq!(store.find_accepted("default", "key").await.unwrap(), None);
    let second = new_record(store.accept(&short(OWL)).await).id;
    let third = new_record(store.accept(&keyed(&generation, "key", FOX)).await).id;
    assert_eq!(known_record(store.accept(&keyed(&generation, "key", FOX)).await).id, third);
    for id in [first, second] {
        assert_eq!(history(&*store, id).await, [EventKind::Queued], "the generation is unchanged");
    }
}

pub async fn purging_deletes_only_expired_keys(place: &dyn Place) {
    let store = place.open().await;
    let generation = generation();
    let short = Acceptance { key: Some(("short", Duration::ZERO)), ..request(&generation) };
    let id = new_record(store.accept(&short).await).id;
    let kept = new_record(store.accept(&keyed(&generation, "long", FOX)).await).id;
    store.purge().await.unwrap();
    assert_eq!(store.find_accepted("default", "long").await.unwrap(), Some((kept, FOX)));
    assert_eq!(store.find_accepted("default", "short").await.unwrap(), None);
    get(&*store, id).await;
}

pub async fn deleting_a_generation_frees_its_key_and_id(place: &dyn Place) {
    let store = place.open().await;
    let generation = generation();
    let first = keyed(&generation, "key", FOX);
    new_record(store.accept(&first).await);
    store.cancel(first.id).await.unwrap();
    store.delete(first.id, None).await.unwrap().unwrap();
    assert_eq!(store.find_accepted("default", "key").await.unwrap(), None);
    let again = Acceptance { id: first.id, ..keyed(&generation, "key", OWL) };
    assert_eq!(new_record(store.accept(&again).await).id, first.id);
    assert_eq!(history(&*store, first.id).await, [EventKind::Queued]);
}

pub async fn an_id_cannot_be_reused_for_another_request(place: &dyn Place) {
    let store = place.open().await;
    let generation = generation();
    let first = Acceptance { fingerprint: FOX, ..request(&generation) };
    new_record(store.accept(&first).await);
    let record = known_record(store.accept(&first).await);
    assert_eq!(seen(&record), seen(&get(&*store, first.id).await));
    let taken = [
        Acceptance { fingerprint: OWL, ..first.clone() },
        Acceptance { tenant: "other", ..first.clone() },
        Acceptance { fingerprint: OWL, key: Some(("key", HOUR)), ..first.clone() },
    ];
    for request in taken {
        let error = store.accept(&request).await.unwrap_err();
        assert!(matches!(error, StoreError::Refused(Refusal::IdTaken)), "{error:?}");
    }
    assert_eq!(store.find_accepted("default", "key").await.unwrap(), None);
    assert_eq!(history(&*store, first.id).await, [EventKind::Queued]);
    assert_eq!(store.counts().await.unwrap(), Counts { queued: 1, running: 0 });
}

pub async fn a_full_queue_does_not_refuse_a_repeated_request(place: &dyn Place) {
    let store = place.open().await;
    let generation = generation();
    let first = Acceptance { max_queued: 1, ..keyed(&generation, "key", FOX) };
    new_record(store.accept(&first).await);
    let full = Acceptance { max_queued: 1, ..request(&generation) };
    assert!(matches!(store.accept(&full).await, Err(StoreError::Refused(Refusal::QueueFull { queued: 1 }))));
    known_record(store.accept(&Acceptance { id: GenerationId::new(), ..first.clone() }).await);
    known_record(store.accept(&Acceptance { key: None, ..first.clone() }).await);
    let reused = Acceptance { fingerprint: OWL, ..first.clone() };
    assert!(matches!(store.accept(&reused).await, Err(StoreError::Refused(Refusal::KeyReused))));
    // A refused request does not store its key.
    let refused = Acceptance { key: Some(("other", HOUR)), ..full };
    assert!(matches!(store.accept(&refused).await, Err(StoreError::Refused(Refusal::QueueFull { .. }))));
    assert_eq!(store.find_accepted("default", "other").await.unwrap(), None);
}

pub async fn a_repeated_request_is_not_charged_again(place: &dyn Place) {
    let store = place.open().await;
    let generation = generation();
    let first = Acceptance { cost: 10.0, tenant: "a", ..keyed(&generation, "key", FOX) };
    new_record(store.accept(&first).await);
    for _ in 0..9 {
        known_record(store.accept(&first).await);
    }
    let other = new_record(store.accept(&Acceptance { cost: 25.0, tenant: "b", ..request(&generation) }).await).id;
    let next = new_record(store.accept(&Acceptance { cost: 10.0, tenant: "a", ..request(&generation) }).await).id;
    let order = [claim_one(&*store).await.0.id, claim_one(&*store).await.0.id, claim_one(&*store).await.0.id];
    assert_eq!(order, [first.id, next, other]);
}

pub async fn concurrent_requests_with_one_key_create_one_generation(place: &dyn Place) {
    let stores = place.open_many(8).await;
    for round in 0..5 {
        let key = format!("key {round}");
        let answers = accept_at_once(&stores, |_| (GenerationId::new(), Some(key.clone()), FOX)).await;
        check_one_new(&*stores[0], answers).await;
    }
}

pub async fn concurrent_requests_with_one_id_create_one_generation(place: &dyn Place) {
    let stores = place.open_many(8).await;
    for _ in 0..5 {
        let id = GenerationId::new();
        let answers = accept_at_once(&stores, |_| (id, None, FOX)).await;
        check_one_new(&*stores[0], answers).await;
    }
}

pub async fn concurrent_requests_that_reuse_a_key_succeed_for_one_kind(place: &dyn Place) {
    let stores = place.open_many(8).await;
    for round in 0..5 {
        let key = format!("key {round}");
        let kinds = [FOX, OWL];
        let answers = accept_at_once(&stores, |at| (GenerationId::new(), Some(key.clone()), kinds[at % 2])).await;
        let (won, lost): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
        assert_eq!((won.len(), lost.len()), (4, 4));
        assert!(lost.iter().all(|lost| matches!(lost, Err(StoreError::Refused(Refusal::KeyReused)))), "{lost:?}");
        check_one_new(&*stores[0], won).await;
    }
}

/// Accepts one request on each store at the same time. `request_of` returns the id, key and fingerprint for a store.
async fn accept_at_once(
    stores: &[Arc<dyn Store>],
    request_of: impl Fn(usize) -> (GenerationId, Option<String>, [u8; 32]),
) -> Vec<Result<Accepted, StoreError>> {
    let accepting = stores.iter().cloned().enumerate().map(|(at, store)| {
        let (id, key, fingerprint) = request_of(at);
        tokio::spawn(async move {
            let generation = generation();
            let key = key.as_deref().map(|key| (key, HOUR));
            store.accept(&Acceptance { id, key, fingerprint, ..request(&generation) }).await
        })
    });
    join_all(accepting).await.into_iter().map(Result::unwrap).collect()
}

/// Checks that one answer is a new generation and the others repeat it.
async fn check_one_new(store: &dyn Store, answers: Vec<Result<Accepted, StoreError>>) {
    let mut new = Vec::new();
    let mut again = Vec::new();
    for answer in answers {
        match answer.unwrap() {
            Accepted::New(record) => new.push(record.id),
            Accepted::Again(record) => again.push(record.id),
        }
    }
    assert_eq!(new.len(), 1);
    assert!(again.iter().all(|id| *id == new[0]));
    assert_eq!(history(store, new[0]).await, [EventKind::Queued]);
    assert_eq!(store.counts().await.unwrap().queued, 1);
    store.cancel(new[0]).await.unwrap();
    // The requests left nothing else in the queue.
    let id = accept(store, 1).await[0];
    assert_eq!(store.place(id, &Crew::default()).await.unwrap().map(|place| place.position), Some(0));
    store.cancel(id).await.unwrap();
}
