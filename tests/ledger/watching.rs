//! Tests of what watchers of generations see: snapshots, events, inputs and hints.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::{StreamExt, future::join_all};
use latentd::generation::{
    Draw, EventKind, GenerationId, ImageInfluence, InputImage, OwnerChange, Source, Status, TenantEvent,
};
use latentd::ledger::{Acceptance, Hint, Outcome, Store};

use crate::place::{
    Place, accept, accept_of, accept_one, artifact, claim_one, draw, get, history, job, late_worker, new_record,
    problem, reap_late, request, running, worker,
};

pub async fn a_snapshot_contains_the_last_event(place: &dyn Place) {
    let store = place.open().await;
    let queued = accept(&*store, 1).await[0];
    let over = accept(&*store, 1).await[0];
    store.cancel(over).await.unwrap();
    let gone = GenerationId::new();
    let (first, lease) = {
        let (record, lease) = claim_one(&*store).await;
        (record.id, lease)
    };
    assert_eq!(first, queued);
    let snapshots = store.snapshots(&[over, gone, queued]).await.unwrap();
    let mut seen: Vec<_> =
        snapshots.iter().map(|snapshot| (snapshot.id, snapshot.last_event, snapshot.is_over)).collect();
    seen.sort();
    assert_eq!(seen, [(queued, 2, false), (over, 2, true)]);
    assert!(snapshots.iter().all(|snapshot| snapshot.progress.is_none() && snapshot.previews.is_empty()));

    store.finish(lease, Outcome::Succeeded(vec![artifact()])).await.unwrap().unwrap();
    let snapshot = store.snapshots(&[queued]).await.unwrap().remove(0);
    assert_eq!((snapshot.last_event, snapshot.is_over), (3, true));
    assert!(store.snapshots(&[]).await.unwrap().is_empty());
    assert!(store.previews(gone).await.unwrap().is_empty());
}

/// All stores change the same 12 generations in all ways at the same time.
pub async fn concurrent_changes_leave_no_gaps_in_the_events(place: &dyn Place) {
    let stores = place.open_many(6).await;
    let ids = accept(&*stores[0], 12).await;
    let changing = stores.iter().cloned().enumerate().map(|(at, store)| {
        let ids = ids.clone();
        tokio::spawn(async move { meddle(store, at, &ids).await })
    });
    for changed in join_all(changing).await {
        changed.unwrap();
    }
    let store = &stores[0];
    for id in ids {
        let record = get(&**store, id).await;
        let history = history(&**store, id).await;
        let last = *history.last().unwrap();
        assert_eq!(history.iter().filter(|kind| kind.is_terminal()).count(), usize::from(record.status.is_terminal()));
        match record.status {
            Status::Queued => assert!(matches!(last, EventKind::Queued | EventKind::Retrying), "{last:?}"),
            Status::Running => assert_eq!(last, EventKind::Started),
            Status::Succeeded { .. } => assert_eq!(last, EventKind::Succeeded),
            Status::Failed { .. } => assert_eq!(last, EventKind::Failed),
            Status::Canceled => assert_eq!(last, EventKind::Canceled),
            Status::Expired => assert_eq!(last, EventKind::Expired),
        }
        let snapshot = store.snapshots(&[id]).await.unwrap().remove(0);
        assert_eq!(snapshot.last_event, history.len() as i64);
    }
}

/// A reader follows a tenant while all stores change its generations. It must see every event, in order.
pub async fn the_events_of_a_tenant_have_one_order_in_which_none_is_missed(place: &dyn Place) {
    let stores = place.open_many(6).await;
    let mut ids = accept(&*stores[0], 6).await;
    for at in 0..6 {
        ids.push(accept_of(&*stores[0], &format!("tenant {}", at % 2), 1.0).await);
    }
    let changing = stores.iter().skip(1).cloned().enumerate().map(|(at, store)| {
        let ids = ids.clone();
        tokio::spawn(async move { meddle(store, at, &ids).await })
    });
    let changes = tokio::spawn(join_all(changing));
    let (mut seen, mut numbers) = (BTreeMap::<GenerationId, Vec<i64>>::new(), Vec::new());
    loop {
        let is_over = changes.is_finished();
        let page = stores[0].events_of("default", numbers.last().copied().unwrap_or(0), 7).await.unwrap();
        if page.is_empty() && is_over {
            break;
        }
        for TenantEvent { number, event } in page {
            let (id, event) = event.expect("all events are readable");
            numbers.push(number);
            seen.entry(id).or_default().push(event.seq);
        }
    }
    changes.await.unwrap().into_iter().for_each(|changed| changed.unwrap());
    assert_eq!(numbers, (1..=numbers.len() as i64).collect::<Vec<_>>());
    assert_eq!(stores[0].last_event_of("default").await.unwrap(), numbers.len() as i64);
    assert_eq!(stores[0].last_event_of("nobody").await.unwrap(), 0);
    assert_eq!(seen.len(), 6, "other tenants have streams of their own");
    for id in &ids[..6] {
        let all = history(&*stores[0], *id).await.len() as i64;
        assert_eq!(seen[id], (1..=all).collect::<Vec<_>>());
    }
    // Erased generations leave gaps.
    let ended = accept(&*stores[0], 1).await[0];
    stores[0].cancel(ended).await.unwrap();
    stores[0].delete(ended, None).await.unwrap().unwrap();
    let last = accept(&*stores[0], 1).await[0];
    let after = stores[0].events_of("default", numbers.len() as i64, 7).await.unwrap();
    assert_eq!(
        after.iter().map(|event| (event.event.as_ref().unwrap().0, event.number)).collect::<Vec<_>>(),
        [(last, numbers.len() as i64 + 3)]
    );
}

