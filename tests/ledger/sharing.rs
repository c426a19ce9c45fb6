//! Tests of the queue that tenants share: bounds, shares and priorities.

use std::{collections::HashMap, time::Duration};

use futures::future::join_all;
use latentd::generation::{GenerationId, Job, Priority, Status};
use latentd::ledger::{Acceptance, Claimant, Counts, Crew, ListQuery, Outcome, Refusal, Store, StoreError};

use crate::place::{
    HOUR, Place, accept_of, accept_one, claim, claim_one, generation, get, ids, new_record, overdue, problem, request,
    tenant, worker,
};

pub async fn each_tenant_has_its_own_queue_bound(place: &dyn Place) {
    let store = place.open().await;
    tenant(&*store, "small", 1.0, Some(2), None).await;
    let generation = generation();
    let small = || Acceptance { tenant: "small", max_queued: 4, ..request(&generation) };
    new_record(store.accept(&small()).await);
    new_record(store.accept(&small()).await);
    let refused = small();
    let error = store.accept(&refused).await.unwrap_err();
    assert!(matches!(error, StoreError::Refused(Refusal::TenantQueueFull { queued: 2 })), "{error:?}");
    assert!(store.get(refused.id).await.unwrap().is_none());
    accept_of(&*store, "default", 1.0).await;
    // The bound applies to queued generations, not to running ones.
    claim_one(&*store).await;
    new_record(store.accept(&small()).await);
    // The bound of the whole queue is checked first.
    accept_of(&*store, "default", 1.0).await;
    assert!(matches!(store.accept(&small()).await, Err(StoreError::Refused(Refusal::QueueFull { queued: 4 }))));
}

pub async fn a_tenants_queue_bound_holds_when_many_accept_at_once(place: &dyn Place) {
    let stores = place.open_many(5).await;
    tenant(&*stores[0], "small", 1.0, Some(7), None).await;
    let accepting = (0..20).map(|at| {
        let store = stores[at % stores.len()].clone();
        tokio::spawn(async move {
            let generation = generation();
            store.accept(&Acceptance { tenant: "small", ..request(&generation) }).await.is_ok()
        })
    });
    let accepted = join_all(accepting).await.into_iter().filter(|ok| *ok.as_ref().unwrap()).count();
    assert_eq!(accepted, 7);
    assert_eq!(stores[0].counts().await.unwrap(), Counts { queued: 7, running: 0 });
}

pub async fn a_tenant_runs_at_most_its_maximum(place: &dyn Place) {
    let store = place.open().await;
    tenant(&*store, "small", 1.0, None, Some(2)).await;
    tenant(&*store, "none", 1.0, None, Some(0)).await;
    let mut small = Vec::new();
    let mut others = Vec::new();
    for _ in 0..4 {
        small.push(accept_of(&*store, "small", 1.0).await);
        accept_of(&*store, "none", 1.0).await;
        others.push(accept_of(&*store, "default", 1.0).await);
    }
    let mut claimed = claim(&*store, 5).await;
    assert_eq!(ids(&claimed), [small[0], others[0], small[1], others[1], others[2]]);
    assert_eq!(ids(&claim(&*store, 9).await), [others[3]]);
    // A finished run makes room, also for another worker.
    store.finish(claimed.remove(0).1, Outcome::Released).await.unwrap().unwrap();
    assert_eq!(ids(&store.claim(&worker("two"), 9, false).await.unwrap()), [small[0]]);
    store.finish(claimed.remove(1).1, Outcome::Failed(problem())).await.unwrap().unwrap();
    assert_eq!(ids(&claim(&*store, 9).await), [small[2]]);
}

pub async fn concurrent_claims_respect_a_tenants_maximum(place: &dyn Place) {
    let stores = place.open_many(8).await;
    tenant(&*stores[0], "small", 1.0, None, Some(3)).await;
    for _ in 0..20 {
        accept_of(&*stores[0], "small", 1.0).await;
        accept_of(&*stores[0], "default", 1.0).await;
    }
    for _ in 0..4 {
        let claiming = stores.iter().cloned().enumerate().map(|(at, store)| {
            tokio::spawn(async move { store.claim(&worker(&format!("worker {at}")), 4, true).await.unwrap() })
        });
        let claimed: Vec<_> = join_all(claiming).await.into_iter().flat_map(|claimed| claimed.unwrap()).collect();
        let running = running_of(&*stores[0], "small").await;
        assert!(running <= 3, "{running} run");
        for (record, lease) in claimed.into_iter().filter(|(record, _)| record.tenant == "small") {
            let outcome = Outcome::Succeeded(Vec::new());
            assert!(stores[0].finish(lease, outcome).await.unwrap().is_some(), "{}", record.id);
        }
    }
    // Concurrent claims may skip locked rows. A later claim takes them.
    assert_eq!(claim(&*stores[0], 99).await.iter().filter(|(record, _)| record.tenant == "small").count(), 3);
    assert_eq!(running_of(&*stores[0], "default").await, 20);
}

