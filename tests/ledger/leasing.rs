//! Tests of leases: ends, renewals, reaping, fences, and the reports of workers.

use std::{collections::HashMap, time::Duration};

use futures::future::join_all;
use latentd::generation::{Format, GenerationId, Phase, Preview, Progress, Status};
use latentd::ledger::{Claimant, Outcome, Reaping, Report};

use crate::place::{
    Place, accept, artifact, claim_one, get, history, ids, late_worker, problem, reap_all, reap_late, running, seen,
    worker,
};

pub async fn a_lease_is_valid_until_it_ends(place: &dyn Place) {
    let store = place.open().await;
    let (held, _) = running(&*store).await;
    let ended = accept(&*store, 1).await[0];
    store.claim(&late_worker("late"), 1, true).await.unwrap();
    let reaped = reap_late(&*store, 9).await;
    assert_eq!((reaped.queued, reaped.ended.len()), (vec![ended], 0));
    assert_eq!((get(&*store, held).await.status, get(&*store, ended).await.status), (Status::Running, Status::Queued));
    assert_eq!(reap_late(&*store, 9).await.queued, []);

    let short = Claimant { lease: Duration::from_millis(30), ..worker("short") };
    let claimed = store.claim(&short, 1, true).await.unwrap();
    assert_eq!(ids(&claimed), [ended]);
    while reap_late(&*store, 9).await.queued != [ended] {
        tokio::task::yield_now().await;
    }
    assert_eq!(get(&*store, ended).await.crash_count, 2);
}

pub async fn a_renewed_lease_is_not_reaped(place: &dyn Place) {
    let store = place.open().await;
    let accepted = accept(&*store, 3).await;
    let claimed = store.claim(&late_worker("late"), 3, true).await.unwrap();
    let leases: Vec<_> = claimed.into_iter().map(|(_, lease)| lease).collect();
    // The leases have ended, but the generations have not been reaped.
    let renewed = store.renew(&worker("late"), &leases[1..]).await.unwrap();
    assert_eq!(renewed.len(), 2);
    assert_eq!(reap_late(&*store, 9).await.queued, accepted[..1]);
    for (renewed, lease) in renewed.iter().zip(&leases[1..]) {
        assert_eq!((renewed.id, renewed.fence, renewed.cancel_requested), (lease.id(), lease.fence(), false));
    }
    // The latest renewal sets the end of the lease, even if the end is earlier.
    store.renew(&late_worker("late"), &leases[1..2]).await.unwrap();
    assert_eq!(reap_late(&*store, 9).await.queued, accepted[1..2]);
    assert!(store.renew(&worker("late"), &[]).await.unwrap().is_empty());
}

pub async fn a_renewal_reports_cancel_requests(place: &dyn Place) {
    let store = place.open().await;
    let (first, first_lease) = running(&*store).await;
    let (second, second_lease) = running(&*store).await;
    store.cancel(second).await.unwrap();
    let leases = [second_lease, first_lease];
    for _ in 0..2 {
        let renewed = store.renew(&worker("one"), &leases).await.unwrap();
        let canceled: HashMap<_, _> = renewed.iter().map(|renewed| (renewed.id, renewed.cancel_requested)).collect();
        assert_eq!((renewed.len(), canceled), (2, HashMap::from([(first, false), (second, true)])));
    }
    // A renewal does not change the version that clients see.
    assert_eq!((get(&*store, first).await.version, get(&*store, second).await.version), (2, 3));
}

pub async fn concurrent_reapers_reap_each_generation_once(place: &dyn Place) {
    let stores = place.open_many(6).await;
    let accepted = accept(&*stores[0], 30).await;
    stores[0].claim(&late_worker("late"), 30, true).await.unwrap();
    let reapers = stores.iter().cloned().map(|store| tokio::spawn(async move { reap_late(&*store, 9).await }));
    let reaped = join_all(reapers).await;
    let mut queued: Vec<GenerationId> = reaped.into_iter().flat_map(|reaped| reaped.unwrap().queued).collect();
    queued.sort();
    assert_eq!(queued, accepted);
    for id in accepted {
        let record = get(&*stores[0], id).await;
        assert_eq!((record.status, record.crash_count, record.version), (Status::Queued, 1, 3));
        assert_eq!(history(&*stores[0], id).await.len(), 3);
    }
}

pub async fn a_reaped_lease_changes_nothing(place: &dyn Place) {
    let store = place.open().await;
    for is_claimed_again in [false, true] {
        let id = accept(&*store, 1).await[0];
        let (_, zombie) = store.claim(&late_worker("zombie"), 1, true).await.unwrap().remove(0);
        assert_eq!(reap_late(&*store, 9).await.queued, [id]);
        let newer = if is_claimed_again { Some(claim_one(&*store).await.1) } else { None };
        let before = (seen(&get(&*store, id).await), history(&*store, id).await);

        assert_eq!(store.renew(&worker("zombie"), std::slice::from_ref(&zombie)).await.unwrap(), []);
        store.report(&[report(&zombie)]).await.unwrap();
        let retry = Outcome::Retry { problem: problem(), delay: Duration::ZERO };
        for outcome in [Outcome::Succeeded(vec![artifact()]), Outcome::Released, retry] {
            assert!(store.finish(zombie.clone(), outcome).await.unwrap().is_none());
        }

        assert_eq!((seen(&get(&*store, id).await), history(&*store, id).await), before);
        let snapshots = store.snapshots(&[id]).await.unwrap().remove(0);
        assert_eq!((snapshots.progress, snapshots.previews), (None, vec![]));
        assert!(store.previews(id).await.unwrap().is_empty());
        let newer = match newer {
            Some(lease) => lease,
            None => claim_one(&*store).await.1,
        };
        assert!(newer.fence() > zombie.fence());
        assert_eq!(store.renew(&worker("one"), std::slice::from_ref(&newer)).await.unwrap().len(), 1);
        let record = store.finish(newer, Outcome::Succeeded(vec![artifact()])).await.unwrap().unwrap();
        assert_eq!(record.status, Status::Succeeded { artifacts: vec![artifact()] });
    }
}

