//! Tests of API keys and their tenants.

use latentd::generation::KeyTerms;
use latentd::ledger::{Acceptance, KeyRecord, Refusal, Store, StoreError};

use crate::place::{Place, accept_of, generation, request};

/// The record of a stored key.
async fn found(store: &dyn Store, id: &str) -> Option<KeyRecord> {
    store.find_key(id).await.unwrap().map(|stored| stored.record)
}

fn key(id: &str, tenant: &str) -> KeyRecord {
    KeyRecord {
        id: id.to_owned(),
        sha256: [0xa5; 32],
        tenant: tenant.to_owned(),
        weight: 2.5,
        max_queued: Some(7),
        max_running: None,
        terms: KeyTerms::default(),
    }
}

pub async fn a_stored_key_is_returned_with_its_tenant(place: &dyn Place) {
    let store = place.open().await;
    assert_eq!(found(&*store, "one").await, None);
    let bounded = KeyRecord { max_queued: None, max_running: Some(u32::MAX), sha256: [0; 32], ..key("two", "beta") };
    store.create_key(&key("one", "alpha")).await.unwrap();
    store.create_key(&bounded).await.unwrap();
    drop(store);
    let store = place.open().await;
    assert_eq!(found(&*store, "one").await, Some(key("one", "alpha")));
    assert_eq!(found(&*store, "two").await, Some(bounded));
    for id in ["", "on", "ONE", "one ", "' OR true --"] {
        assert_eq!(found(&*store, id).await, None);
    }
}

pub async fn a_new_key_changes_the_weight_and_bounds_of_its_tenant(place: &dyn Place) {
    let store = place.open().await;
    store.create_key(&key("old", "alpha")).await.unwrap();
    store.create_key(&key("other", "beta")).await.unwrap();
    let new = KeyRecord { weight: 0.5, max_queued: Some(0), max_running: Some(3), ..key("new", "alpha") };
    store.create_key(&new).await.unwrap();
    assert_eq!(found(&*store, "new").await, Some(new.clone()));
    assert_eq!(found(&*store, "old").await, Some(KeyRecord { id: "old".to_owned(), ..new }));
    assert_eq!(found(&*store, "other").await, Some(key("other", "beta")));
    let generation = generation();
    let refused = store.accept(&Acceptance { tenant: "alpha", ..request(&generation) }).await;
    assert!(matches!(refused, Err(StoreError::Refused(Refusal::TenantQueueFull { queued: 0 }))), "{refused:?}");
}

pub async fn a_tenant_without_a_key_can_get_one(place: &dyn Place) {
    let store = place.open().await;
    for tenant in ["alpha", "default"] {
        let id = accept_of(&*store, tenant, 1.0).await;
        store.create_key(&key(tenant, tenant)).await.unwrap();
        assert_eq!(found(&*store, tenant).await, Some(key(tenant, tenant)));
        store.cancel(id).await.unwrap();
    }
}

pub async fn a_refused_key_changes_nothing(place: &dyn Place) {
    let store = place.open().await;
    store.create_key(&key("one", "alpha")).await.unwrap();
    let taken = KeyRecord { weight: 9.0, max_queued: None, sha256: [0; 32], ..key("one", "alpha") };
    let elsewhere = key("one", "beta");
    let weightless = [0.0, -1.0].map(|weight| KeyRecord { weight, ..key("two", "alpha") });
    for refused in [taken, elsewhere].into_iter().chain(weightless) {
        let error = store.create_key(&refused).await.unwrap_err();
        assert!(matches!(error, StoreError::Database(_)), "{error:?}");
    }
    assert_eq!(found(&*store, "one").await, Some(key("one", "alpha")));
    assert_eq!(found(&*store, "two").await, None);
}