async fn running_of(store: &dyn Store, tenant: &str) -> usize {
    let (status, tenant) = (Some("running".to_owned()), Some(tenant.to_owned()));
    let page = store.list(&ListQuery { limit: 100, status, tenant, ..ListQuery::default() }).await.unwrap();
    page.records.len()
}

/// Claims and finishes `count` generations one by one. Returns the sum of their costs for each tenant.
async fn claimed_cost(store: &dyn Store, costs: &HashMap<GenerationId, f64>, count: usize) -> HashMap<String, f64> {
    let mut claimed = HashMap::new();
    for _ in 0..count {
        let (record, lease) = claim_one(store).await;
        *claimed.entry(record.tenant).or_default() += costs.get(&record.id).copied().unwrap_or(1.0);
        store.finish(lease, Outcome::Succeeded(Vec::new())).await.unwrap().unwrap();
    }
    claimed
}

pub async fn tenants_share_the_queue_by_weight(place: &dyn Place) {
    let store = place.open().await;
    let tenants = [("one", 1.0), ("two", 2.0), ("four", 4.0)];
    let mut costs = HashMap::new();
    for (name, weight) in tenants {
        tenant(&*store, name, weight, None, None).await;
        for at in 0..160 {
            // Each tenant has generations of other costs.
            let cost = 1.0 + f64::from((at * 7) % 5) * 0.5 / weight.sqrt();
            costs.insert(accept_of(&*store, name, cost).await, cost);
        }
    }
    let claimed = claimed_cost(&*store, &costs, 240).await;
    let (unit, total) = (claimed["one"], claimed.values().sum::<f64>());
    for (name, weight) in tenants {
        let (share, due) = (claimed[name] / total, weight / 7.0);
        assert!((share / due - 1.0).abs() < 0.1, "{name} got {share}, not {due}: {claimed:?}");
        assert!((claimed[name] / unit / weight - 1.0).abs() < 0.1, "{name}: {claimed:?}");
    }
}

pub async fn new_and_returning_tenants_have_no_credit(place: &dyn Place) {
    let store = place.open().await;
    let nothing = HashMap::new();
    accept_of(&*store, "idle", 1.0).await;
    for _ in 0..60 {
        accept_of(&*store, "busy", 1.0).await;
    }
    let claimed = claimed_cost(&*store, &nothing, 41).await;
    assert_eq!(claimed, HashMap::from([("idle".to_owned(), 1.0), ("busy".to_owned(), 40.0)]));
    // 20 generations of the busy tenant wait. The others get no credit for the time without requests.
    for _ in 0..20 {
        accept_of(&*store, "idle", 1.0).await;
        accept_of(&*store, "new", 1.0).await;
    }
    let claimed = claimed_cost(&*store, &nothing, 30).await;
    for (name, cost) in claimed {
        assert!((9.0..=11.0).contains(&cost), "{name} got {cost}");
    }
}

pub async fn one_request_does_not_wait_behind_all_requests_of_a_busy_tenant(place: &dyn Place) {
    let store = place.open().await;
    for _ in 0..50 {
        accept_of(&*store, "greedy", 1.0).await;
    }
    let modest = accept_of(&*store, "modest", 1.0).await;
    let position = store.place(modest, &Crew::default()).await.unwrap().map(|place| place.position).unwrap();
    assert!(position <= 1, "{position}");
}

pub async fn a_new_weight_applies_to_later_generations(place: &dyn Place) {
    let store = place.open().await;
    let key = |id: &str, weight| latentd::ledger::KeyRecord {
        id: id.to_owned(),
        sha256: [1; 32],
        tenant: "a".to_owned(),
        weight,
        max_queued: None,
        max_running: None,
        terms: Default::default(),
    };
    store.create_key(&key("first", 1.0)).await.unwrap();
    let before = accept_of(&*store, "a", 4.0).await;
    store.create_key(&key("second", 4.0)).await.unwrap();
    let after = accept_of(&*store, "a", 4.0).await;
    let between = accept_of(&*store, "b", 4.5).await;
    // The virtual finish times of the first tenant are 4 / 1 and 4 + 4 / 4; the virtual finish time of the other tenant
    // is 4.5.
    assert_eq!(ids(&claim(&*store, 9).await), [before, between, after]);
}

/// A job with this priority.
fn of(priority: Priority) -> Job {
    Job { priority, ..generation() }
}

pub async fn priority_comes_before_shares_and_age(place: &dyn Place) {
    let store = place.open().await;
    let low = accept_one(&*store, &of(Priority::Low)).await;
    let normal = accept_one(&*store, &of(Priority::Normal)).await;
    let high = accept_one(&*store, &of(Priority::High)).await;
    // The other tenant has used nothing of its share, but shares only count within one priority.
    let fresh = of(Priority::Low);
    let other = new_record(store.accept(&Acceptance { tenant: "b", cost: 0.5, ..request(&fresh) }).await).id;
    assert_eq!(ids(&claim(&*store, 9).await), [high, normal, other, low]);
}

