//! Tests of the list of workers: heartbeats, draining, leaving, and the workload.

use std::time::Duration;

use latentd::generation::{GenerationId, Job, Priority};
use latentd::ledger::{Acceptance, Crew, Heartbeat, Newcomer, Outcome, QueuePosition, Workload};

use crate::place::{
    HOUR, LAST, Place, accept_of, claim, claim_one, crew, generation, new_record, overdue, problem, request,
};

fn beat(worker: &str) -> Heartbeat {
    Heartbeat {
        worker: worker.to_owned(),
        version: "1.2.3".to_owned(),
        models: vec!["tiny".to_owned(), "it's \"odd\"".to_owned()],
        running: 3,
        speed: Some(2.5),
    }
}

fn seen(beat: &Heartbeat) -> String {
    format!("{beat:?}")
}

pub async fn a_worker_with_a_heartbeat_is_listed(place: &dyn Place) {
    let stores = place.open_many(2).await;
    let (store, other) = (&stores[0], &stores[1]);
    assert!(store.workers().await.unwrap().is_empty());
    assert!(!store.heartbeat(&beat("zoe")).await.unwrap());
    let young = Heartbeat { speed: None, models: Vec::new(), running: 0, ..beat("ann") };
    other.heartbeat(&young).await.unwrap();
    let workers = other.workers().await.unwrap();
    assert_eq!(
        workers.iter().map(|worker| seen(&worker.heartbeat)).collect::<Vec<_>>(),
        [seen(&young), seen(&beat("zoe"))]
    );
    assert!(workers.iter().all(|worker| !worker.draining && worker.beaten_at == worker.started_at));

    let later = Heartbeat { running: 1, speed: Some(4.0), models: vec!["large".to_owned()], ..beat("ann") };
    tokio::time::sleep(Duration::from_millis(2)).await;
    store.heartbeat(&later).await.unwrap();
    let ann = store.workers().await.unwrap().remove(0);
    assert_eq!((seen(&ann.heartbeat), ann.started_at), (seen(&later), workers[0].started_at));
    assert!(ann.beaten_at > ann.started_at);
}

pub async fn a_heartbeat_tells_a_worker_to_drain(place: &dyn Place) {
    let store = place.open().await;
    assert!(!store.drain_worker("zoe", true).await.unwrap());
    store.heartbeat(&beat("zoe")).await.unwrap();
    store.heartbeat(&beat("ann")).await.unwrap();
    assert!(!store.drain_worker("zo", true).await.unwrap());
    assert!(store.drain_worker("zoe", true).await.unwrap());
    for _ in 0..2 {
        assert!(store.heartbeat(&beat("zoe")).await.unwrap());
        assert!(!store.heartbeat(&beat("ann")).await.unwrap());
    }
    let draining: Vec<bool> = store.workers().await.unwrap().iter().map(|worker| worker.draining).collect();
    assert_eq!(draining, [false, true]);
    assert!(store.drain_worker("zoe", false).await.unwrap());
    assert!(!store.heartbeat(&beat("zoe")).await.unwrap(), "the worker may claim again");
}

pub async fn a_worker_that_leaves_is_not_listed(place: &dyn Place) {
    let store = place.open().await;
    store.heartbeat(&beat("zoe")).await.unwrap();
    store.heartbeat(&beat("ann")).await.unwrap();
    store.drain_worker("zoe", true).await.unwrap();
    store.leave("zoe").await.unwrap();
    store.leave("nobody").await.unwrap();
    let workers = store.workers().await.unwrap();
    assert_eq!(workers.iter().map(|worker| worker.heartbeat.worker.as_str()).collect::<Vec<_>>(), ["ann"]);
    assert!(!store.drain_worker("zoe", true).await.unwrap());
    // A purge keeps workers that are alive.
    store.purge().await.unwrap();
    assert_eq!(store.workers().await.unwrap().len(), 1);
}

