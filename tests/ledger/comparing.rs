//! Applies random operations to a store and to its model ([`Model`]). Both must always agree.

use std::{sync::Arc, time::Duration};

use latentd::generation::{GenerationId, Job, Priority, Status};
use latentd::ledger::{
    Acceptance, Accepted, Claimant, Counts, Crew, KeyRecord, Lease, ListQuery, Outcome, Reaping, Refusal, Store,
    StoreError,
};
use proptest::{prelude::*, sample::select, test_runner::TestRunner};

use crate::model::{Answer, Ask, How, MOST_CRASHES, Model, Tenant};
use crate::place::{
    HOUR, LAST, Place, artifact, crew, generation, get, history, late_worker, overdue, problem, worker,
};

const MAX_QUEUED: usize = 7;
const MAX_STARRED: usize = 2;
const TENANTS: [&str; 3] = ["default", "two", "free"];
const KEYS: [&str; 2] = ["first", "second"];
const PRIORITIES: [Priority; 3] = [Priority::Low, Priority::Normal, Priority::High];

/// An operation. An index selects an existing generation or lease modulo their number.
#[derive(Clone, Debug)]
enum Operation {
    /// `id` selects the id of a known generation. A new id is used if it is `None`.
    Accept {
        ask: Asking,
        id: Option<usize>,
    },
    Claim {
        worker: usize,
        is_late: bool,
        limit: usize,
        idle: bool,
    },
    Renew {
        is_late: bool,
    },
    Finish {
        lease: usize,
        how: How,
        is_kept: bool,
    },
    Cancel(usize),
    Delete(usize),
    Star {
        which: usize,
        starred: bool,
    },
    Revive(usize),
    Reap {
        all: bool,
        max_crashes: u32,
        is_delayed: bool,
    },
    ExpireOverdue,
    Age {
        is_due: bool,
    },
    Tune {
        tenant: &'static str,
        weight: f64,
        max_queued: Option<u32>,
        max_running: Option<u32>,
    },
    Purge,
    Reopen,
}

#[derive(Clone, Debug)]
struct Asking {
    tenant: &'static str,
    fingerprint: u8,
    key: Option<(&'static str, bool)>,
    priority: Priority,
    cost: f64,
    is_overdue: bool,
}

fn asking() -> impl Strategy<Value = Asking> {
    let key = prop::option::weighted(0.3, (select(KEYS.as_slice()), prop::bool::weighted(0.3)));
    // Sums and quotients of these costs are exact, so the store and the model compute equal bits.
    let cost = select(vec![0.5, 1.0, 3.0]);
    let priority = select(PRIORITIES.as_slice());
    (select(TENANTS.as_slice()), 1..3u8, key, priority, cost, prop::bool::weighted(0.15)).prop_map(
        |(tenant, fingerprint, key, priority, cost, is_overdue)| Asking {
            tenant,
            fingerprint,
            key,
            priority,
            cost,
            is_overdue,
        },
    )
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    use How::*;
    let which = any::<usize>;
    let how = select(vec![Succeeded, Failed, Canceled, Released, RetryNow, RetryLater, DeviceLost]);
    let bound = |range| prop::option::weighted(0.5, range);
    let claim = (0..2usize, prop::bool::weighted(0.4), 0..4usize, prop::bool::weighted(0.7));
    let tune = (select(TENANTS.as_slice()), select(vec![0.5, 1.0, 2.0]), bound(0..5u32), bound(0..3u32));
    let operation = prop_oneof![
        16 => asking().prop_map(|ask| Operation::Accept { ask, id: None }),
        2 => (asking(), which()).prop_map(|(ask, id)| Operation::Accept { ask, id: Some(id) }),
        12 => claim.prop_map(|(worker, is_late, limit, idle)| Operation::Claim { worker, is_late, limit, idle }),
        3 => any::<bool>().prop_map(|is_late| Operation::Renew { is_late }),
        10 => (which(), how, prop::bool::weighted(0.2))
            .prop_map(|(lease, how, is_kept)| Operation::Finish { lease, how, is_kept }),
        4 => which().prop_map(Operation::Cancel),
        3 => which().prop_map(Operation::Delete),
        6 => (which(), prop::bool::weighted(0.7)).prop_map(|(which, starred)| Operation::Star { which, starred }),
        3 => which().prop_map(Operation::Revive),
        6 => (prop::bool::weighted(0.3), 1..4u32, prop::bool::weighted(0.2))
            .prop_map(|(all, max_crashes, is_delayed)| Operation::Reap { all, max_crashes, is_delayed }),
        2 => Just(Operation::ExpireOverdue),
        2 => any::<bool>().prop_map(|is_due| Operation::Age { is_due }),
        2 => tune.prop_map(|(tenant, weight, max_queued, max_running)| {
            Operation::Tune { tenant, weight, max_queued, max_running }
        }),
        1 => Just(Operation::Purge),
        1 => Just(Operation::Reopen),
    ];
    prop::collection::vec(operation, 1..70)
}

/// Runs `runs` random sequences of operations, each on a new place.
pub fn a_store_agrees_with_the_model<P: Place, F: Future<Output = Option<P>>>(place: impl Fn() -> F, runs: u32) {
    let config =
        ProptestConfig { cases: runs, max_shrink_iters: 400, failure_persistence: None, ..ProptestConfig::default() };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let run = |operations: Vec<Operation>| {
        runtime.block_on(async {
            let Some(place) = place().await else { return };
            let mut both = Both::new(&place).await;
            for operation in operations {
                both.apply(&place, operation).await;
                both.compare().await;
            }
        });
        Ok(())
    };
    if let Err(error) = TestRunner::new(config).run(&operations(), run) {
        panic!("{error}");
    }
}

struct Both {
    /// `None` only while the store is being reopened.
    store: Option<Arc<dyn Store>>,
    model: Model,
    /// Valid and stale leases.
    leases: Vec<Lease>,
    keys: usize,
}

impl Both {
    async fn new(place: &dyn Place) -> Both {
        let mut model = Model::default();
        let tenant = Tenant { weight: 1.0, vft: 0.0, max_queued: None, max_running: None };
        model.tenants.insert("default", tenant);
        let mut both = Both { store: Some(place.open().await), model, leases: Vec::new(), keys: 0 };
        both.tune("two", 2.0, Some(4), Some(2)).await;
        both
    }

