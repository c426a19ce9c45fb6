//! Tests of API keys and their tenants.

use std::time::Duration;

use latentd::generation::{KeyTerms, Priority, RateLimit, SafetyPolicy, Scope};
use latentd::ledger::{Acceptance, KeyQuery, KeyRecord, Refusal, Store, StoreError};

use crate::place::{HOUR, Place, accept_of, generation, request};

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

pub async fn every_term_of_a_key_is_stored(place: &dyn Place) {
    let store = place.open().await;
    let terms = KeyTerms {
        name: "Bau\u{eb}r's \"shop\"".to_owned(),
        scopes: vec![Scope::Admin, Scope::Read],
        models: vec!["emoji".to_owned(), "org/large".to_owned()],
        max_priority: Priority::Low,
        rate_limit: Some(RateLimit { requests: 3, window_s: 60 }),
        max_cost_per_day: Some(1_000_000_000_000_000),
        expires_in_s: Some(3600),
        safety: Some(SafetyPolicy::Block),
    };
    let record = KeyRecord { terms, ..key("one", "alpha") };
    store.create_key(&record).await.unwrap();
    let stored = store.find_key("one").await.unwrap().unwrap();
    assert_eq!(stored.record, record);
    assert_eq!(stored.expires_at.unwrap() - stored.created_at, time::Duration::HOUR);
    assert_eq!((stored.last_used_at, stored.revoked_at, stored.old_sha256), (None, None, None));
    store.mark_key_used("one").await.unwrap();
    let used = store.find_key("one").await.unwrap().unwrap();
    assert!(used.last_used_at.unwrap() >= used.created_at);
    store.mark_key_used("none").await.unwrap();
}

pub async fn keys_are_listed_in_pages(place: &dyn Place) {
    let store = place.open().await;
    for (id, tenant) in [("c", "alpha"), ("a", "beta"), ("d", "alpha"), ("b", "alpha")] {
        store.create_key(&key(id, tenant)).await.unwrap();
    }
    let page = async |query: KeyQuery| {
        let page = store.list_keys(&query).await.unwrap();
        (page.records.into_iter().map(|key| key.record.id).collect::<Vec<_>>().concat(), page.has_more)
    };
    let all = KeyQuery { limit: 9, ..KeyQuery::default() };
    assert_eq!(page(all.clone()).await, ("abcd".to_owned(), false));
    assert_eq!(page(KeyQuery { limit: 4, ..all.clone() }).await, ("abcd".to_owned(), false));
    assert_eq!(page(KeyQuery { limit: 3, ..all.clone() }).await, ("abc".to_owned(), true));
    assert_eq!(page(KeyQuery { after: Some("b".to_owned()), ..all.clone() }).await, ("cd".to_owned(), false));
    let alpha = KeyQuery { tenant: Some("alpha".to_owned()), ..all };
    assert_eq!(page(KeyQuery { limit: 2, ..alpha.clone() }).await, ("bc".to_owned(), true));
    assert_eq!(page(KeyQuery { after: Some("c".to_owned()), ..alpha }).await, ("d".to_owned(), false));
}

pub async fn a_revoked_key_stays_revoked(place: &dyn Place) {
    let store = place.open().await;
    store.create_key(&key("one", "alpha")).await.unwrap();
    store.create_key(&key("two", "alpha")).await.unwrap();
    let revoked = store.revoke_key("one").await.unwrap().unwrap();
    assert!(revoked.revoked_at.is_some());
    assert_eq!(store.revoke_key("one").await.unwrap(), Some(revoked.clone()), "the first time counts");
    assert_eq!(store.rotate_key("one", &[3; 32], HOUR).await.unwrap(), None);
    assert_eq!(store.find_key("one").await.unwrap(), Some(revoked));
    assert_eq!(store.find_key("two").await.unwrap().unwrap().revoked_at, None);
    assert_eq!(store.revoke_key("none").await.unwrap(), None);
    assert!(store.has_keys().await.unwrap());
}

pub async fn a_rotated_key_keeps_its_old_digest_for_a_while(place: &dyn Place) {
    let store = place.open().await;
    store.create_key(&key("one", "alpha")).await.unwrap();
    let rotated = store.rotate_key("one", &[1; 32], HOUR).await.unwrap().unwrap();
    assert_eq!((rotated.record.sha256, rotated.old_sha256), ([1; 32], Some([0xa5; 32])));
    let left = rotated.old_sha256_until.unwrap() - rotated.created_at;
    assert!(left >= time::Duration::HOUR && left < time::Duration::hours(2), "{left}");
    assert_eq!(KeyRecord { sha256: [0xa5; 32], ..rotated.record }, key("one", "alpha"), "nothing else has changed");
    // The same call again, after an answer was lost.
    let again = store.rotate_key("one", &[1; 32], HOUR).await.unwrap().unwrap();
    assert_eq!((again.record.sha256, again.old_sha256), ([1; 32], Some([0xa5; 32])));
    let next = store.rotate_key("one", &[2; 32], Duration::ZERO).await.unwrap().unwrap();
    assert_eq!((next.record.sha256, next.old_sha256), ([2; 32], Some([1; 32])));
    assert!(next.old_sha256_until.unwrap() < rotated.old_sha256_until.unwrap());
    assert_eq!(store.rotate_key("none", &[1; 32], HOUR).await.unwrap(), None);
}
