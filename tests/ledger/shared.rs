//! Tests of several processes that use one PostgreSQL database at the same time. Each store stands for a process.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, future::join_all, stream::BoxStream};
use latentd::generation::{Format, GenerationId, Job, Phase, Preview, Progress, Status};
use latentd::ledger::{
    Acceptance, Crew, Fleet, Hint, KeyRecord, Lease, ListQuery, Outcome, Reaping, Refusal, Report, Store, StoreError,
};
use sqlx::{Connection, Executor, PgConnection, Row};
use tokio::time::timeout;

use crate::place::{
    ALONE_FROM, PgPlace, Place, accept, accept_one, claim, claim_one, generation, get, ids, late_worker, new_record,
    overdue, reap_late, request, running, worker,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_worker_and_a_reaper_never_both_succeed() {
    let Some(place) = PgPlace::new().await else { return };
    let stores = place.open_many(2).await;
    accept(&*stores[0], 30).await;
    let claimed = stores[0].claim(&late_worker("slow"), 30, true).await.unwrap();
    let finishing = claimed.into_iter().map(|(record, lease)| {
        let store = stores[0].clone();
        async move { (record.id, store.finish(lease, Outcome::Canceled).await.unwrap().is_some()) }
    });
    let (finished, reaped) = tokio::join!(join_all(finishing), async {
        let mut queued = BTreeSet::new();
        for _ in 0..20 {
            queued.extend(reap_late(&*stores[1], 9).await.queued);
        }
        queued
    });
    for (id, finished) in finished {
        assert_ne!(finished, reaped.contains(&id), "{id}");
        let status = if finished { Status::Canceled } else { Status::Queued };
        assert_eq!(get(&*stores[1], id).await.status, status);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_sweeps_expire_and_age_each_generation_once() {
    let Some(place) = PgPlace::new().await else { return };
    let stores = place.open_many(4).await;
    for _ in 0..20 {
        accept_one(&*stores[0], &overdue()).await;
    }
    let waiting = accept(&*stores[0], 20).await;
    let expired = join_all(stores.iter().map(|store| store.expire_overdue())).await;
    assert_eq!(expired.into_iter().map(|expired| expired.unwrap().len()).sum::<usize>(), 20);
    let high = Job { priority: latentd::generation::Priority::High, ..generation() };
    let before = accept_one(&*stores[0], &high).await;
    for aged in join_all(stores.iter().map(|store| store.age(Duration::from_secs(3600)))).await {
        aged.unwrap();
    }
    assert_eq!(
        stores[0].place(before, &Crew::default()).await.unwrap().map(|place| place.position),
        Some(0),
        "nobody has waited for an hour"
    );
    for aged in join_all(stores.iter().map(|store| store.age(Duration::ZERO))).await {
        aged.unwrap();
    }
    assert_eq!(
        stores[0].place(waiting[0], &Crew::default()).await.unwrap().map(|place| place.position),
        Some(0),
        "its priority has risen to high, and it is older"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_never_runs_more_than_its_maximum() {
    let Some(place) = PgPlace::new().await else { return };
    let stores = place.open_many(8).await;
    stores[0].create_key(&key("bounded", None, Some(3))).await.unwrap();
    for at in 0..60 {
        let tenant = if at % 2 == 0 { "bounded" } else { "free" };
        new_record(stores[0].accept(&Acceptance { tenant, ..request(&generation()) }).await);
    }
    let query = ListQuery { limit: 100, status: Some("running".to_owned()), ..ListQuery::default() };
    let query = ListQuery { tenant: Some("bounded".to_owned()), ..query };
    let mut leases: Vec<Lease> = Vec::new();
    for _ in 0..8 {
        // Running generations end while the stores claim others.
        let claiming = stores
            .iter()
            .enumerate()
            .map(|(at, store)| async move { store.claim(&worker(&format!("worker {at}")), 2, false).await.unwrap() });
        let finishing = leases.drain(..).map(|lease| stores[0].finish(lease, Outcome::Canceled));
        let (claimed, _) = tokio::join!(join_all(claiming), join_all(finishing));
        let running = stores[0].list(&query).await.unwrap().records.len();
        assert!(running <= 3, "{running} run");
        leases.extend(claimed.into_iter().flatten().map(|(_, lease)| lease));
    }
    let claimed = claim(&*stores[0], 100).await;
    let running = stores[0].list(&query).await.unwrap().records.len();
    assert!(running == 3 || claimed.is_empty(), "the tenant uses its whole maximum: {running} run");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn positions_and_bounds_are_exact_when_many_accept_at_once() {
    let Some(place) = PgPlace::new().await else { return };
    let stores = place.open_many(4).await;
    stores[0].create_key(&key("bounded", Some(10), None)).await.unwrap();
    let generation = generation();
    let accepting = stores.iter().cycle().take(40).map(|store| {
        let acceptance = Acceptance { tenant: "bounded", ..request(&generation) };
        async move { store.accept(&acceptance).await.is_ok() }
    });
    let accepted = join_all(accepting).await.into_iter().filter(|accepted| *accepted).count();
    assert_eq!(accepted, 10);
    let mut connection = PgConnection::connect(place.url()).await.unwrap();
    let rows = connection.fetch_all("SELECT vft FROM generations ORDER BY vft").await.unwrap();
    let places: Vec<f64> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(places, (1..=10).map(f64::from).collect::<Vec<_>>());
    let refused = stores[1].accept(&Acceptance { tenant: "bounded", ..request(&generation) }).await;
    assert!(matches!(refused, Err(StoreError::Refused(Refusal::TenantQueueFull { queued: 10 }))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_an_idle_worker_claims_a_crashed_generation() {
    let Some(place) = PgPlace::new().await else { return };
    let stores = place.open_many(5).await;
    for _ in 0..10 {
        let id = accept(&*stores[0], 1).await[0];
        for _ in 0..ALONE_FROM {
            assert_eq!(ids(&claim(&*stores[0], 1).await), [id]);
            stores[0].reap(&Reaping { all: true, max_crashes: 9, backoff: Duration::ZERO }).await.unwrap();
        }
        let busy = worker("busy");
        let looking = stores[1..].iter().map(|store| store.claim(&busy, 5, false));
        let (claimed, others) = tokio::join!(claim(&*stores[0], 5), join_all(looking));
        assert_eq!(ids(&claimed), [id]);
        assert!(others.into_iter().all(|claimed| claimed.unwrap().is_empty()));
        let (_, lease) = claimed.into_iter().next().unwrap();
        stores[0].finish(lease, Outcome::Canceled).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_and_previews_are_seen_by_other_processes() {
    let Some(place) = PgPlace::new().await else { return };
    let stores = place.open_many(2).await;
    let (id, stale) = running(&*stores[0]).await;
    let (near, far) = (&*stores[0], &*stores[1]);
    let seen = far.snapshots(&[id, GenerationId::new()]).await.unwrap();
    assert_eq!((seen.len(), seen[0].last_event, seen[0].is_over), (1, 2, false));
    assert_eq!((seen[0].progress, seen[0].previews.len()), (None, 0));

    near.report(&[report(&stale, 1, &[(0, 1, 10), (1, 1, 10)]), report(&stale, 2, &[(0, 2, 11)])]).await.unwrap();
    let seen = far.snapshots(&[id]).await.unwrap().remove(0);
    assert_eq!((seen.progress, seen.previews), (Some(progress(2)), vec![(0, 2), (1, 1)]));
    let previews = far.previews(id).await.unwrap();
    assert_eq!(previews.iter().map(|preview| preview.bytes.len()).collect::<Vec<_>>(), [11, 10]);
    // A preview above 64 KiB is not stored, so only watchers in the same process see it.
    near.report(&[report(&stale, 3, &[(0, 3, 65537), (1, 3, 65536)])]).await.unwrap();
    assert_eq!(far.snapshots(&[id]).await.unwrap()[0].previews, [(0, 2), (1, 3)]);

    // Late reports of a previous attempt are not stored.
    reap_all(near).await;
    let (_, lease) = claim_one(near).await;
    near.report(&[report(&stale, 4, &[(0, 4, 10)])]).await.unwrap();
    let seen = far.snapshots(&[id]).await.unwrap().remove(0);
    assert_eq!((seen.progress, seen.previews.len(), seen.last_event), (None, 0, 4));
    assert!(far.previews(id).await.unwrap().is_empty());
    near.report(&[report(&lease, 5, &[(0, 5, 10)])]).await.unwrap();
    assert_eq!(far.snapshots(&[id]).await.unwrap()[0].progress, Some(progress(5)));
    near.finish(lease.clone(), Outcome::Canceled).await.unwrap();
    near.report(&[report(&lease, 6, &[])]).await.unwrap();
    let seen = far.snapshots(&[id]).await.unwrap().remove(0);
    assert_eq!((seen.is_over, seen.progress, seen.last_event), (true, None, 5));
    near.purge().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hints_reach_listening_processes() {
    let Some(place) = PgPlace::new().await else { return };
    let (sender, listener, deaf) = (place.store().await, place.store().await, place.store().await);
    let mut heard = listener.hints();
    let mut unheard = deaf.hints();
    let stop = tokio_util::sync::CancellationToken::new();
    let listening = tokio::spawn(listener.listen(stop.clone()));
    wait_until_listening(&sender, &mut heard).await;
    let id = GenerationId::new();
    let many: Vec<_> = (0..1000).map(|_| Hint::Changed(GenerationId::new())).collect();
    let sent = [&[Hint::Queued, Hint::Queued, Hint::Canceled(id)], &many[..]].concat();
    sender.hint(&sent).await.unwrap();
    for hint in &sent[1..] {
        assert_eq!(heard.next().await, Some(*hint));
    }
    // A process that does not listen finds the generations by claiming.
    assert!(futures::FutureExt::now_or_never(unheard.next()).is_none());
    let accepted = accept(&sender, 1).await;
    assert_eq!(ids(&claim(&deaf, 5).await), accepted);
    stop.cancel();
    listening.await.unwrap();
}

/// Waits until the listener receives hints, and consumes the hints sent for it.
pub async fn wait_until_listening(sender: &dyn Store, heard: &mut BoxStream<'static, Hint>) {
    let id = GenerationId::new();
    loop {
        sender.hint(&[Hint::Changed(id)]).await.unwrap();
        if timeout(Duration::from_millis(50), heard.next()).await.is_ok() {
            break;
        }
    }
    let last = Hint::Canceled(id);
    sender.hint(&[last]).await.unwrap();
    while heard.next().await != Some(last) {}
}

async fn reap_all(store: &dyn Store) {
    store.reap(&Reaping { all: true, max_crashes: 9, backoff: Duration::ZERO }).await.unwrap();
}

fn key(tenant: &str, max_queued: Option<u32>, max_running: Option<u32>) -> KeyRecord {
    let (id, tenant) = (format!("key of {tenant}"), tenant.to_owned());
    KeyRecord { id, sha256: [1; 32], tenant, weight: 1.0, max_queued, max_running, terms: Default::default() }
}

fn progress(step: u32) -> Progress {
    Progress { phase: Phase::Denoising, step, steps: 20, percent: 3.3, eta_s: Some(0.1) }
}

/// A report. Each preview is an image index, a step and a number of bytes.
fn report(lease: &Lease, step: u32, previews: &[(u32, u32, usize)]) -> Report {
    let preview = |&(index, step, bytes): &(u32, u32, usize)| {
        let bytes = Bytes::from(vec![7; bytes]);
        Preview { index, step, preview_index: step, media_type: Format::Png.into(), bytes }
    };
    let previews = previews.iter().map(preview).collect();
    Report { lease: lease.clone(), progress: Some(progress(step)), previews }
}
