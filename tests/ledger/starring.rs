//! Tests of stars, which keep generations beyond their retention.

use std::time::Duration;

use futures::future::join_all;
use latentd::generation::{GenerationId, Record, Status};
use latentd::ledger::{ListQuery, Outcome, Refusal, Store, StoreError};

use crate::place::{HOUR, Place, accept, accept_of, artifact, claim_one, get, history, running, seen};

/// A generation of this tenant that has succeeded.
async fn succeeded(store: &dyn Store, tenant: &str) -> GenerationId {
    let id = accept_of(store, tenant, 1.0).await;
    let (record, lease) = claim_one(store).await;
    assert_eq!(record.id, id);
    store.finish(lease, Outcome::Succeeded(vec![artifact()])).await.unwrap().unwrap();
    id
}

async fn overdue(store: &dyn Store) -> Vec<GenerationId> {
    store.overdue_for_deletion(9).await.unwrap().iter().map(|record| record.id).collect()
}

pub async fn a_star_keeps_a_generation_until_it_is_taken_away(place: &dyn Place) {
    let store = place.open_with(Duration::ZERO).await;
    let ids = [succeeded(&*store, "default").await, succeeded(&*store, "default").await];
    assert_eq!(overdue(&*store).await, ids);
    let before = get(&*store, ids[0]).await;
    assert!(!before.starred && before.expires_at == before.finished_at);

    let kept = store.star(ids[0], true, 9).await.unwrap().unwrap();
    assert_eq!((kept.starred, kept.expires_at, kept.version), (true, None, before.version + 1));
    assert_eq!(kept.status, Status::Succeeded { artifacts: vec![artifact()] });
    assert_eq!(overdue(&*store).await, ids[1..]);
    let again = store.star(ids[0], true, 0).await.unwrap().unwrap();
    assert_eq!(seen(&again), seen(&kept), "a second star changes nothing, even if there is no room");
    let events = history(&*store, ids[0]).await;
    drop(store);

    let store = place.open_with(HOUR).await;
    assert_eq!(seen(&get(&*store, ids[0]).await), seen(&kept));
    let freed = store.star(ids[0], false, 0).await.unwrap().unwrap();
    assert_eq!((freed.starred, freed.version), (false, kept.version + 1));
    assert!(freed.expires_at.unwrap() >= freed.finished_at.unwrap() + HOUR, "{freed:?}");
    assert_eq!(seen(&store.star(ids[0], false, 9).await.unwrap().unwrap()), seen(&freed));
    assert_eq!(history(&*store, ids[0]).await, events, "stars are no events");
    drop(store);

    let store = place.open_with(Duration::ZERO).await;
    store.star(ids[1], true, 9).await.unwrap().unwrap();
    assert_eq!(overdue(&*store).await, []);
    store.star(ids[1], false, 9).await.unwrap().unwrap();
    assert_eq!(overdue(&*store).await, ids[1..]);
}

pub async fn only_generations_that_succeeded_have_stars(place: &dyn Place) {
    let store = place.open().await;
    let (ended, lease) = running(&*store).await;
    store.finish(lease, Outcome::Canceled).await.unwrap();
    let (started, _) = running(&*store).await;
    let queued = accept(&*store, 1).await[0];
    for id in [queued, started, ended] {
        let before = get(&*store, id).await;
        let refused = store.star(id, true, 9).await;
        assert!(matches!(refused, Err(StoreError::Refused(Refusal::NotSucceeded))), "{refused:?}");
        assert_eq!(seen(&store.star(id, false, 9).await.unwrap().unwrap()), seen(&before));
        assert_eq!(seen(&get(&*store, id).await), seen(&before));
    }
    assert!(store.star(GenerationId::new(), true, 9).await.unwrap().is_none());
}

pub async fn a_tenant_has_a_bound_of_stars(place: &dyn Place) {
    let store = place.open().await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(succeeded(&*store, "one").await);
    }
    let other = succeeded(&*store, "two").await;
    let most = 2;
    // At the same time, and one after the other.
    let starred = join_all(ids.iter().map(|id| store.star(*id, true, most))).await;
    assert_eq!(starred.iter().filter(|starred| starred.is_ok()).count(), most);
    for refused in starred.iter().filter_map(|starred| starred.as_ref().err()) {
        assert!(matches!(refused, StoreError::Refused(Refusal::StarsFull { most: 2 })), "{refused:?}");
    }
    store.star(other, true, most).await.unwrap().unwrap();
    let of = |tenant: &str, starred| ListQuery {
        limit: 9,
        tenant: Some(tenant.to_owned()),
        starred: Some(starred),
        ..ListQuery::default()
    };
    let kept = store.list(&of("one", true)).await.unwrap().records;
    assert!(kept.len() == most && kept.iter().all(|record| record.starred));
    let others = store.list(&of("one", false)).await.unwrap().records;
    assert!(others.len() == ids.len() - most && others.iter().all(|record| !record.starred));
    assert_eq!(store.list(&of("two", true)).await.unwrap().records[0].id, other);

    // A sweep that read a generation before its star does not delete it.
    let read = Record { expires_at: others[1].expires_at, ..kept[1].clone() };
    assert!(store.delete(read.id, Some(&read)).await.unwrap().is_none());
    assert!(store.get(read.id).await.unwrap().is_some());

    // Its owner deletes a generation with a star as any other, which makes room.
    store.delete(kept[0].id, None).await.unwrap().unwrap();
    assert!(store.get(kept[0].id).await.unwrap().is_none());
    store.star(others[0].id, true, most).await.unwrap().unwrap();
    assert!(store.star(others[1].id, true, most).await.is_err());
}
