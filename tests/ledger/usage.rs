//! Tests of usage per day, and of the limits of keys, which hold for any number of processes.

use std::time::Duration;

use futures::future::join_all;
use latentd::generation::{Exceeded, Film, GenerationId, Job, KeyTerms, RateLimit, Sound, Work};
use latentd::ledger::{Acceptance, Accepted, KeyRecord, Outcome, Refusal, Store, StoreError, Usage};

use crate::place::{Place, accept_of, claim_one, film, generation, known_record, new_record, request, sound};

/// Creates a key of the tenant `alpha` with these terms.
async fn create(store: &dyn Store, id: &str, terms: KeyTerms) {
    let record = KeyRecord {
        id: id.to_owned(),
        sha256: [1; 32],
        tenant: "alpha".to_owned(),
        weight: 1.0,
        max_queued: None,
        max_running: None,
        terms,
    };
    store.create_key(&record).await.unwrap();
}

fn limited(requests: u32, window_s: u32) -> KeyTerms {
    KeyTerms { rate_limit: Some(RateLimit { requests, window_s }), ..KeyTerms::default() }
}

fn quota(cost: u64) -> KeyTerms {
    KeyTerms { max_cost_per_day: Some(cost), ..KeyTerms::default() }
}

/// Accepts a generation of the tenant `alpha` with this key.
async fn accept(store: &dyn Store, key: &str, cost: f64) -> Result<Accepted, StoreError> {
    let generation = generation();
    store.accept(&Acceptance { tenant: "alpha", api_key: Some(key), cost, ..request(&generation) }).await
}

fn refused(accepted: Result<Accepted, StoreError>) -> Refusal {
    match accepted {
        Err(StoreError::Refused(refusal)) => refusal,
        other => panic!("it is not refused: {other:?}"),
    }
}

/// The sum of all days, which are two if midnight passes during a test.
async fn total(store: &dyn Store, tenant: &str, key: &str) -> [Usage; 2] {
    let add = |a: Usage, b: Usage| Usage {
        generations: a.generations + b.generations,
        images: a.images + b.images,
        films: a.films + b.films,
        film_seconds: a.film_seconds + b.film_seconds,
        sounds: a.sounds + b.sounds,
        sound_seconds: a.sound_seconds + b.sound_seconds,
        cost: a.cost + b.cost,
    };
    let days = store.usage(tenant, key, 9).await.unwrap();
    assert!(days.len() <= 2 && days.iter().all(|day| day.day.len() == "2026-11-29".len()), "{days:?}");
    days.into_iter()
        .fold(Default::default(), |[tenant, key]: [Usage; 2], day| [add(tenant, day.tenant), add(key, day.key)])
}

fn usage(generations: u64, cost: f64) -> Usage {
    // Each generation of these tests has two pictures.
    Usage { generations, images: 2 * generations, cost, ..Usage::default() }
}

pub async fn accepted_generations_are_counted_for_their_tenant_and_key(place: &dyn Place) {
    let store = place.open().await;
    assert!(store.usage("alpha", "", 9).await.unwrap().is_empty());
    create(&*store, "one", KeyTerms::default()).await;
    create(&*store, "two", KeyTerms::default()).await;
    for (key, cost) in [("one", 1.5), ("two", 2.0), ("one", 0.25)] {
        new_record(accept(&*store, key, cost).await);
    }
    accept_of(&*store, "default", 8.0).await;
    accept_of(&*store, "alpha", 16.0).await;
    assert_eq!(total(&*store, "alpha", "one").await, [usage(4, 19.75), usage(2, 1.75)]);
    assert_eq!(total(&*store, "alpha", "two").await, [usage(4, 19.75), usage(1, 2.0)]);
    assert_eq!(total(&*store, "alpha", "none").await, [usage(4, 19.75), usage(0, 0.0)]);
    assert_eq!(total(&*store, "default", "").await, [usage(1, 8.0); 2]);
    // Later changes of a generation do not change the usage, and neither does the purge of old days.
    let (record, lease) = claim_one(&*store).await;
    store.finish(lease, Outcome::Canceled).await.unwrap();
    store.delete(record.id, None).await.unwrap();
    store.purge().await.unwrap();
    assert_eq!(total(&*store, "alpha", "one").await, [usage(4, 19.75), usage(2, 1.75)]);
}

pub async fn films_and_sounds_are_counted_with_their_seconds(place: &dyn Place) {
    let store = place.open().await;
    create(&*store, "one", KeyTerms::default()).await;
    let films = Job { work: Work::Film(Film { n: 3, frames: 7, ..film() }), ..generation() };
    let sounds = Job { work: Work::Sound(Sound { n: 2, seconds: 1.25, ..sound() }), ..generation() };
    for (job, key) in [(&films, Some("one")), (&films, None), (&sounds, Some("one"))] {
        new_record(store.accept(&Acceptance { tenant: "alpha", api_key: key, cost: 1.0, ..request(job) }).await);
    }
    let sounds = Usage { sounds: 2, sound_seconds: 2.5, ..Usage::default() };
    let tenant = Usage { generations: 3, films: 6, film_seconds: 6.0, cost: 3.0, ..sounds };
    let key = Usage { generations: 2, films: 3, film_seconds: 3.0, cost: 2.0, ..sounds };
    assert_eq!(total(&*store, "alpha", "one").await, [tenant, key]);
}

