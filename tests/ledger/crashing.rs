//! Tests of generations whose worker crashed: running alone, giving up, reviving and condemning.

use std::time::Duration;

use latentd::crash::Attempt;
use latentd::generation::{EventKind, GenerationId, Job, Priority, Status};
use latentd::ledger::{Lease, ListQuery, Outcome, Reaping, Store};

use crate::place::{
    ALONE_FROM, HOUR, Place, accept, accept_one, artifact, claim, claim_one, generation, get, history, ids,
    late_worker, problem, reap_all, reap_late, running, seen, worker,
};

/// Accepts a generation and lets it crash `crashes` times.
async fn crashed(store: &dyn Store, crashes: u32) -> GenerationId {
    let id = accept(store, 1).await[0];
    for _ in 0..crashes {
        assert_eq!(ids(&store.claim(&late_worker("victim"), 1, true).await.unwrap()), [id]);
        assert_eq!(reap_late(store, u32::MAX).await.queued, [id]);
    }
    id
}

pub async fn a_generation_runs_with_others_after_one_crash(place: &dyn Place) {
    let store = place.open().await;
    let accepted = accept(&*store, 3).await;
    assert_eq!(ids(&store.claim(&late_worker("victim"), 9, true).await.unwrap()), accepted);
    reap_late(&*store, 3).await;
    let other = accept_one(&*store, &Job { priority: Priority::High, ..generation() }).await;
    assert_eq!(ids(&store.claim(&worker("one"), 1, true).await.unwrap()), [other]);
    assert_eq!(ids(&store.claim(&worker("one"), 2, false).await.unwrap()), accepted[..2]);
    let later = accept(&*store, 1).await[0];
    assert_eq!(ids(&store.claim(&worker("one"), 9, false).await.unwrap()), [accepted[2], later]);
}

#[test]
fn a_generation_always_runs_alone_before_it_is_given_up() {
    for (max_crashes, alone_from) in [(1, 1), (2, 1), (3, 2), (4, 2), (1000, 2)] {
        assert_eq!(Reaping::alone_from(max_crashes), alone_from);
    }
}

pub async fn a_crashed_generation_runs_alone(place: &dyn Place) {
    let store = place.open().await;
    let suspect = crashed(&*store, ALONE_FROM).await;
    let others = accept(&*store, 2).await;
    // A busy worker claims nothing until it is idle.
    assert!(store.claim(&worker("busy"), 9, false).await.unwrap().is_empty());
    let mut claimed = store.claim(&worker("idle"), 9, true).await.unwrap();
    assert_eq!(ids(&claimed), [suspect]);
    assert_eq!((claimed[0].0.crash_count, claimed[0].0.attempt), (2, 3));
    for idle in [false, true] {
        assert!(store.claim(&worker("idle"), 9, idle).await.unwrap().is_empty(), "nothing runs at the same time");
    }
    // A busy worker claims the rest once the crashed generation is running.
    assert_eq!(ids(&store.claim(&worker("busy"), 9, false).await.unwrap()), others);
    store.finish(claimed.remove(0).1, Outcome::Succeeded(vec![artifact()])).await.unwrap().unwrap();
    let next = accept(&*store, 1).await[0];
    assert_eq!(ids(&store.claim(&worker("idle"), 9, false).await.unwrap()), [next]);
}

pub async fn a_claim_stops_before_a_crashed_generation(place: &dyn Place) {
    let store = place.open().await;
    let suspect = crashed(&*store, ALONE_FROM).await;
    let behind = accept(&*store, 1).await[0];
    let before = accept_one(&*store, &Job { priority: Priority::High, ..generation() }).await;
    assert_eq!(ids(&store.claim(&worker("one"), 9, true).await.unwrap()), [before]);
    assert!(store.claim(&worker("one"), 9, false).await.unwrap().is_empty());
    assert_eq!(ids(&store.claim(&worker("two"), 1, true).await.unwrap()), [suspect]);
    assert_eq!(ids(&store.claim(&worker("one"), 9, false).await.unwrap()), [behind]);
}

