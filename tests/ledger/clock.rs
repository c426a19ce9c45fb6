//! Tests of SQLite's store when the system clock is set back or forward.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use latentd::ledger::{Claims, Clock, Ledger, Outcome, Reading, Upkeep};

use crate::place::{HOUR, accept, claim, claim_one, get, ids, problem};

/// The two clocks of a machine, which the test controls: the system clock and a monotonic clock.
#[derive(Clone, Default)]
struct Machine {
    wall_ms: Arc<AtomicI64>,
    steady_ms: Arc<AtomicU64>,
}

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;

impl Machine {
    fn new() -> Machine {
        let machine = Machine::default();
        machine.wall_ms.store(1_800_000_000_000, Ordering::Relaxed);
        machine
    }

    fn clock(&self) -> Clock {
        let machine = self.clone();
        Clock::new(move || Reading {
            wall_ms: machine.wall_ms.load(Ordering::Relaxed),
            steady: Duration::from_millis(machine.steady_ms.load(Ordering::Relaxed)),
        })
    }

    /// Changes the system clock only.
    fn set(&self, by_ms: i64) {
        self.wall_ms.fetch_add(by_ms, Ordering::Relaxed);
    }

    /// Lets time pass on both clocks.
    fn pass(&self, ms: i64) {
        self.set(ms);
        self.steady_ms.fetch_add(ms.unsigned_abs(), Ordering::Relaxed);
    }

    async fn store(&self, dir: &tempfile::TempDir) -> Ledger {
        Ledger::open_sqlite_by(self.clock(), dir.path(), HOUR).await.unwrap()
    }
}

#[tokio::test]
async fn setting_the_clock_back_delays_nothing() {
    let (dir, machine) = (tempfile::tempdir().unwrap(), Machine::new());
    let store = machine.store(&dir).await;
    let before = accept(&store, 1).await;
    machine.set(-HOUR_MS);
    let after = accept(&store, 1).await;
    let claimed = claim(&store, 9).await;
    assert_eq!(ids(&claimed), [before, after].concat());
    let record = get(&store, claimed[0].0.id).await;
    assert!(record.started_at.unwrap() >= record.created_at, "{record:?}");

    // The delay of a retry keeps its length.
    let (record, lease) = claimed.into_iter().next().unwrap();
    let delay = Duration::from_secs(10);
    store.finish(lease, Outcome::Retry { problem: problem(), delay }).await.unwrap().unwrap();
    machine.pass(9_999);
    assert!(claim(&store, 9).await.is_empty());
    machine.set(-HOUR_MS);
    machine.pass(1);
    assert_eq!(claim_one(&store).await.0.id, record.id);
}

#[tokio::test]
async fn setting_the_clock_back_between_two_processes_delays_nothing() {
    let (dir, machine) = (tempfile::tempdir().unwrap(), Machine::new());
    let store = machine.store(&dir).await;
    let [waits, retried] = accept(&store, 2).await.try_into().unwrap();
    let leases = claim(&store, 9).await;
    for (record, lease) in leases {
        let outcome = match record.id == retried {
            true => Outcome::Retry { problem: problem(), delay: Duration::from_secs(10) },
            false => Outcome::Released,
        };
        store.finish(lease, outcome).await.unwrap().unwrap();
    }
    drop(store);
    machine.set(-HOUR_MS);
    let store = machine.store(&dir).await;
    assert_eq!(ids(&claim(&store, 9).await), [waits]);
    machine.pass(10_000);
    assert_eq!(ids(&claim(&store, 9).await), [retried]);
}

/// The timeout of these generations is ten minutes.
#[tokio::test]
async fn a_start_timeout_keeps_its_length_when_the_clock_changes() {
    let (dir, machine) = (tempfile::tempdir().unwrap(), Machine::new());
    let store = machine.store(&dir).await;
    let rightly = accept(&store, 1).await;
    drop(store);
    machine.set(HOUR_MS);
    let store = machine.store(&dir).await;
    let wrongly = accept(&store, 1).await;
    drop(store);
    machine.set(-HOUR_MS);
    let store = machine.store(&dir).await;
    machine.pass(9 * MINUTE_MS);
    assert_eq!(store.expire_overdue().await.unwrap().len(), 0);
    machine.pass(MINUTE_MS);
    let expired: Vec<_> = store.expire_overdue().await.unwrap().iter().map(|record| record.id).collect();
    assert_eq!(expired.len(), 2);
    assert!([rightly, wrongly].concat().iter().all(|id| expired.contains(id)));
}

#[test]
fn time_never_goes_back_when_the_system_clock_does() {
    let script = [(1000, 0), (1010, 10), (9000, 20), (500, 30), (510, 40), (8995, 45), (9100, 50), (9090, 60)];
    let at = Arc::new(AtomicI64::new(0));
    let step = at.clone();
    let clock = Clock::new(move || {
        let (wall_ms, steady) = script[step.load(Ordering::Relaxed) as usize];
        Reading { wall_ms, steady: Duration::from_millis(steady) }
    });
    let seen: Vec<i64> = (0..script.len() as i64)
        .map(|step| {
            at.store(step, Ordering::Relaxed);
            clock.now_ms()
        })
        .collect();
    assert_eq!(seen, [1000, 1010, 9000, 9010, 9020, 9025, 9100, 9110]);
}