pub async fn waiting_raises_the_priority(place: &dyn Place) {
    let store = place.open().await;
    let low = accept_one(&*store, &of(Priority::Low)).await;
    let behind = accept_one(&*store, &of(Priority::Normal)).await;
    store.age(HOUR).await.unwrap();
    assert_eq!(
        store.place(low, &Crew::default()).await.unwrap().map(|place| place.position),
        Some(1),
        "nobody has waited for an hour"
    );
    store.cancel(behind).await.unwrap();

    let before = get(&*store, low).await;
    store.age(Duration::ZERO).await.unwrap();
    let normal = accept_one(&*store, &of(Priority::Normal)).await;
    assert_eq!(
        (
            store.place(low, &Crew::default()).await.unwrap().map(|place| place.position),
            store.place(normal, &Crew::default()).await.unwrap().map(|place| place.position)
        ),
        (Some(0), Some(1))
    );
    let high = accept_one(&*store, &of(Priority::High)).await;
    assert_eq!(store.place(high, &Crew::default()).await.unwrap().map(|place| place.position), Some(0));
    // The next hour starts when the priority was last raised.
    store.age(HOUR).await.unwrap();
    assert_eq!(store.place(low, &Crew::default()).await.unwrap().map(|place| place.position), Some(1));
    // Clients do not see the raised priority.
    assert_eq!(get(&*store, low).await.version, before.version);
    assert_eq!(get(&*store, low).await.job.priority, Priority::Low);
}

pub async fn waiting_never_raises_above_the_highest_priority(place: &dyn Place) {
    let store = place.open().await;
    let old = accept_one(&*store, &of(Priority::Low)).await;
    for _ in 0..9 {
        store.age(Duration::ZERO).await.unwrap();
    }
    let urgent = of(Priority::High);
    let cheap = Acceptance { tenant: "b", cost: 0.5, ..request(&urgent) };
    let cheap = new_record(store.accept(&cheap).await).id;
    let high = accept_one(&*store, &urgent).await;
    assert_eq!(ids(&claim(&*store, 9).await), [cheap, old, high]);
}

pub async fn positions_match_the_order_of_claims(place: &dyn Place) {
    let store = place.open().await;
    tenant(&*store, "two", 2.0, None, None).await;
    let priorities = [Priority::Normal, Priority::Low, Priority::High, Priority::Normal];
    let mut waiting = Vec::new();
    for at in 0..40_usize {
        let generation = of(priorities[at * 5 % 4]);
        let tenant = ["default", "two", "three"][at * 7 % 3];
        let cost = 1.0 + (at % 3) as f64;
        waiting.push(new_record(store.accept(&Acceptance { tenant, cost, ..request(&generation) }).await).id);
        if at == 20 {
            store.age(Duration::ZERO).await.unwrap();
        }
    }
    while !waiting.is_empty() {
        let mut places = Vec::new();
        for id in &waiting {
            places.push((store.place(*id, &Crew::default()).await.unwrap().map(|place| place.position).unwrap(), *id));
        }
        places.sort();
        assert!(places.iter().enumerate().all(|(at, (position, _))| at == *position), "{places:?}");
        let claimed = ids(&claim(&*store, 3).await);
        assert_eq!(claimed, places.iter().take(3).map(|(_, id)| *id).collect::<Vec<_>>());
        waiting.retain(|id| !claimed.contains(id));
    }
}

pub async fn a_worker_claims_only_generations_of_its_models(place: &dyn Place) {
    let store = place.open().await;
    let of_model = |model: &str| Job { model: model.to_owned(), ..generation() };
    let large = accept_one(&*store, &of_model("large")).await;
    let quoted = accept_one(&*store, &of_model("it's \"odd\"")).await;
    let tiny = accept_one(&*store, &of_model("tiny")).await;
    let last = accept_one(&*store, &of_model("large")).await;
    let with =
        |models: &[&str]| Claimant { models: models.iter().map(|&model| model.into()).collect(), ..worker("one") };
    assert!(store.claim(&with(&[]), 9, true).await.unwrap().is_empty());
    assert!(store.claim(&with(&["lar", "large "]), 9, true).await.unwrap().is_empty());
    assert_eq!(ids(&store.claim(&with(&["tiny"]), 9, true).await.unwrap()), [tiny]);
    let claimed = store.claim(&with(&["it's \"odd\"", "large"]), 2, true).await.unwrap();
    assert_eq!(ids(&claimed), [large, quoted]);
    assert_eq!(store.place(last, &Crew::default()).await.unwrap().map(|place| place.position), Some(0));
}

pub async fn delayed_and_overdue_generations_block_no_others(place: &dyn Place) {
    let store = place.open().await;
    let late = accept_one(&*store, &overdue()).await;
    let delayed = accept_one(&*store, &generation()).await;
    let (record, lease) = claim_one(&*store).await;
    assert_eq!(record.id, delayed);
    store.finish(lease, Outcome::Retry { problem: problem(), delay: HOUR }).await.unwrap().unwrap();
    let next = accept_one(&*store, &generation()).await;
    assert_eq!(ids(&claim(&*store, 9).await), [next]);
    for id in [late, delayed] {
        assert_eq!(get(&*store, id).await.status, Status::Queued);
    }
}