pub async fn a_crashed_generation_of_another_model_blocks_no_worker(place: &dyn Place) {
    let store = place.open().await;
    let other_model = Job { model: "large".to_owned(), ..generation() };
    let large = accept_one(&*store, &other_model).await;
    let claimant = latentd::ledger::Claimant { models: vec!["large".to_owned()], ..late_worker("large") };
    for _ in 0..ALONE_FROM {
        assert_eq!(ids(&store.claim(&claimant, 1, true).await.unwrap()), [large]);
        assert_eq!(reap_late(&*store, 9).await.queued, [large]);
    }
    let small = accept(&*store, 1).await[0];
    assert_eq!(ids(&store.claim(&worker("small"), 9, false).await.unwrap()), [small]);
}

pub async fn generations_that_crashed_together_again_are_claimed_one_by_one(place: &dyn Place) {
    let store = place.open().await;
    let accepted = accept(&*store, 3).await;
    for _ in 0..ALONE_FROM {
        assert_eq!(ids(&store.claim(&late_worker("victim"), 9, true).await.unwrap()), accepted);
        let mut queued = reap_late(&*store, 3).await.queued;
        queued.sort();
        assert_eq!(queued, accepted);
    }
    for id in accepted {
        let mut claimed = claim(&*store, 9).await;
        assert_eq!(ids(&claimed), [id]);
        let record = store.finish(claimed.remove(0).1, Outcome::Succeeded(vec![artifact()])).await.unwrap().unwrap();
        assert_eq!((record.attempt, record.crash_count, record.dead), (3, 2, false));
    }
}

pub async fn crashes_and_attempts_are_counted_separately(place: &dyn Place) {
    let store = place.open().await;
    let (id, lease) = running(&*store).await;
    store.finish(lease, Outcome::Retry { problem: problem(), delay: Duration::ZERO }).await.unwrap().unwrap();
    let (record, lease) = claim_one(&*store).await;
    assert_eq!((record.attempt, record.crash_count), (2, 0));
    store.finish(lease, Outcome::Released).await.unwrap().unwrap();
    claim_one(&*store).await;
    reap_all(&*store, 2).await;
    let record = get(&*store, id).await;
    assert_eq!((record.attempt, record.crash_count, record.status), (2, 1, Status::Queued));
    // A release keeps the count of crashes.
    let (_, lease) = claim_one(&*store).await;
    store.finish(lease, Outcome::Released).await.unwrap().unwrap();
    assert_eq!(get(&*store, id).await.crash_count, 1);
}

/// The ids of dead generations, newest first.
async fn dead(store: &dyn Store) -> Vec<GenerationId> {
    let page = store.list(&ListQuery { limit: 9, dead: true, ..ListQuery::default() }).await.unwrap();
    page.records.iter().map(|record| record.id).collect()
}

pub async fn a_generation_is_dead_after_too_many_crashes(place: &dyn Place) {
    let store = place.open().await;
    assert_eq!(dead(&*store).await, []);
    let lost = crashed(&*store, 2).await;
    store.claim(&late_worker("victim"), 1, true).await.unwrap();
    let reaped = reap_late(&*store, 3).await;
    assert_eq!((reaped.queued.len(), reaped.ended.len()), (0, 1));
    let record = get(&*store, lost).await;
    assert_eq!(seen(&reaped.ended[0]), seen(&record));
    assert_eq!((record.attempt, record.crash_count, record.dead), (3, 3, true));
    let Status::Failed { problem: why } = &record.status else { panic!("{record:?}") };
    assert_eq!((why.code.as_str(), why.retryable), ("worker_crashed", false));
    assert_eq!(record.expires_at.unwrap(), record.finished_at.unwrap() + HOUR);

    let (_, lease) = running(&*store).await;
    store.finish(lease, Outcome::Failed(problem())).await.unwrap().unwrap();
    let other = crashed(&*store, 1).await;
    claim_one(&*store).await;
    reap_all(&*store, 1).await;
    accept(&*store, 1).await;
    assert_eq!(dead(&*store).await, [other, lost]);
    let page = async |query: ListQuery| store.list(&query).await.unwrap();
    let newest = page(ListQuery { limit: 1, dead: true, ..ListQuery::default() }).await;
    assert_eq!((newest.records[0].id, newest.records.len(), newest.has_more), (other, 1, true));
    let rest = page(ListQuery { limit: 1, dead: true, after: Some(other), ..ListQuery::default() }).await;
    assert_eq!((rest.records[0].id, rest.has_more), (lost, false));
    store.delete(other, None).await.unwrap().unwrap();
    assert_eq!(dead(&*store).await, [lost]);
}

