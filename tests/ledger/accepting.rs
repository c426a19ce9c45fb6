//! Tests of accepting generations into the queue.

use futures::future::join_all;
use latentd::generation::{Draw, EventKind, GenerationId, SchedulerChoice, Status};
use latentd::ledger::{Acceptance, Accepted, Counts, Refusal, StoreError};

use crate::place::{
    Place, accept, accept_one, claim_one, draw, generation, get, history, job, new_record, request, seen,
};

pub async fn an_accepted_generation_is_queued_with_its_first_event(place: &dyn Place) {
    let store = place.open().await;
    let id = GenerationId::new();
    let generation = generation();
    let record = new_record(store.accept(&Acceptance { id, max_queued: 1, ..request(&generation) }).await);
    assert_eq!((record.id, &record.status, record.attempt, record.version), (id, &Status::Queued, 0, 1));
    assert_eq!((record.tenant.as_str(), record.crash_count, record.dead), ("default", 0, false));
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
    let generation = generation();
    let bounded = || Acceptance { max_queued: 2, ..request(&generation) };
    let refused = bounded();
    let error = store.accept(&refused).await.unwrap_err();
    assert!(matches!(error, StoreError::Refused(Refusal::QueueFull { queued: 2 })), "{error:?}");
    assert!(store.get(refused.id).await.unwrap().is_none());
    assert_eq!(history(&*store, refused.id).await, []);
    // The bound applies to queued generations, not to running ones.
    claim_one(&*store).await;
    new_record(store.accept(&bounded()).await);
}

pub async fn the_bound_holds_when_many_accept_at_once(place: &dyn Place) {
    let stores = place.open_many(5).await;
    let accepting = (0..30).map(|at| {
        let store = stores[at % stores.len()].clone();
        tokio::spawn(async move {
            let generation = generation();
            store.accept(&Acceptance { max_queued: 10, ..request(&generation) }).await.is_ok()
        })
    });
    let accepted = join_all(accepting).await.into_iter().filter(|ok| *ok.as_ref().unwrap()).count();
    assert_eq!(accepted, 10);
    assert_eq!(stores[0].counts().await.unwrap(), Counts { queued: 10, running: 0 });
}

pub async fn an_id_is_accepted_once(place: &dyn Place) {
    let store = place.open().await;
    let id = accept(&*store, 1).await[0];
    let other = job(Draw { seed: 1, ..draw() });
    let error = store.accept(&Acceptance { id, fingerprint: [8; 32], ..request(&other) }).await.unwrap_err();
    assert!(matches!(error, StoreError::Refused(Refusal::IdTaken)), "{error:?}");
    assert_eq!(get(&*store, id).await.job, generation());
    assert_eq!(history(&*store, id).await, [EventKind::Queued]);
}

pub async fn every_field_of_a_request_is_stored(place: &dyn Place) {
    let store = place.open().await;
    let object = serde_json::json!({"_class_name": "DDIMScheduler", "beta_start": 0.00085, "nested": [1, null]});
    let serde_json::Value::Object(object) = object else { unreachable!() };
    let cases = [
        generation(),
        job(Draw { scheduler: SchedulerChoice::Object(object), ..draw() }),
        job(Draw { prompt: String::new(), ..draw() }),
        job(Draw { prompt: "狐".repeat(10_000), ..draw() }),
    ];
    for generation in cases {
        let id = accept_one(&*store, &generation).await;
        assert_eq!(get(&*store, id).await.job, generation);
    }
}

/// Each round drops the future of an accept after more polls, so accepts stop at all their awaits. Only the last round
/// polls the future to its end. The client, which got no answer, repeats its request.
pub async fn a_dropped_accept_stores_everything_or_nothing(place: &dyn Place) {
    let store = place.open().await;
    const ROUNDS: i32 = 200;
    let (mut whole, mut nothing) = (0, 0);
    for round in 1..=ROUNDS {
        let generation = generation();
        let request = request(&generation);
        let mut accepting = store.accept(&request);
        let polls = if round == ROUNDS { usize::MAX } else { 1.06_f64.powi(round) as usize };
        for _ in 0..polls {
            if futures::poll!(accepting.as_mut()).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(accepting);
        match store.accept(&request).await.unwrap() {
            Accepted::Again(_) => whole += 1,
            Accepted::New(_) => nothing += 1,
        }
        assert_eq!(history(&*store, request.id).await, [EventKind::Queued]);
    }
    assert_eq!(store.counts().await.unwrap().queued, ROUNDS as usize);
    assert!(whole > 0 && nothing > 0, "{whole} were accepted, {nothing} were not");
}

pub async fn a_reopened_store_reads_everything(place: &dyn Place) {
    let store = place.open().await;
    let ids = accept(&*store, 3).await;
    let (_, lease) = claim_one(&*store).await;
    store.finish(lease, latentd::ledger::Outcome::Canceled).await.unwrap();
    claim_one(&*store).await;
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