pub async fn the_workload_counts_queued_and_running_generations(place: &dyn Place) {
    let store = place.open().await;
    assert_eq!(store.workload(&LAST, &crew(HOUR, 0)).await.unwrap(), Workload { cost: 0.0, speed: 0.0 });
    let (generation, late) = (generation(), overdue());
    for cost in [0.25, 1.5, 4.0] {
        new_record(store.accept(&Acceptance { cost, ..request(&generation) }).await);
    }
    new_record(store.accept(&Acceptance { cost: 8.0, ..request(&late) }).await);
    let canceled = GenerationId::new();
    new_record(store.accept(&Acceptance { id: canceled, cost: 16.0, ..request(&generation) }).await);
    assert_eq!(store.workload(&LAST, &crew(HOUR, 0)).await.unwrap().cost, 29.75);
    store.cancel(canceled).await.unwrap();
    store.expire_overdue().await.unwrap();
    let (_, lease) = claim_one(&*store).await;
    assert_eq!(store.workload(&LAST, &crew(HOUR, 0)).await.unwrap().cost, 5.75);
    store.finish(lease, Outcome::Retry { problem: problem(), delay: HOUR }).await.unwrap().unwrap();
    assert_eq!(store.workload(&LAST, &crew(HOUR, 0)).await.unwrap().cost, 5.75);
    for (_, lease) in claim(&*store, 9).await {
        store.finish(lease, Outcome::Succeeded(Vec::new())).await.unwrap().unwrap();
    }
    assert_eq!(store.workload(&LAST, &crew(HOUR, 0)).await.unwrap().cost, 0.25);

    for (worker, speed) in [("zoe", Some(2.5)), ("ann", None), ("bob", Some(0.25))] {
        store.heartbeat(&Heartbeat { speed, ..beat(worker) }).await.unwrap();
    }
    assert_eq!(store.workload(&LAST, &crew(HOUR, 0)).await.unwrap().speed, 2.75);
    store.leave("zoe").await.unwrap();
    assert_eq!(store.workload(&LAST, &crew(HOUR, 0)).await.unwrap().speed, 0.25);
    assert_eq!(store.workload(&LAST, &crew(Duration::ZERO, 0)).await.unwrap().speed, 0.0, "no heartbeat is so recent");

    // Two workers are alive. With two slots in total, the three cheapest of 0.25, 1, 2 and 4 must end to free a slot.
    for cost in [4.0, 1.0, 2.0] {
        new_record(store.accept(&Acceptance { cost, ..request(&generation) }).await);
    }
    for (slots, cost) in [(1, 0.25 + 1.0 + 2.0 + 2.0), (2, 0.25 + 3.0 * 0.25), (3, 0.0), (1000, 0.0)] {
        assert_eq!(store.workload(&LAST, &crew(HOUR, slots)).await.unwrap().cost, cost, "{slots} slots per worker");
    }
}

pub async fn the_workload_is_what_ends_before_the_newcomer_begins(place: &dyn Place) {
    let store = place.open().await;
    store.heartbeat(&Heartbeat { speed: Some(1.0), ..beat("zoe") }).await.unwrap();
    let low = Job { priority: Priority::Low, ..generation() };
    let accept = async |job: &Job, cost| new_record(store.accept(&Acceptance { cost, ..request(job) }).await).id;
    let running = accept(&low, 8.0).await;
    claim_one(&*store).await;
    for _ in 0..3 {
        accept(&low, 100.0).await;
    }
    let done = [(running, 0.5), (GenerationId::new(), 0.9)];
    let crew = Crew { lately: HOUR, slots: 1, done: &done };
    let newcomer = |tenant, priority, cost| Newcomer { tenant, priority, cost };
    for (newcomer, cost) in [
        (newcomer("default", Priority::High, 9.0), 4.0),
        (newcomer("default", Priority::Normal, 9.0), 4.0),
        (newcomer("default", Priority::Low, 9.0), 304.0),
        // Shares of tenants: the others have the virtual finish times 108, 208 and 308.
        (newcomer("other", Priority::Low, 99.0), 4.0),
        (newcomer("other", Priority::Low, 150.0), 104.0),
    ] {
        assert_eq!(store.workload(&newcomer, &crew).await.unwrap(), Workload { cost, speed: 1.0 }, "{newcomer:?}");
    }
    // The estimate for a generation in the queue equals the estimate before it was accepted.
    let normal = accept(&generation(), 9.0).await;
    assert_eq!(store.place(normal, &crew).await.unwrap(), Some(QueuePosition { position: 0, cost: 4.0 }));
    let other = accept_of(&*store, "other", 1.0).await;
    assert_eq!(store.place(other, &crew).await.unwrap(), Some(QueuePosition { position: 0, cost: 4.0 }));
    assert_eq!(store.place(normal, &crew).await.unwrap(), Some(QueuePosition { position: 1, cost: 5.0 }));
    assert_eq!(store.place(running, &crew).await.unwrap(), None);
}