pub async fn a_lost_device_counts_as_a_crash_and_not_as_an_attempt(place: &dyn Place) {
    let store = place.open().await;
    let (id, mut lease) = running(&*store).await;
    let lost = || Outcome::DeviceLost { problem: problem(), max_crashes: 3 };
    for crashes in 1..3 {
        let record = store.finish(lease, lost()).await.unwrap().unwrap();
        let seen = (&record.status, record.attempt, record.crash_count, record.dead);
        assert_eq!(seen, (&Status::Queued, 0, crashes, false));
        lease = claim_one(&*store).await.1;
    }
    accept(&*store, 1).await;
    assert!(claim(&*store, 9).await.is_empty(), "the last try runs alone");
    let record = store.finish(lease, lost()).await.unwrap().unwrap();
    assert_eq!((record.attempt, record.crash_count, record.dead), (1, 3, true));
    assert_eq!(record.status, Status::Failed { problem: problem() });
    assert_eq!(dead(&*store).await, [id]);

    let (_, lease) = running(&*store).await;
    store.cancel(lease.id()).await.unwrap();
    let record = store.finish(lease, lost()).await.unwrap().unwrap();
    assert_eq!((&record.status, record.crash_count, record.dead), (&Status::Canceled, 1, false));
}

pub async fn reviving_a_dead_generation_queues_it_again(place: &dyn Place) {
    let store = place.open().await;
    let id = crashed(&*store, 1).await;
    claim_one(&*store).await;
    reap_all(&*store, 2).await;
    let behind = accept(&*store, 1).await[0];
    let record = store.revive(id).await.unwrap().unwrap();
    assert_eq!((&record.status, record.attempt, record.crash_count, record.dead), (&Status::Queued, 0, 0, false));
    assert_eq!((record.started_at, record.finished_at, record.expires_at), (None, None, None));
    assert_eq!(seen(&get(&*store, id).await), seen(&record));
    assert_eq!(dead(&*store).await, []);
    assert_eq!(history(&*store, id).await[4..], [EventKind::Failed, EventKind::Retrying]);
    let event = store.events(id, 5).await.unwrap().remove(0);
    assert_eq!(event.data, serde_json::json!({"id": id, "attempt": 0, "reason": "revived"}));
    assert!(store.overdue_for_deletion(9).await.unwrap().is_empty());
    // The generation keeps its position, and others may run at the same time.
    let mut claimed = store.claim(&worker("busy"), 9, false).await.unwrap();
    assert_eq!(ids(&claimed), [id, behind]);
    store.finish(claimed.remove(0).1, Outcome::Succeeded(vec![artifact()])).await.unwrap().unwrap();
    assert_eq!(history(&*store, id).await[6..], [EventKind::Started, EventKind::Succeeded]);
}

pub async fn only_dead_generations_are_revived(place: &dyn Place) {
    let store = place.open().await;
    assert!(store.revive(GenerationId::new()).await.unwrap().is_none());
    let (failed, lease) = running(&*store).await;
    store.finish(lease, Outcome::Failed(problem())).await.unwrap().unwrap();
    let (current, _) = running(&*store).await;
    let queued = accept(&*store, 1).await[0];
    for id in [failed, current, queued] {
        let before = seen(&get(&*store, id).await);
        assert!(store.revive(id).await.unwrap().is_none());
        assert_eq!(seen(&get(&*store, id).await), before);
    }
}