    async fn apply(&mut self, place: &dyn Place, operation: Operation) {
        match operation {
            Operation::Accept { ask, id } => self.accept(ask, id).await,
            Operation::Claim { worker: at, is_late, limit, idle } => {
                let claimed = self.store().claim(&claimant(at, is_late), limit, idle).await.unwrap();
                let expected = self.model.claim(at, is_late, limit, idle);
                let got: Vec<_> = claimed.iter().map(|(record, lease)| (record.id, lease.fence())).collect();
                assert_eq!(got, expected);
                self.leases.extend(claimed.into_iter().map(|(_, lease)| lease));
            }
            Operation::Renew { is_late } => {
                let renewed = self.store().renew(&claimant(0, is_late), &self.leases).await.unwrap();
                let mut got: Vec<_> =
                    renewed.iter().map(|renewed| (renewed.id, renewed.fence, renewed.cancel_requested)).collect();
                got.sort();
                let leases: Vec<_> = self.leases.iter().map(|lease| (lease.id(), lease.fence())).collect();
                let mut expected = self.model.renew(&leases, is_late);
                expected.sort();
                assert_eq!(got, expected);
            }
            Operation::Finish { lease, how, is_kept } => {
                if !self.leases.is_empty() {
                    let at = lease % self.leases.len();
                    let lease = if is_kept { self.leases[at].clone() } else { self.leases.swap_remove(at) };
                    let expected = self.model.finish(lease.id(), lease.fence(), how);
                    assert_eq!(self.store().finish(lease, outcome(how)).await.unwrap().is_some(), expected);
                }
            }
            Operation::Cancel(which) => {
                let id = self.any(which);
                let record = self.store().cancel(id).await.unwrap();
                assert_eq!(record.is_some(), self.model.rows.contains_key(&id));
                self.model.cancel(id);
            }
            Operation::Delete(which) => self.delete(which).await,
            Operation::Star { which, starred } => {
                let id = self.any(which);
                let done = match self.store().star(id, starred, MAX_STARRED).await {
                    Ok(record) => record.map(|record| record.starred == starred),
                    Err(StoreError::Refused(Refusal::NotSucceeded | Refusal::StarsFull { .. })) => Some(false),
                    Err(error) => panic!("{error}"),
                };
                assert_eq!(done, self.model.star(id, starred, MAX_STARRED));
            }
            Operation::Revive(which) => {
                let dead = self.model.rows.iter().find(|(_, row)| row.is_dead).map(|(id, _)| *id);
                let id = dead.filter(|_| which % 4 != 0).unwrap_or_else(|| self.any(which));
                assert_eq!(self.store().revive(id).await.unwrap().is_some(), self.model.revive(id));
            }
            Operation::Reap { all, max_crashes, is_delayed } => {
                let backoff = if is_delayed { HOUR } else { Duration::ZERO };
                let mut reaped = self.store().reap(&Reaping { all, max_crashes, backoff }).await.unwrap();
                reaped.queued.sort();
                let mut ended: Vec<_> = reaped.ended.iter().map(|record| record.id).collect();
                ended.sort();
                assert_eq!((reaped.queued, ended), self.model.reap(all, max_crashes, is_delayed));
            }
            Operation::ExpireOverdue => {
                let expired = self.store().expire_overdue().await.unwrap();
                let mut expired: Vec<_> = expired.iter().map(|record| record.id).collect();
                expired.sort();
                assert_eq!(expired, self.model.expire_overdue());
            }
            Operation::Age { is_due } => {
                self.store().age(if is_due { Duration::ZERO } else { HOUR }).await.unwrap();
                if is_due {
                    self.model.age();
                }
            }
            Operation::Tune { tenant, weight, max_queued, max_running } => {
                self.tune(tenant, weight, max_queued, max_running).await;
            }
            Operation::Purge => self.store().purge().await.unwrap(),
            Operation::Reopen => {
                drop(self.store.take());
                self.store = Some(place.open().await);
            }
        }
    }