async fn meddle(store: Arc<dyn Store>, at: usize, ids: &[GenerationId]) {
    let name = format!("worker {at}");
    let mut leases = Vec::new();
    for round in 0..25 {
        let claimant = if round % 3 == 0 { late_worker(&name) } else { worker(&name) };
        leases.extend(store.claim(&claimant, 2, true).await.unwrap().into_iter().map(|(_, lease)| lease));
        store.renew(&claimant, &leases).await.unwrap();
        if let Some(lease) = leases.pop() {
            let outcome = match (round + at) % 5 {
                0 => Outcome::Succeeded(vec![artifact()]),
                1 | 2 => Outcome::Released,
                _ => Outcome::Retry { problem: problem(), delay: Duration::ZERO },
            };
            store.finish(lease, outcome).await.unwrap();
        }
        match (round * 5 + at) % 12 {
            0 => drop(reap_late(&*store, 3).await),
            1 => drop(store.cancel(ids[(round + at) % ids.len()]).await.unwrap()),
            2 => drop(store.expire_overdue().await.unwrap()),
            3 => store.age(Duration::ZERO).await.unwrap(),
            _ => {}
        }
    }
}

pub async fn an_input_is_found_only_by_its_tenant(place: &dyn Place) {
    let store = place.open().await;
    let with_input = |sha256: &str| {
        let image = InputImage { upload: sha256.to_owned(), width: 64, height: 64 };
        let hold = ImageInfluence::Strength { strength: 0.5 };
        job(Draw { source: Some(Source { image, further_images: Vec::new(), hold, mask: None }), ..draw() })
    };
    let first = accept_one(&*store, &with_input("aa")).await;
    let newest = accept_one(&*store, &with_input("aa")).await;
    accept_one(&*store, &with_input("bb")).await;
    let generation = with_input("aa");
    let theirs = new_record(store.accept(&Acceptance { tenant: "other", ..request(&generation) }).await).id;
    for (tenant, sha256, found) in [
        ("default", "aa", Some(newest)),
        ("other", "aa", Some(theirs)),
        ("other", "bb", None),
        ("default", "cc", None),
        ("nobody", "aa", None),
    ] {
        assert_eq!(store.find_input(tenant, sha256).await.unwrap(), found, "{tenant} {sha256}");
    }
    for (id, found) in [(newest, Some(first)), (first, None)] {
        store.cancel(id).await.unwrap();
        store.delete(id, None).await.unwrap().unwrap();
        assert_eq!(store.find_input("default", "aa").await.unwrap(), found);
    }
}

/// Hints may be lost, so the test sends them until each of them has arrived.
pub async fn hints_reach_other_stores(place: &dyn Place) {
    let stores = place.open_many(2).await;
    let (id, _) = running(&*stores[0]).await;
    stores[0].hint(&[]).await.unwrap();
    let changed = |change| Hint::ChangedByOwner(change, id, u64::MAX);
    let [deleted, starred, unstarred] =
        [OwnerChange::Deleted, OwnerChange::Starred, OwnerChange::Unstarred].map(changed);
    let sent = [Hint::Queued, Hint::Changed(id), Hint::Canceled(id), deleted, starred, unstarred];
    stores[0].hint(&sent).await.unwrap();
    assert_eq!(stores[0].is_shared(), place.is_shared());
    if !place.is_shared() {
        return;
    }
    let mut hints = stores[1].hints();
    let mut missing = sent.to_vec();
    while !missing.is_empty() {
        stores[0].hint(&sent).await.unwrap();
        while let Ok(Some(hint)) = tokio::time::timeout(Duration::from_millis(50), hints.next()).await {
            assert!(sent.contains(&hint), "{hint:?}");
            missing.retain(|missing| *missing != hint);
        }
    }
}

pub async fn many_hints_at_once_arrive(place: &dyn Place) {
    let stores = place.open_many(2).await;
    let sent: Vec<Hint> = (0..1000).map(|_| Hint::Changed(GenerationId::new())).collect();
    stores[0].hint(&sent).await.unwrap();
    if !place.is_shared() {
        return;
    }
    let mut hints = stores[1].hints();
    let mut seen = std::collections::HashSet::new();
    while seen.len() < sent.len() {
        stores[0].hint(&sent).await.unwrap();
        while let Ok(Some(hint)) = tokio::time::timeout(Duration::from_millis(50), hints.next()).await {
            // A listener may also hear `Hint::Queued`, for example after it has connected.
            if hint != Hint::Queued {
                assert!(sent.contains(&hint), "{hint:?}");
                seen.insert(format!("{hint:?}"));
            }
        }
    }
}
