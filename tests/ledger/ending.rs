//! Tests of the ends of generations: outcomes, cancellation, deletion and retention.

use std::time::Duration;

use latentd::generation::{Artifact, EventKind, Facts, GenerationId, Status};
use latentd::ledger::{Counts, Outcome, Refusal, StoreError};

use crate::place::{HOUR, Place, accept, artifact, claim, claim_one, get, history, problem, reap_all, running, seen};

pub async fn a_success_stores_the_artifacts(place: &dyn Place) {
    let store = place.open().await;
    let (id, lease) = running(&*store).await;
    // A newer version may have stored a media type that this version does not write.
    let media_type = "video/mp4".to_owned().try_into().unwrap();
    let facts = Facts::Picture { width: 8, height: 8, seed: u64::MAX };
    let blob = "img/x/1/1.mp4".to_owned();
    let artifacts = vec![artifact(), Artifact { index: 1, media_type, blob, facts, ..artifact() }];
    let record = store.finish(lease, Outcome::Succeeded(artifacts.clone())).await.unwrap().unwrap();
    assert_eq!(record.status, Status::Succeeded { artifacts });
    assert_eq!(record.version, 3);
    assert_eq!(record.expires_at.unwrap(), record.finished_at.unwrap() + HOUR);
    assert!(record.created_at <= record.started_at.unwrap() && record.started_at <= record.finished_at);
    assert_eq!(seen(&get(&*store, id).await), seen(&record));
    let event = store.events(id, 2).await.unwrap().remove(0);
    assert_eq!((event.kind, event.data), (EventKind::Succeeded, serde_json::json!({"id": id, "status": "succeeded"})));
}

pub async fn a_failure_stores_the_problem(place: &dyn Place) {
    let store = place.open().await;
    let (id, lease) = running(&*store).await;
    let record = store.finish(lease, Outcome::Failed(problem())).await.unwrap().unwrap();
    assert_eq!(record.status, Status::Failed { problem: problem() });
    assert_eq!(history(&*store, id).await, [EventKind::Queued, EventKind::Started, EventKind::Failed]);
    assert_eq!(store.counts().await.unwrap(), Counts::default());
}

pub async fn a_stale_lease_changes_nothing(place: &dyn Place) {
    let store = place.open().await;
    let outcomes = || {
        let retry = Outcome::Retry { problem: problem(), delay: Duration::ZERO };
        [Outcome::Succeeded(vec![artifact()]), Outcome::Failed(problem()), Outcome::Canceled, Outcome::Released, retry]
    };
    // The generation is claimed with a newer lease, queued, finished or deleted.
    for after in ["claimed again", "queued again", "finished", "deleted"] {
        for outcome in outcomes() {
            let (id, stale) = running(&*store).await;
            reap_all(&*store, 9).await;
            let newer = if after == "queued again" { None } else { Some(claim_one(&*store).await.1) };
            let newer = match newer {
                Some(lease) if after != "claimed again" => {
                    store.finish(lease, Outcome::Succeeded(Vec::new())).await.unwrap().unwrap();
                    None
                }
                newer => newer,
            };
            if after == "deleted" {
                store.delete(id, None).await.unwrap();
            }
            let before = store.get(id).await.unwrap();
            let events = history(&*store, id).await;
            assert!(store.finish(stale, outcome).await.unwrap().is_none(), "{after}");
            assert_eq!(store.get(id).await.unwrap().as_ref().map(seen), before.as_ref().map(seen), "{after}");
            assert_eq!(history(&*store, id).await, events, "{after}");
            match newer {
                Some(lease) => assert!(store.finish(lease, Outcome::Canceled).await.unwrap().is_some()),
                None => drop(store.cancel(id).await.unwrap()),
            }
        }
    }
}

pub async fn a_finish_and_a_reap_never_both_succeed(place: &dyn Place) {
    let stores = place.open_many(2).await;
    let (store, other) = (stores[0].clone(), stores[1].clone());
    for _ in 0..20 {
        let (id, lease) = running(&*store).await;
        let finisher = store.clone();
        let finishing = tokio::spawn(async move { finisher.finish(lease, Outcome::Succeeded(vec![artifact()])).await });
        let queued = reap_all(&*other, 9).await.queued.len();
        let finished = finishing.await.unwrap().unwrap();
        let record = get(&*store, id).await;
        match finished {
            Some(_) => assert_eq!((queued, record.status), (0, Status::Succeeded { artifacts: vec![artifact()] })),
            None => {
                assert_eq!((queued, record.status), (1, Status::Queued));
                store.cancel(id).await.unwrap();
            }
        }
        history(&*store, id).await;
    }
}

