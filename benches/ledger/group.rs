//! The stores of a group of processes, and the operations that are measured.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::future::BoxFuture;
use latentd::{
    generation::{GenerationId, Phase, Progress},
    ledger::{
        Acceptance, Accepts, Claimant, Claims, Fleet, Heartbeat, Hint, Lease, Ledger, Outcome, Reads, Refusal, Report,
        StoreError,
    },
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    place::{HOUR, artifact, generation, request, settings, tenant, worker},
    rate::{Row, rate},
};

const WORKERS: usize = 64;
const APIS: usize = 4;
/// Requests that each api process stores at the same time.
const REQUESTS: usize = 16;
const TENANTS: [&str; 4] = ["one", "two", "three", "four"];
/// The default of `queue.max_queued`: accepting counts the queue, so it takes longer with a long queue.
const QUEUE: usize = 2000;
/// Calls of one operation alone.
const ALONE: usize = 100;
const SHORT: Duration = Duration::from_secs(2);
const LONG: Duration = Duration::from_secs(8);
/// How long a process collects hints, as the service does.
const HINTS: Duration = Duration::from_millis(50);

/// Leases of claimed generations.
type Held = Arc<Mutex<VecDeque<Lease>>>;

/// One store for each process of a group.
pub struct Group {
    apis: Vec<Ledger>,
    workers: Vec<Ledger>,
    /// Ends the connections that listen.
    stop: CancellationToken,
}

impl Drop for Group {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Group {
    /// Opens the stores on an empty database: `direct` is its URL for the update of the schema, `url` that for
    /// everything else. `listens`: each process has a connection that listens for hints. `is_bounded`: tenants have a
    /// `max_running` (which they never reach), so claims run one after the other.
    pub async fn open(direct: &str, url: &str, listens: bool, is_bounded: bool) -> Group {
        Ledger::migrate_postgres(&settings(direct, &[])).await.expect("the schema is made");
        let flags = [("database.max_connections", "10"), ("database.migrate", "false")];
        let settings = settings(url, &flags);
        let mut group = Group { apis: Vec::new(), workers: Vec::new(), stop: CancellationToken::new() };
        for at in 0..APIS + WORKERS {
            let ledger = Ledger::open_postgres(&settings, HOUR).await.expect("the database answers");
            if listens {
                tokio::spawn(ledger.clone().listen(group.stop.clone()));
            }
            if at < APIS { &mut group.apis } else { &mut group.workers }.push(ledger);
        }
        for name in TENANTS {
            tenant(&group.apis[0], name, 1.0, None, is_bounded.then_some(1_000_000)).await;
        }
        group
    }

    /// Measures all operations, each with all callers and alone.
    pub async fn measure(&self) -> Vec<Row> {
        let requests: Vec<Ledger> = (0..APIS * REQUESTS).map(|at| self.apis[at % APIS].clone()).collect();
        let mut rows = Vec::new();
        self.empty().await;
        rows.push(self.both("accept", &requests, QUEUE, accept).await);
        let held = Held::default();
        let (one, four) = (claim(held.clone(), 1), claim(held.clone(), 4));
        rows.push(self.both("claim 1", &self.workers, QUEUE / 3, one).await);
        rows.push(self.both("claim 4", &self.workers, QUEUE, four).await);
        rows.push(self.timed("renew and heartbeat", beat(held.clone())).await);
        rows.push(self.timed("report", report(held.clone())).await);
        rows.push(self.both("finish", &self.workers, QUEUE * 2, finish(held.clone())).await);
        self.empty().await;
        rows.push(self.timed("look in vain", look).await);
        rows.push(self.timed("hint", hint).await);
        rows.push(self.flow(requests).await);
        rows
    }

    /// The operation alone, then with all callers, until `most` calls have succeeded.
    async fn both<F>(
        &self,
        name: &str,
        callers: &[Ledger],
        most: usize,
        call: impl Fn(usize, Ledger) -> F + Clone + Send + 'static,
    ) -> Row
    where
        F: Future<Output = usize> + Send + 'static,
    {
        let alone = rate(name, &callers[..1], ALONE, Some(SHORT), call.clone()).await;
        Row { alone_ms: Some(1e3 / alone.per_second), ..rate(name, callers, most, None, call).await }
    }

