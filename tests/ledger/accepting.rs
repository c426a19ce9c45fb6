//! Into the queue.

use std::sync::Arc;

use futures::future::join_all;
use latentd::generation::{EventKind, Generation, GenerationId, SchedulerChoice, Status};
use latentd::ledger::{Counts, Store, StoreError};

use crate::place::{Place, accept, generation, get, history, seen};

pub async fn an_accepted_generation_is_queued_with_its_first_event(place: &dyn Place) {
    let store = place.open().await;
    let id = GenerationId::new();
    let record = store.accept(id, &generation(), 1).await.unwrap();
    assert_eq!((record.id, &record.status, record.attempt, record.version), (id, &Status::Queued, 0, 1));
    assert!(!record.cancel_requested);
    assert_eq!((record.started_at, record.finished_at, record.expires_at), (None, None, None));
    assert_eq!(seen(&get(&*store, id).await), seen(&record));
    let events = store.events(id, 0).await.unwrap();
    assert_eq!((events[0].seq, events[0].kind), (1, EventKind::Queued));
    assert_eq!(events[0].data, serde_json::json!({"id": id, "status": "queued"}));
    assert_eq!(events.len(), 1);
    store.ping().await.unwrap();
}

pub async fn the_queue_has_a_bound(place: &dyn Place) {
    let store = place.open().await;
    accept(&*store, 2).await;
    let refused = GenerationId::new();
    let error = store.accept(refused, &generation(), 2).await.unwrap_err();
    assert!(matches!(error, StoreError::QueueFull { queued: 2 }), "{error:?}");
    assert!(store.get(refused).await.unwrap().is_none());
    assert_eq!(history(&*store, refused).await, []);
    // The bound is on those that wait, not on those that run.
    store.claim(1).await.unwrap();
    store.accept(GenerationId::new(), &generation(), 2).await.unwrap();
}

pub async fn the_bound_holds_when_many_accept_at_once(place: &dyn Place) {
    let store: Arc<dyn Store> = Arc::from(place.open().await);
    let accepting = (0..30).map(|_| {
        let store = store.clone();
        tokio::spawn(async move { store.accept(GenerationId::new(), &generation(), 10).await.is_ok() })
    });
    let accepted = join_all(accepting).await.into_iter().filter(|ok| *ok.as_ref().unwrap()).count();
    assert_eq!(accepted, 10);
    assert_eq!(store.counts().await.unwrap(), Counts { queued: 10, running: 0 });
}

pub async fn an_id_is_accepted_once(place: &dyn Place) {
    let store = place.open().await;
    let id = accept(&*store, 1).await[0];
    let other = Generation { seed: 1, ..generation() };
    store.accept(id, &other, 10).await.unwrap_err();
    assert_eq!(get(&*store, id).await.generation, generation());
    assert_eq!(history(&*store, id).await, [EventKind::Queued]);
}

pub async fn every_field_of_a_request_comes_back(place: &dyn Place) {
    let store = place.open().await;
    let object = serde_json::json!({"_class_name": "DDIMScheduler", "beta_start": 0.00085, "nested": [1, null]});
    let serde_json::Value::Object(object) = object else { unreachable!() };
    let cases = [
        generation(),
        Generation { scheduler: SchedulerChoice::Object(object), ..generation() },
        Generation { prompt: String::new(), ..generation() },
        Generation { prompt: "狐".repeat(10_000), ..generation() },
    ];
    for generation in cases {
        let id = GenerationId::new();
        store.accept(id, &generation, 10).await.unwrap();
        assert_eq!(get(&*store, id).await.generation, generation);
    }
}

/// The future of an accept is dropped after more and more polls, so that it stops in every place where it can; only the
/// last one is polled to its end.
pub async fn a_dropped_accept_leaves_all_or_nothing(place: &dyn Place) {
    let store = place.open().await;
    const ROUNDS: i32 = 200;
    let (mut whole, mut nothing) = (0, 0);
    for round in 1..=ROUNDS {
        let id = GenerationId::new();
        let request = generation();
        let mut accepting = store.accept(id, &request, usize::MAX);
        let polls = if round == ROUNDS { usize::MAX } else { 1.06_f64.powi(round) as usize };
        for _ in 0..polls {
            if futures::poll!(accepting.as_mut()).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(accepting);
        // The next write goes through the same connection: it comes after whatever the dropped one left behind.
        let after = accept(&*store, 1).await[0];
        assert_eq!(history(&*store, after).await, [EventKind::Queued]);
        match store.get(id).await.unwrap() {
            Some(_) => {
                assert_eq!(history(&*store, id).await, [EventKind::Queued]);
                whole += 1;
            }
            None => {
                assert_eq!(history(&*store, id).await, []);
                nothing += 1;
            }
        }
    }
    assert_eq!(store.counts().await.unwrap().queued, ROUNDS as usize + whole);
    assert!(whole > 0 && nothing > 0, "{whole} were accepted, {nothing} were not");
}

pub async fn a_new_store_sees_everything(place: &dyn Place) {
    let store = place.open().await;
    let ids = accept(&*store, 3).await;
    let (_, lease) = store.claim(1).await.unwrap().pop().unwrap();
    store.finish(lease, latentd::ledger::Outcome::Canceled).await.unwrap();
    store.claim(1).await.unwrap();
    let mut before = Vec::new();
    for id in &ids {
        before.push((seen(&get(&*store, *id).await), history(&*store, *id).await));
    }
    drop(store);
    let store = place.open().await;
    for (id, before) in ids.iter().zip(before) {
        assert_eq!((seen(&get(&*store, *id).await), history(&*store, *id).await), before);
    }
    assert_eq!(store.counts().await.unwrap(), Counts { queued: 1, running: 1 });
}