pub async fn a_canceled_generation_is_never_dead(place: &dyn Place) {
    let store = place.open().await;
    let id = crashed(&*store, 1).await;
    store.claim(&late_worker("victim"), 1, true).await.unwrap();
    store.cancel(id).await.unwrap().unwrap();
    let reaped = reap_late(&*store, 2).await;
    assert_eq!((reaped.queued.len(), reaped.ended.len()), (0, 1));
    let record = get(&*store, id).await;
    assert_eq!((&record.status, record.dead), (&Status::Canceled, false));
    assert_eq!(seen(&reaped.ended[0]), seen(&record));
    assert_eq!(dead(&*store).await, []);
    assert!(store.revive(id).await.unwrap().is_none());
}

fn attempt(lease: &Lease) -> Attempt {
    Attempt { id: lease.id(), fence: lease.fence() }
}

pub async fn giving_up_an_aborted_attempt_ends_its_generation(place: &dyn Place) {
    let store = place.open().await;
    // The attempt is reaped first, canceled first, or neither.
    let mut condemned = Vec::new();
    for (is_reaped, is_canceled) in [(false, false), (true, false), (false, true)] {
        let id = accept(&*store, 1).await[0];
        let (record, lease) = store.claim(&late_worker("victim"), 1, true).await.unwrap().remove(0);
        assert_eq!(record.id, id);
        if is_canceled {
            store.cancel(id).await.unwrap().unwrap();
        }
        if is_reaped {
            assert_eq!(reap_late(&*store, 9).await.queued, [id]);
        }
        let ended = store.give_up_aborted(attempt(&lease)).await.unwrap().unwrap();
        let record = get(&*store, id).await;
        assert_eq!(seen(&ended), seen(&record));
        assert_eq!((record.crash_count, record.dead), (1, !is_canceled));
        match &record.status {
            Status::Canceled => assert!(is_canceled),
            Status::Failed { problem } => {
                assert_eq!((problem.code.as_str(), problem.retryable, is_canceled), ("worker_crashed", false, false));
                condemned.push(id);
            }
            other => panic!("{other:?}"),
        }
        assert!(store.give_up_aborted(attempt(&lease)).await.unwrap().is_none(), "the generation has already ended");
        assert_eq!(seen(&get(&*store, id).await), seen(&record));
        // No crashed generation is left that must run alone.
        let next = accept(&*store, 1).await[0];
        let mut claimed = store.claim(&worker("busy"), 9, false).await.unwrap();
        assert_eq!(ids(&claimed), [next]);
        store.finish(claimed.remove(0).1, Outcome::Canceled).await.unwrap().unwrap();
    }
    condemned.reverse();
    assert_eq!(dead(&*store).await, condemned);
    assert_eq!(store.revive(condemned[0]).await.unwrap().unwrap().status, Status::Queued);
}

pub async fn only_the_latest_attempt_can_be_given_up_as_aborted(place: &dyn Place) {
    let store = place.open().await;
    let id = accept(&*store, 1).await[0];
    let (_, first) = store.claim(&late_worker("victim"), 1, true).await.unwrap().remove(0);
    assert_eq!(reap_late(&*store, 9).await.queued, [id]);
    let (_, second) = claim_one(&*store).await;
    let before = seen(&get(&*store, id).await);
    for attempt in [attempt(&first), Attempt { id: GenerationId::new(), fence: 1 }] {
        assert!(store.give_up_aborted(attempt).await.unwrap().is_none());
    }
    assert_eq!(seen(&get(&*store, id).await), before);
    store.finish(second, Outcome::Succeeded(vec![artifact()])).await.unwrap().unwrap();
    assert!(store.give_up_aborted(attempt(&first)).await.unwrap().is_none());
    assert_eq!(dead(&*store).await, []);
}
