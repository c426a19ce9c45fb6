//! Tests of claiming: the order of claims, expiry, and what is queued again at the start of a process.

use std::collections::HashSet;

use futures::future::join_all;
use latentd::generation::{EventKind, GenerationId, Status};
use latentd::ledger::{Crew, Outcome};

use crate::place::{
    Place, accept, accept_one, claim, claim_one, generation, get, history, ids, overdue, reap_all, running, seen,
};

pub async fn the_oldest_generations_are_claimed_first(place: &dyn Place) {
    let store = place.open().await;
    let accepted = accept(&*store, 5).await;
    let claimed = claim(&*store, 3).await;
    assert_eq!(ids(&claimed), accepted[..3]);
    for (record, lease) in &claimed {
        assert_eq!((lease.id(), lease.fence()), (record.id, 1));
        assert_eq!((&record.status, record.attempt, record.version), (&Status::Running, 1, 2));
        assert!(record.started_at.is_some());
        assert_eq!(seen(&get(&*store, record.id).await), seen(record));
        let events = store.events(record.id, 1).await.unwrap();
        assert_eq!((events[0].seq, events[0].kind), (2, EventKind::Started));
        assert_eq!(events[0].data, serde_json::json!({"id": record.id, "attempt": 1}));
    }
    let rest = claim(&*store, 100).await;
    assert_eq!(ids(&rest), accepted[3..]);
}

pub async fn concurrent_claimers_never_share_a_generation(place: &dyn Place) {
    let stores = place.open_many(8).await;
    let ids = accept(&*stores[0], 60).await;
    let claimers = stores.into_iter().map(|store| {
        tokio::spawn(async move {
            let mut mine = Vec::new();
            loop {
                let claimed = claim(&*store, 3).await;
                if claimed.is_empty() {
                    return mine;
                }
                mine.extend(claimed.into_iter().map(|(record, _)| record.id));
            }
        })
    });
    let claimed: Vec<GenerationId> = join_all(claimers).await.into_iter().flat_map(|mine| mine.unwrap()).collect();
    assert_eq!(claimed.len(), ids.len());
    assert_eq!(claimed.into_iter().collect::<HashSet<_>>(), ids.into_iter().collect());
}

pub async fn nothing_is_claimed_from_an_empty_queue(place: &dyn Place) {
    let store = place.open().await;
    assert!(claim(&*store, 5).await.is_empty());
    accept(&*store, 1).await;
    assert!(claim(&*store, 0).await.is_empty());
    assert_eq!(store.counts().await.unwrap().queued, 1);
}

pub async fn overdue_generations_expire_and_are_not_claimed(place: &dyn Place) {
    let store = place.open().await;
    let late = accept_one(&*store, &overdue()).await;
    let in_time = accept(&*store, 1).await[0];
    let claimed = claim(&*store, 10).await;
    assert_eq!(ids(&claimed), [in_time]);
    let waiting = accept(&*store, 1).await[0];

    let expired = store.expire_overdue().await.unwrap();
    assert_eq!(expired.iter().map(|record| record.id).collect::<Vec<_>>(), [late]);
    assert_eq!((&expired[0].status, expired[0].version), (&Status::Expired, 2));
    assert!(expired[0].finished_at.is_some() && expired[0].expires_at.is_some());
    assert_eq!(seen(&get(&*store, late).await), seen(&expired[0]));
    assert_eq!(history(&*store, late).await, [EventKind::Queued, EventKind::Expired]);
    assert_eq!(get(&*store, waiting).await.status, Status::Queued);
    assert!(store.expire_overdue().await.unwrap().is_empty());
}