pub async fn a_released_attempt_does_not_count(place: &dyn Place) {
    let store = place.open().await;
    let (id, lease) = running(&*store).await;
    accept(&*store, 1).await;
    let record = store.finish(lease, Outcome::Released).await.unwrap().unwrap();
    assert_eq!((&record.status, record.attempt, record.version), (&Status::Queued, 0, 3));
    assert_eq!(record.finished_at, None);
    let event = store.events(id, 2).await.unwrap().remove(0);
    assert_eq!(event.data, serde_json::json!({"id": id, "attempt": 0, "reason": "released"}));
    let (again, lease) = claim_one(&*store).await;
    assert_eq!((again.id, again.attempt, lease.fence()), (id, 1, 2), "the generation keeps its position");
}

pub async fn a_retry_waits_for_its_delay(place: &dyn Place) {
    let store = place.open().await;
    let (slow, lease) = running(&*store).await;
    let retry = |delay| Outcome::Retry { problem: problem(), delay };
    let record = store.finish(lease, retry(HOUR)).await.unwrap().unwrap();
    assert_eq!((&record.status, record.attempt), (&Status::Queued, 1));
    let event = store.events(slow, 2).await.unwrap().remove(0);
    assert_eq!(event.kind, EventKind::Retrying);
    assert_eq!(event.data, serde_json::json!({"id": slow, "attempt": 1, "reason": "out_of_memory"}));

    let (quick, lease) = running(&*store).await;
    store.finish(lease, retry(Duration::ZERO)).await.unwrap().unwrap();
    let (again, lease) = claim_one(&*store).await;
    assert_eq!((again.id, again.attempt), (quick, 2));
    store.finish(lease, retry(Duration::from_millis(30))).await.unwrap().unwrap();
    let again = loop {
        if let Some((record, _)) = claim(&*store, 1).await.pop() {
            break record;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!((again.id, again.attempt), (quick, 3));
    assert!(claim(&*store, 9).await.is_empty(), "the slow generation waits for an hour");
    assert_eq!(store.cancel(slow).await.unwrap().unwrap().status, Status::Canceled);
}

pub async fn a_canceled_run_is_not_queued_again(place: &dyn Place) {
    let store = place.open().await;
    for outcome in [Outcome::Released, Outcome::Retry { problem: problem(), delay: Duration::ZERO }] {
        let (id, lease) = running(&*store).await;
        store.cancel(id).await.unwrap();
        let record = store.finish(lease, outcome).await.unwrap().unwrap();
        assert_eq!(record.status, Status::Canceled);
        assert_eq!(history(&*store, id).await, [EventKind::Queued, EventKind::Started, EventKind::Canceled]);
    }
}

/// A cancel that finds the generation running always wins. A cancel that comes too late returns the final status.
pub async fn a_canceled_run_cannot_succeed(place: &dyn Place) {
    let stores = place.open_many(2).await;
    let (store, other) = (stores[0].clone(), stores[1].clone());
    let (id, lease) = running(&*store).await;
    store.cancel(id).await.unwrap();
    let record = store.finish(lease, Outcome::Succeeded(vec![artifact()])).await.unwrap().unwrap();
    assert_eq!((record.status, record.version), (Status::Canceled, 4));
    assert_eq!(history(&*store, id).await, [EventKind::Queued, EventKind::Started, EventKind::Canceled]);
    for _ in 0..20 {
        let (id, lease) = running(&*store).await;
        let canceling = tokio::spawn({
            let other = other.clone();
            async move { other.cancel(id).await.unwrap().unwrap().status }
        });
        let finished = store.finish(lease, Outcome::Succeeded(vec![artifact()])).await.unwrap().unwrap().status;
        let canceled = canceling.await.unwrap();
        match canceled {
            Status::Running => assert_eq!(finished, Status::Canceled),
            ended => assert_eq!(finished, ended),
        }
        assert_eq!(get(&*store, id).await.status, finished);
        history(&*store, id).await;
    }
    // A canceled run may still fail.
    let (id, lease) = running(&*store).await;
    store.cancel(id).await.unwrap();
    let record = store.finish(lease, Outcome::Failed(problem())).await.unwrap().unwrap();
    assert_eq!(record.status, Status::Failed { problem: problem() });
}

pub async fn a_queued_generation_is_canceled_at_once(place: &dyn Place) {
    let store = place.open().await;
    let id = accept(&*store, 1).await[0];
    let record = store.cancel(id).await.unwrap().unwrap();
    assert_eq!((&record.status, record.version, record.cancel_requested), (&Status::Canceled, 2, true));
    assert!(record.finished_at.is_some());
    assert_eq!(history(&*store, id).await, [EventKind::Queued, EventKind::Canceled]);
    assert!(claim(&*store, 1).await.is_empty());
}

pub async fn canceling_a_running_generation_marks_it_once(place: &dyn Place) {
    let store = place.open().await;
    let (id, lease) = running(&*store).await;
    let record = store.cancel(id).await.unwrap().unwrap();
    assert_eq!((&record.status, record.version, record.cancel_requested), (&Status::Running, 3, true));
    assert_eq!(seen(&store.cancel(id).await.unwrap().unwrap()), seen(&record));
    assert_eq!(history(&*store, id).await, [EventKind::Queued, EventKind::Started]);
    let record = store.finish(lease, Outcome::Canceled).await.unwrap().unwrap();
    assert_eq!((record.status, record.version), (Status::Canceled, 4));
}

pub async fn canceling_a_finished_generation_changes_nothing(place: &dyn Place) {
    let store = place.open().await;
    let (id, lease) = running(&*store).await;
    let record = store.finish(lease, Outcome::Succeeded(vec![artifact()])).await.unwrap().unwrap();
    assert_eq!(seen(&store.cancel(id).await.unwrap().unwrap()), seen(&record));
    assert_eq!(seen(&get(&*store, id).await), seen(&record));
}

pub async fn only_finished_generations_are_deleted(place: &dyn Place) {
    let store = place.open().await;
    let (id, lease) = running(&*store).await;
    let queued = accept(&*store, 1).await[0];
    for active in [id, queued] {
        assert!(matches!(store.delete(active, None).await, Err(StoreError::Refused(Refusal::NotFinished))));
        assert!(store.get(active).await.unwrap().is_some());
    }
    let record = store.finish(lease, Outcome::Succeeded(vec![artifact()])).await.unwrap().unwrap();
    assert_eq!(seen(&store.delete(id, None).await.unwrap().unwrap()), seen(&record));
    assert!(store.get(id).await.unwrap().is_none());
    assert_eq!(history(&*store, id).await, []);
    assert!(store.delete(id, None).await.unwrap().is_none());
    assert!(store.get(queued).await.unwrap().is_some());
}

pub async fn unknown_ids_return_nothing(place: &dyn Place) {
    let store = place.open().await;
    let id = GenerationId::new();
    assert!(store.get(id).await.unwrap().is_none());
    assert!(store.cancel(id).await.unwrap().is_none());
    assert!(store.delete(id, None).await.unwrap().is_none());
    assert!(store.events(id, 0).await.unwrap().is_empty());
}

pub async fn retention_starts_when_a_generation_ends(place: &dyn Place) {
    let store = place.open_with(HOUR).await;
    let (_, lease) = running(&*store).await;
    store.finish(lease, Outcome::Canceled).await.unwrap();
    assert!(store.overdue_for_deletion(9).await.unwrap().is_empty());
    drop(store);

    let store = place.open_with(Duration::ZERO).await;
    let ids = accept(&*store, 4).await;
    for id in &ids[..3] {
        store.cancel(*id).await.unwrap();
    }
    let overdue = store.overdue_for_deletion(2).await.unwrap();
    assert_eq!(overdue.iter().map(|record| record.id).collect::<Vec<_>>(), ids[..2]);
    for record in overdue {
        assert!(record.status.is_terminal());
        store.delete(record.id, None).await.unwrap();
    }
    let overdue = store.overdue_for_deletion(9).await.unwrap();
    assert_eq!(overdue.iter().map(|record| record.id).collect::<Vec<_>>(), ids[2..3]);
    drop(store);

    let store = place.open_with(Duration::MAX).await;
    let record = store.cancel(ids[3]).await.unwrap().unwrap();
    assert!(record.expires_at > record.finished_at);
}