fn preview(index: u32, step: u32, preview_index: u32, bytes: &'static [u8]) -> Preview {
    Preview { index, step, preview_index, media_type: Format::Png.into(), bytes: bytes::Bytes::from_static(bytes) }
}

fn report(lease: &latentd::ledger::Lease) -> Report {
    let progress = Progress { phase: Phase::Denoising, step: 3, steps: 20, percent: 15.0, eta_s: Some(1.5) };
    let preview = preview(0, 3, 0, b"png");
    Report { lease: lease.clone(), progress: Some(progress), previews: vec![preview] }
}

/// Only shared stores keep the progress and the previews of a report.
pub async fn other_stores_see_reported_progress_and_previews(place: &dyn Place) {
    let stores = place.open_many(2).await;
    let (id, lease) = running(&*stores[0]).await;
    stores[0].report(&[]).await.unwrap();
    stores[0].report(&[report(&lease)]).await.unwrap();
    let snapshots = stores[1].snapshots(&[id]).await.unwrap().remove(0);
    if !place.is_shared() {
        assert_eq!((snapshots.progress, snapshots.previews), (None, vec![]));
        return;
    }
    assert_eq!((snapshots.progress, snapshots.previews), (report(&lease).progress, vec![(0, 3)]));

    // The latest preview of each image is kept, even if a report contains none.
    let progress = Progress { step: 9, ..report(&lease).progress.unwrap() };
    let other = Preview { media_type: "image/webp".to_owned().try_into().unwrap(), ..preview(1, 8, 1, b"other") };
    let previews = vec![other, preview(0, 9, 1, b"newer")];
    let newer = Report { lease: lease.clone(), progress: Some(progress), previews };
    stores[0].report(&[newer]).await.unwrap();
    stores[0].report(&[Report { lease: lease.clone(), progress: None, previews: Vec::new() }]).await.unwrap();
    let snapshots = stores[1].snapshots(&[id]).await.unwrap().remove(0);
    assert_eq!(snapshots.progress, Some(progress));
    let mut previews = stores[1].previews(id).await.unwrap();
    previews.sort_by_key(|preview| preview.index);
    let seen: Vec<_> =
        previews.iter().map(|seen| (seen.index, seen.step, seen.preview_index, &seen.bytes[..])).collect();
    assert_eq!(seen, [(0, 9, 1, &b"newer"[..]), (1, 8, 1, b"other")]);
    let types: Vec<_> = previews.iter().map(|seen| seen.media_type.as_str()).collect();
    assert_eq!(types, ["image/png", "image/webp"]);

    // Watchers of the next attempt do not see reports of the previous attempt.
    stores[0].finish(lease, Outcome::Released).await.unwrap().unwrap();
    claim_one(&*stores[0]).await;
    let snapshots = stores[1].snapshots(&[id]).await.unwrap().remove(0);
    assert_eq!((snapshots.progress, snapshots.previews), (None, vec![]));
    assert!(stores[1].previews(id).await.unwrap().is_empty());
}

pub async fn every_claim_increments_the_fence(place: &dyn Place) {
    let store = place.open().await;
    let (id, mut lease) = running(&*store).await;
    for round in 1..=4 {
        assert_eq!(lease.fence(), round);
        match round {
            1 => drop(store.finish(lease, Outcome::Released).await.unwrap().unwrap()),
            2 => {
                let retry = Outcome::Retry { problem: problem(), delay: Duration::ZERO };
                store.finish(lease, retry).await.unwrap().unwrap();
            }
            3 => assert_eq!(reap_all(&*store, 9).await.queued, [id]),
            _ => {
                assert_eq!(reap_all(&*store, 1).await.ended.len(), 1);
                store.revive(id).await.unwrap().unwrap();
            }
        }
        lease = claim_one(&*store).await.1;
    }
    assert_eq!(lease.fence(), 5);
}

pub async fn a_reaped_generation_waits_for_its_backoff(place: &dyn Place) {
    let store = place.open().await;
    let id = accept(&*store, 1).await[0];
    store.claim(&late_worker("late"), 1, true).await.unwrap();
    let hour = Duration::from_secs(3600);
    let reaped = store.reap(&Reaping { all: false, max_crashes: 9, backoff: hour }).await.unwrap();
    assert_eq!(reaped.queued, [id]);
    assert!(store.claim(&worker("one"), 1, true).await.unwrap().is_empty());
    // The delayed generation does not block others.
    let other = accept(&*store, 1).await[0];
    assert_eq!(ids(&store.claim(&worker("one"), 9, false).await.unwrap()), [other]);
}

#[test]
fn the_delay_doubles_with_each_crash_up_to_a_minute() {
    let reaping = Reaping { all: false, max_crashes: 9, backoff: Duration::from_secs(1) };
    for (crashes, seconds) in [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (8, 60), (u32::MAX, 60)] {
        let delays: Vec<Duration> = (0..50).map(|_| reaping.delay(crashes)).collect();
        let least = Duration::from_secs(seconds);
        assert!(delays.iter().all(|delay| *delay >= least && *delay <= least.mul_f64(1.25)), "{crashes}: {delays:?}");
        assert!(delays.iter().any(|delay| *delay != delays[0]), "delays differ");
    }
    assert_eq!(Reaping { backoff: Duration::ZERO, ..reaping }.delay(5), Duration::ZERO);
}