    async fn accept(&mut self, asking: Asking, id: Option<usize>) {
        let generation = if asking.is_overdue { overdue() } else { generation() };
        let generation = Job { priority: asking.priority, ..generation };
        let ask = Ask {
            id: id.map_or_else(GenerationId::new, |which| self.any(which)),
            tenant: asking.tenant,
            fingerprint: asking.fingerprint,
            key: asking.key,
            priority: asking.priority.rank(),
            cost: asking.cost,
            is_overdue: asking.is_overdue,
            max_queued: MAX_QUEUED,
        };
        let acceptance = Acceptance {
            id: ask.id,
            tenant: ask.tenant,
            api_key: None,
            job: &generation,
            fingerprint: [ask.fingerprint; 32],
            key: ask.key.map(|(key, is_over)| (key, if is_over { Duration::ZERO } else { HOUR })),
            cost: ask.cost,
            assumed_speed: 100.0,
            max_queued: ask.max_queued,
        };
        let answer = match self.store().accept(&acceptance).await {
            Ok(Accepted::New(record)) => {
                assert_eq!(record.id, ask.id);
                Answer::New
            }
            Ok(Accepted::Again(record)) => Answer::Again(record.id),
            Err(StoreError::Refused(Refusal::QueueFull { queued })) => Answer::QueueFull(queued),
            Err(StoreError::Refused(Refusal::TenantQueueFull { queued })) => Answer::TenantQueueFull(queued),
            Err(StoreError::Refused(Refusal::KeyReused)) => Answer::KeyReused,
            Err(StoreError::Refused(Refusal::IdTaken)) => Answer::IdTaken,
            Err(error) => panic!("{error}"),
        };
        assert_eq!(answer, self.model.accept(ask));
    }

    async fn delete(&mut self, which: usize) {
        let id = self.any(which);
        let deleted = self.store().delete(id, None).await;
        match self.model.rows.get(&id).map(|row| row.status) {
            None => assert!(deleted.unwrap().is_none()),
            Some("queued" | "running") => assert!(matches!(deleted, Err(StoreError::Refused(Refusal::NotFinished)))),
            Some(_) => {
                assert!(deleted.unwrap().is_some());
                self.model.delete(id);
                assert_eq!(history(self.store(), id).await, []);
            }
        }
    }

    async fn tune(&mut self, tenant: &'static str, weight: f64, max_queued: Option<u32>, max_running: Option<u32>) {
        self.keys += 1;
        let id = format!("key {}", self.keys);
        let key = KeyRecord {
            id,
            sha256: [0; 32],
            tenant: tenant.to_owned(),
            weight,
            max_queued,
            max_running,
            terms: Default::default(),
        };
        self.store().create_key(&key).await.unwrap();
        let vft = self.model.tenants.get(tenant).map_or(0.0, |tenant| tenant.vft);
        self.model.tenants.insert(tenant, Tenant { weight, vft, max_queued, max_running });
    }