/// The start timeout is the shortest that a request may have, because the test cannot move the store's clock. The
/// timeout begins before the claim.
pub async fn a_generation_that_has_started_never_expires(place: &dyn Place) {
    let store = place.open().await;
    let short = latentd::generation::Job { start_timeout_s: 1, ..generation() };
    let id = accept_one(&*store, &short).await;
    let (_, lease) = claim_one(&*store).await;
    store.finish(lease, Outcome::Released).await.unwrap();
    // A second generation, which is never claimed, expires when the timeout has passed.
    let clock = accept_one(&*store, &short).await;
    while get(&*store, clock).await.status != Status::Expired {
        let expired = store.expire_overdue().await.unwrap();
        assert!(expired.iter().all(|record| record.id == clock));
        tokio::task::yield_now().await;
    }
    assert_eq!(claim_one(&*store).await.0.id, id);
}

pub async fn running_generations_are_queued_again_at_startup(place: &dyn Place) {
    let store = place.open().await;
    let (id, stale) = running(&*store).await;
    let queued = accept(&*store, 1).await[0];
    let before = get(&*store, queued).await;
    let reaped = reap_all(&*store, 3).await;
    assert_eq!((reaped.queued, reaped.ended.len()), (vec![id], 0));
    let record = get(&*store, id).await;
    assert_eq!((&record.status, record.attempt, record.crash_count, record.version), (&Status::Queued, 1, 1, 3));
    assert_eq!(seen(&get(&*store, queued).await), seen(&before));
    let event = store.events(id, 2).await.unwrap().remove(0);
    assert_eq!(event.kind, EventKind::Retrying);
    assert_eq!(event.data, serde_json::json!({"id": id, "attempt": 1, "reason": "worker_crashed"}));

    assert!(store.finish(stale, Outcome::Canceled).await.unwrap().is_none());
    let (again, lease) = claim_one(&*store).await;
    assert_eq!((again.id, again.attempt, lease.fence()), (id, 2, 2), "the generation keeps its position");
    assert_eq!(again.started_at, record.started_at);
}

pub async fn too_many_crashes_fail_the_generation(place: &dyn Place) {
    let store = place.open().await;
    let (id, _) = running(&*store).await;
    assert_eq!(reap_all(&*store, 2).await.queued, [id]);
    claim_one(&*store).await;
    let reaped = reap_all(&*store, 2).await;
    assert_eq!(reaped.queued, []);
    let record = get(&*store, id).await;
    assert_eq!(reaped.ended.iter().map(seen).collect::<Vec<_>>(), [seen(&record)]);
    let Status::Failed { problem } = &record.status else { panic!("{record:?}") };
    assert_eq!((problem.code.as_str(), problem.retryable), ("worker_crashed", false));
    assert_eq!(record.attempt, 2);
    let kinds = [EventKind::Queued, EventKind::Started, EventKind::Retrying, EventKind::Started, EventKind::Failed];
    assert_eq!(history(&*store, id).await, kinds);
}

pub async fn a_canceled_run_is_not_queued_again_at_startup(place: &dyn Place) {
    let store = place.open().await;
    let (id, _) = running(&*store).await;
    store.cancel(id).await.unwrap();
    let reaped = reap_all(&*store, 1).await;
    assert_eq!((reaped.queued.len(), reaped.ended.len()), (0, 1));
    let record = get(&*store, id).await;
    assert_eq!((record.status, record.dead), (Status::Canceled, false));
    assert_eq!(history(&*store, id).await, [EventKind::Queued, EventKind::Started, EventKind::Canceled]);
}

pub async fn positions_count_older_generations(place: &dyn Place) {
    let store = place.open().await;
    let ids = accept(&*store, 4).await;
    for (at, id) in ids.iter().enumerate() {
        let place = Some(latentd::ledger::QueuePosition { position: at, cost: at as f64 });
        assert_eq!(store.place(*id, &Crew::default()).await.unwrap(), place);
    }
    claim_one(&*store).await;
    store.cancel(ids[2]).await.unwrap();
    let crew = Crew::default();
    let positions = join_all(ids.iter().map(|id| store.place(*id, &crew))).await;
    let positions: Vec<_> = positions.into_iter().map(|place| place.unwrap().map(|place| place.position)).collect();
    assert_eq!(positions, [None, Some(0), None, Some(1)]);
    assert_eq!(store.place(GenerationId::new(), &Crew::default()).await.unwrap().map(|place| place.position), None);
}