pub async fn a_rate_limit_holds_when_many_accept_at_once(place: &dyn Place) {
    let stores = place.open_many(2).await;
    create(&*stores[0], "one", limited(7, 3600)).await;
    create(&*stores[0], "other", limited(1, 3600)).await;
    let accepting = (0..20).map(|at| {
        let store = stores[at % stores.len()].clone();
        tokio::spawn(async move { accept(&*store, "one", 1.0).await })
    });
    let answers: Vec<_> = join_all(accepting).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 7);
    for answer in answers.into_iter().filter(Result::is_err) {
        let Refusal::LimitReached(Exceeded::Rate { limit, reset_s }) = refused(answer) else { panic!("by its rate") };
        assert_eq!((limit.requests, limit.window_s), (7, 3600));
        assert!((3000..=3600).contains(&reset_s), "{reset_s}");
    }
    let spent = stores[1].spent("one").await.unwrap().unwrap();
    assert_eq!((spent.window.used, spent.cost), (7, 7.0));
    assert_eq!(total(&*stores[1], "alpha", "one").await, [usage(7, 7.0); 2]);
    // Each key has its own window.
    new_record(accept(&*stores[1], "other", 1.0).await);
    refused(accept(&*stores[0], "other", 1.0).await);
}

pub async fn a_window_of_a_rate_limit_ends(place: &dyn Place) {
    let store = place.open().await;
    create(&*store, "one", limited(2, 1)).await;
    for _ in 0..2 {
        // A slow machine may need more than a window for the two, so only the first refusal counts.
        let refusal = loop {
            if let Err(StoreError::Refused(refusal)) = accept(&*store, "one", 1.0).await {
                break refusal;
            }
        };
        let Refusal::LimitReached(exceeded) = refusal else { panic!("{refusal:?}") };
        assert_eq!(exceeded.reset_s(), 1);
        tokio::time::sleep(Duration::from_secs(1)).await;
        new_record(accept(&*store, "one", 1.0).await);
    }
}

pub async fn a_quota_holds_when_many_accept_at_once(place: &dyn Place) {
    let stores = place.open_many(2).await;
    create(&*stores[0], "one", quota(10)).await;
    let accepting = (0..12).map(|at| {
        let store = stores[at % stores.len()].clone();
        tokio::spawn(async move { accept(&*store, "one", 1.5).await })
    });
    let answers: Vec<_> = join_all(accepting).await.into_iter().map(Result::unwrap).collect();
    let [_, used] = total(&*stores[1], "alpha", "one").await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 6);
    assert_eq!(used, usage(6, 9.0));
    for answer in answers.into_iter().filter(Result::is_err) {
        let Refusal::LimitReached(exceeded) = refused(answer) else { panic!("by its quota") };
        assert!(matches!(exceeded, Exceeded::Quota { cost: 1.5, spent: 9.0, quota: 10, .. }), "{exceeded:?}");
        assert!((1..=86_400).contains(&exceeded.reset_s()));
    }
    new_record(accept(&*stores[0], "one", 1.0).await);
    refused(accept(&*stores[1], "one", 0.001).await);
}

pub async fn what_is_not_accepted_uses_up_nothing(place: &dyn Place) {
    let store = place.open().await;
    create(&*store, "one", KeyTerms { max_cost_per_day: Some(100), ..limited(2, 3600) }).await;
    let generation = generation();
    let keyed = Acceptance { tenant: "alpha", api_key: Some("one"), ..request(&generation) };
    let full = Acceptance { max_queued: 0, ..keyed.clone() };
    assert!(matches!(refused(store.accept(&full).await), Refusal::QueueFull { queued: 0 }));
    let dear = Acceptance { cost: 101.0, ..keyed.clone() };
    assert!(matches!(refused(store.accept(&dear).await), Refusal::LimitReached(Exceeded::Quota { .. })));
    assert_eq!(store.spent("one").await.unwrap().unwrap().window.used, 0);
    new_record(store.accept(&keyed).await);
    for _ in 0..3 {
        known_record(store.accept(&keyed).await);
    }
    assert_eq!(total(&*store, "alpha", "one").await, [usage(1, 1.0); 2]);
    let second = Acceptance { id: GenerationId::new(), ..keyed.clone() };
    new_record(store.accept(&second).await);
    known_record(store.accept(&second).await);
    refused(store.accept(&Acceptance { id: GenerationId::new(), ..keyed }).await);
}

pub async fn a_key_that_has_ended_creates_nothing(place: &dyn Place) {
    let store = place.open().await;
    create(&*store, "one", KeyTerms::default()).await;
    create(&*store, "brief", KeyTerms { expires_in_s: Some(0), ..KeyTerms::default() }).await;
    new_record(accept(&*store, "one", 1.0).await);
    store.revoke_key("one").await.unwrap().unwrap();
    for key in ["one", "brief", "none"] {
        assert_eq!(refused(accept(&*store, key, 1.0).await), Refusal::KeyEnded, "{key}");
        assert_eq!(store.spent(key).await.unwrap(), None, "{key}");
    }
    assert_eq!(total(&*store, "alpha", "one").await, [usage(1, 1.0); 2]);
}