    fn store(&self) -> &dyn Store {
        self.store.as_deref().expect("the store is open")
    }

    /// Returns the id of a known generation, or sometimes an unknown id.
    fn any(&self, which: usize) -> GenerationId {
        let known: Vec<_> = self.model.rows.keys().copied().collect();
        known.get(which % (known.len() + 1)).copied().unwrap_or_default()
    }

    async fn compare(&self) {
        let store = self.store();
        assert_eq!(self.listed(ListQuery::default()).await, self.newest_first(|_| true));
        assert_eq!(
            self.listed(ListQuery { dead: true, ..ListQuery::default() }).await,
            self.newest_first(|row| row.is_dead)
        );
        let queue = self.model.queue();
        for (id, row) in &self.model.rows {
            let record = get(store, *id).await;
            assert_eq!(
                (record.status.as_str(), record.attempt, record.version, record.cancel_requested),
                (row.status, row.attempt, row.version, row.cancel_requested),
            );
            assert_eq!(
                (record.tenant.as_str(), record.crash_count, record.dead, record.started_at.is_some()),
                (row.ask.tenant, row.crashes, row.is_dead, row.has_started)
            );
            assert_eq!(record.finished_at.is_some(), record.status.is_terminal());
            assert_eq!(record.starred, row.is_starred);
            match record.finished_at.map(|at| at + HOUR) {
                _ if row.is_starred => assert_eq!(record.expires_at, None),
                // The retention began again.
                expires_at if row.was_starred => assert!(record.expires_at >= expires_at),
                expires_at => assert_eq!(record.expires_at, expires_at),
            }
            match &record.status {
                Status::Succeeded { artifacts } => assert_eq!(artifacts, &[artifact()]),
                Status::Failed { problem } => assert!(!problem.code.is_empty()),
                _ => {}
            }
            assert_eq!(history(store, *id).await, row.history);
            assert_eq!(
                store.place(*id, &Crew::default()).await.unwrap().map(|place| place.position),
                queue.iter().position(|queued| queued == id)
            );
        }
        for tenant in TENANTS {
            for key in KEYS {
                let known = self.model.keys.get(&(tenant, key)).map(|(id, fingerprint)| (*id, [*fingerprint; 32]));
                assert_eq!(store.find_accepted(tenant, key).await.unwrap(), known);
            }
        }
        let [queued, running] = ["queued", "running"].map(|status| self.model.count(status, None));
        assert_eq!(store.counts().await.unwrap(), Counts { queued, running });
        let active = self.model.rows.values().filter(|row| ["queued", "running"].contains(&row.status));
        assert_eq!(
            store.workload(&LAST, &crew(HOUR, 0)).await.unwrap().cost,
            active.map(|row| row.ask.cost).sum::<f64>()
        );
    }

    async fn listed(&self, query: ListQuery) -> Vec<GenerationId> {
        let page = self.store().list(&ListQuery { limit: usize::MAX, ..query }).await.unwrap();
        page.records.iter().map(|record| record.id).collect()
    }

    fn newest_first(&self, wanted: impl Fn(&crate::model::Row) -> bool) -> Vec<GenerationId> {
        self.model.rows.iter().rev().filter(|(_, row)| wanted(row)).map(|(id, _)| *id).collect()
    }
}

fn claimant(at: usize, is_late: bool) -> Claimant {
    let name = format!("worker {at}");
    if is_late { late_worker(&name) } else { worker(&name) }
}

fn outcome(how: How) -> Outcome {
    match how {
        How::Succeeded => Outcome::Succeeded(vec![artifact()]),
        How::Failed => Outcome::Failed(problem()),
        How::Canceled => Outcome::Canceled,
        How::Released => Outcome::Released,
        How::RetryNow => Outcome::Retry { problem: problem(), delay: Duration::ZERO },
        How::RetryLater => Outcome::Retry { problem: problem(), delay: HOUR },
        How::DeviceLost => Outcome::DeviceLost { problem: problem(), max_crashes: MOST_CRASHES },
    }
}