    /// An operation that can be repeated for ever.
    async fn timed<F>(&self, name: &str, call: impl Fn(usize, Ledger) -> F + Clone + Send + 'static) -> Row
    where
        F: Future<Output = usize> + Send + 'static,
    {
        let alone = rate(name, &self.workers[..1], ALONE, Some(SHORT), call.clone()).await;
        let all = rate(name, &self.workers, usize::MAX, Some(SHORT), call).await;
        Row { alone_ms: Some(1e3 / alone.per_second), ..all }
    }

    /// Requests and workers at the same time: whole generations per second.
    async fn flow(&self, requests: Vec<Ledger>) -> Row {
        let mut others = JoinSet::new();
        for ledger in requests {
            others.spawn(async move { while accept(0, ledger.clone()).await > 0 {} });
        }
        for ledger in self.apis.clone() {
            others.spawn(async move {
                while ledger.hint(&[Hint::Queued]).await.is_ok() {
                    tokio::time::sleep(HINTS).await;
                }
            });
        }
        let row = rate("accept, claim, finish", &self.workers, usize::MAX, Some(LONG), work).await;
        others.shutdown().await;
        row
    }

    /// Ends everything that is queued.
    async fn empty(&self) {
        let held = Held::default();
        rate("empty", &self.workers, usize::MAX, None, claim(held.clone(), 16)).await;
        rate("empty", &self.workers, usize::MAX, None, finish(held)).await;
    }
}

/// Accepts a generation of one of the tenants. While the queue is full, waits a little.
async fn accept(_: usize, ledger: Ledger) -> usize {
    let job = generation();
    let acceptance = request(&job);
    let tenant = TENANTS[usize::from(acceptance.id.as_bytes()[15]) % TENANTS.len()];
    match ledger.accept(&Acceptance { tenant, max_queued: QUEUE, ..acceptance }).await {
        Err(StoreError::Refused(Refusal::QueueFull { .. })) => tokio::time::sleep(HINTS).await,
        accepted => drop(accepted.expect("the database answers")),
    }
    1
}

fn claimant(at: usize) -> Claimant {
    worker(&format!("worker {at}"))
}

/// Claims at most `limit` generations.
fn claim(held: Held, limit: usize) -> impl Fn(usize, Ledger) -> BoxFuture<'static, usize> + Clone {
    move |at, ledger| {
        let held = held.clone();
        Box::pin(async move {
            let claimed = ledger.claim(&claimant(at), limit, true).await.expect("the database answers");
            let mut held = held.lock().expect("nobody panics");
            held.extend(claimed.iter().map(|(_, lease)| lease.clone()));
            claimed.len()
        })
    }
}

/// Ends the run of one lease.
fn finish(held: Held) -> impl Fn(usize, Ledger) -> BoxFuture<'static, usize> + Clone {
    move |_, ledger| {
        let lease = held.lock().expect("nobody panics").pop_front();
        Box::pin(async move {
            let Some(lease) = lease else { return 0 };
            end(&ledger, lease).await;
            1
        })
    }
}

async fn end(ledger: &Ledger, lease: Lease) {
    let outcome = Outcome::Succeeded(vec![artifact()]);
    ledger.finish(lease, outcome).await.expect("the database answers").expect("the lease holds");
}

/// The leases of up to four runs of a worker.
fn four(held: &Held, at: usize) -> Vec<Lease> {
    held.lock().expect("nobody panics").iter().skip(at * 4).take(4).cloned().collect()
}

/// The progress that a worker with four runs reports twice a second.
fn report(held: Held) -> impl Fn(usize, Ledger) -> BoxFuture<'static, usize> + Clone {
    move |at, ledger| {
        let progress = Some(Progress { phase: Phase::Denoising, step: 3, steps: 20, percent: 15.0, eta_s: None });
        let report = |lease| Report { lease, progress, previews: Vec::new() };
        let reports: Vec<Report> = four(&held, at).into_iter().map(report).collect();
        Box::pin(async move {
            ledger.report(&reports).await.expect("the database answers");
            1
        })
    }
}

/// A notification, which PostgreSQL delivers to each connection that listens.
async fn hint(_: usize, ledger: Ledger) -> usize {
    ledger.hint(&[Hint::Changed(GenerationId::new())]).await.expect("the database answers");
    1
}

/// What a worker that runs four generations writes at each heartbeat.
fn beat(held: Held) -> impl Fn(usize, Ledger) -> BoxFuture<'static, usize> + Clone {
    move |at, ledger| {
        let leases = four(&held, at);
        Box::pin(async move {
            ledger.renew(&claimant(at), &leases).await.expect("the database answers");
            let heartbeat = Heartbeat {
                worker: claimant(at).worker,
                version: "bench".to_owned(),
                models: vec!["tiny".to_owned()],
                running: 4,
                speed: Some(1.0),
            };
            ledger.heartbeat(&heartbeat).await.expect("the database answers");
            1
        })
    }
}

/// What a worker reads each second, and at each hint, while the queue is empty.
async fn look(at: usize, ledger: Ledger) -> usize {
    let claimed = ledger.claim(&claimant(at), 32, true).await.expect("the database answers");
    assert!(claimed.is_empty(), "the queue is empty");
    ledger.counts().await.expect("the database answers");
    1
}

/// Claims up to four generations and ends them. Gives up after a second in which nothing was queued.
async fn work(at: usize, ledger: Ledger) -> usize {
    for _ in 0..20 {
        let claimed = ledger.claim(&claimant(at), 4, true).await.expect("the database answers");
        let mut hints = Vec::new();
        for (record, lease) in &claimed {
            end(&ledger, lease.clone()).await;
            hints.push(Hint::Changed(record.id));
        }
        if !claimed.is_empty() {
            ledger.hint(&hints).await.expect("the database answers");
            return claimed.len();
        }
        tokio::time::sleep(HINTS).await;
    }
    0
}
