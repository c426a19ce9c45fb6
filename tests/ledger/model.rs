//! Random operations on a store and on a model of it that a reader can check by eye: both must always agree.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use latentd::generation::{EventKind, GenerationId, Status};
use latentd::ledger::{Acceptance, Counts, Lease, ListQuery, Outcome, Store, StoreError};
use proptest::{prelude::*, test_runner::TestRunner};

use crate::place::{HOUR, Place, claim, generation, get, history, image, overdue, problem, reap_all, request};

const MAX_QUEUED: usize = 6;

/// Indexes choose among what there is, modulo its number.
#[derive(Clone, Debug)]
enum Operation {
    Accept { overdue: bool },
    Claim { limit: usize },
    Finish { lease: usize, how: How },
    Cancel(usize),
    Delete(usize),
    RequeueRunning { max_attempts: u32 },
    ExpireOverdue,
    Reopen,
}

#[derive(Clone, Copy, Debug)]
enum How {
    Succeeded,
    Failed,
    Canceled,
    Released,
    RetryNow,
    RetryLater,
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    use How::*;
    let how = prop::sample::select(vec![Succeeded, Failed, Canceled, Released, RetryNow, RetryLater]);
    let operation = prop_oneof![
        8 => prop::bool::weighted(0.2).prop_map(|overdue| Operation::Accept { overdue }),
        5 => (0..4usize).prop_map(|limit| Operation::Claim { limit }),
        6 => (any::<usize>(), how).prop_map(|(lease, how)| Operation::Finish { lease, how }),
        3 => any::<usize>().prop_map(Operation::Cancel),
        2 => any::<usize>().prop_map(Operation::Delete),
        2 => (1..4u32).prop_map(|max_attempts| Operation::RequeueRunning { max_attempts }),
        1 => Just(Operation::ExpireOverdue),
        1 => Just(Operation::Reopen),
    ];
    prop::collection::vec(operation, 1..60)
}

/// Runs so many random histories, each on a place of its own.
pub fn holds<P: Place, F: Future<Output = Option<P>>>(place: impl Fn() -> F, runs: u32) {
    let config =
        ProptestConfig { cases: runs, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let run = |operations| {
        runtime.block_on(async {
            let Some(place) = place().await else { return };
            let mut both = Both { store: Some(place.open().await), model: Model::default(), leases: Vec::new() };
            for operation in operations {
                both.apply(&place, operation).await;
                both.compare().await;
            }
        });
        Ok(())
    };
    TestRunner::new(config).run(&operations(), run).unwrap();
}

#[derive(Default)]
struct Model {
    rows: BTreeMap<GenerationId, Row>,
}

#[derive(Debug)]
struct Row {
    status: &'static str,
    attempt: u32,
    fence: i64,
    version: i64,
    cancel_requested: bool,
    /// Overdue until it is claimed for the first time.
    overdue: bool,
    /// Waits for an hour.
    delayed: bool,
    history: Vec<EventKind>,
}

impl Row {
    fn change(&mut self, status: &'static str, event: EventKind) {
        self.status = status;
        self.version += 1;
        self.history.push(event);
    }
}

impl Model {
    fn accept(&mut self, id: GenerationId, overdue: bool) -> bool {
        let fits = self.count("queued") < MAX_QUEUED;
        if fits {
            let row = Row {
                status: "queued",
                attempt: 0,
                fence: 0,
                version: 1,
                cancel_requested: false,
                overdue,
                delayed: false,
                history: vec![EventKind::Queued],
            };
            self.rows.insert(id, row);
        }
        fits
    }

    fn claim(&mut self, limit: usize) -> Vec<(GenerationId, i64)> {
        let free = self.rows.iter_mut().filter(|(_, row)| row.status == "queued" && !row.overdue && !row.delayed);
        let claim = |(id, row): (&GenerationId, &mut Row)| {
            row.attempt += 1;
            row.fence += 1;
            row.change("running", EventKind::Started);
            (*id, row.fence)
        };
        free.take(limit).map(claim).collect()
    }

    fn finish(&mut self, id: GenerationId, fence: i64, how: How) -> bool {
        let Some(row) = self.rows.get_mut(&id) else { return false };
        if row.status != "running" || row.fence != fence {
            return false;
        }
        match how {
            How::Succeeded => row.change("succeeded", EventKind::Succeeded),
            How::Failed => row.change("failed", EventKind::Failed),
            How::Canceled => row.change("canceled", EventKind::Canceled),
            How::Released | How::RetryNow | How::RetryLater if row.cancel_requested => {
                row.change("canceled", EventKind::Canceled);
            }
            How::Released => {
                row.attempt -= 1;
                row.change("queued", EventKind::Retrying);
            }
            How::RetryNow => row.change("queued", EventKind::Retrying),
            How::RetryLater => {
                row.delayed = true;
                row.change("queued", EventKind::Retrying);
            }
        }
        true
    }

    fn cancel(&mut self, id: GenerationId) {
        let Some(row) = self.rows.get_mut(&id) else { return };
        match row.status {
            "queued" => {
                row.cancel_requested = true;
                row.change("canceled", EventKind::Canceled);
            }
            "running" if !row.cancel_requested => {
                row.cancel_requested = true;
                row.version += 1;
            }
            _ => {}
        }
    }

    fn requeue_running(&mut self, max_attempts: u32) -> usize {
        let mut queued = 0;
        for row in self.rows.values_mut().filter(|row| row.status == "running") {
            if row.cancel_requested {
                row.change("canceled", EventKind::Canceled);
            } else if row.attempt >= max_attempts {
                row.change("failed", EventKind::Failed);
            } else {
                row.change("queued", EventKind::Retrying);
                queued += 1;
            }
        }
        queued
    }

    fn expire_overdue(&mut self) -> Vec<GenerationId> {
        let overdue = self.rows.iter_mut().filter(|(_, row)| row.status == "queued" && row.overdue);
        let expire = |(id, row): (&GenerationId, &mut Row)| {
            row.change("expired", EventKind::Expired);
            *id
        };
        overdue.map(expire).collect()
    }

    fn count(&self, status: &str) -> usize {
        self.rows.values().filter(|row| row.status == status).count()
    }
}

struct Both {
    /// `None` only for the moment in which it is opened again.
    store: Option<Arc<dyn Store>>,
    model: Model,
    /// Also those that are stale.
    leases: Vec<Lease>,
}

impl Both {
    async fn apply(&mut self, place: &dyn Place, operation: Operation) {
        match operation {
            Operation::Accept { overdue: late } => {
                let generation = if late { overdue() } else { generation() };
                let request = Acceptance { max_queued: MAX_QUEUED, ..request(&generation) };
                let id = request.id;
                match self.store().accept(&request).await {
                    Ok(_) => assert!(self.model.accept(id, late)),
                    Err(StoreError::QueueFull { queued }) => {
                        assert!(!self.model.accept(id, late));
                        assert_eq!(queued, self.model.count("queued"));
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            Operation::Claim { limit } => {
                let claimed = claim(self.store(), limit).await;
                let expected = self.model.claim(limit);
                let got: Vec<_> = claimed.iter().map(|(record, lease)| (record.id, lease.fence())).collect();
                assert_eq!(got, expected);
                self.leases.extend(claimed.into_iter().map(|(_, lease)| lease));
            }
            Operation::Finish { lease, how } => {
                if !self.leases.is_empty() {
                    let lease = self.leases.swap_remove(lease % self.leases.len());
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
            Operation::Delete(which) => {
                let id = self.any(which);
                let deleted = self.store().delete(id).await;
                match self.model.rows.get(&id).map(|row| row.status) {
                    None => assert!(deleted.unwrap().is_none()),
                    Some("queued" | "running") => assert!(matches!(deleted, Err(StoreError::NotFinished))),
                    Some(_) => {
                        assert!(deleted.unwrap().is_some());
                        self.model.rows.remove(&id);
                        assert_eq!(history(self.store(), id).await, []);
                    }
                }
            }
            Operation::RequeueRunning { max_attempts } => {
                let queued = reap_all(self.store(), max_attempts).await.queued.len();
                assert_eq!(queued, self.model.requeue_running(max_attempts));
            }
            Operation::ExpireOverdue => {
                let mut expired: Vec<_> =
                    self.store().expire_overdue().await.unwrap().into_iter().map(|record| record.id).collect();
                expired.sort();
                assert_eq!(expired, self.model.expire_overdue());
            }
            Operation::Reopen => {
                drop(self.store.take());
                self.store = Some(place.open().await);
            }
        }
    }

    fn store(&self) -> &dyn Store {
        self.store.as_deref().expect("it is open")
    }

    /// Any generation that there is, or at times one that there is not.
    fn any(&self, which: usize) -> GenerationId {
        let known: Vec<_> = self.model.rows.keys().copied().collect();
        known.get(which % (known.len() + 1)).copied().unwrap_or_default()
    }

    async fn compare(&self) {
        let store = self.store();
        let newest_first = ListQuery { limit: usize::MAX, ..ListQuery::default() };
        let listed = store.list(&newest_first).await.unwrap();
        let ids: Vec<_> = listed.records.iter().map(|record| record.id).collect();
        assert_eq!(ids, self.model.rows.keys().rev().copied().collect::<Vec<_>>());
        let mut position = 0;
        for (id, row) in &self.model.rows {
            let record = get(store, *id).await;
            assert_eq!(
                (record.status.as_str(), record.attempt, record.version, record.cancel_requested),
                (row.status, row.attempt, row.version, row.cancel_requested),
            );
            assert_eq!(record.started_at.is_some(), row.fence > 0);
            assert_eq!(record.finished_at.is_some(), record.status.is_terminal());
            assert_eq!(record.expires_at, record.finished_at.map(|at| at + HOUR));
            match &record.status {
                Status::Succeeded { images } => assert_eq!(images, &[image()]),
                Status::Failed { problem } => assert!(!problem.code.is_empty()),
                _ => {}
            }
            assert_eq!(history(store, *id).await, row.history);
            let queued = row.status == "queued";
            assert_eq!(store.position(*id).await.unwrap(), queued.then_some(position));
            position += usize::from(queued);
        }
        let counts = Counts { queued: self.model.count("queued"), running: self.model.count("running") };
        assert_eq!(store.counts().await.unwrap(), counts);
    }
}

fn outcome(how: How) -> Outcome {
    match how {
        How::Succeeded => Outcome::Succeeded(vec![image()]),
        How::Failed => Outcome::Failed(problem()),
        How::Canceled => Outcome::Canceled,
        How::Released => Outcome::Released,
        How::RetryNow => Outcome::Retry { problem: problem(), delay: Duration::ZERO },
        How::RetryLater => Outcome::Retry { problem: problem(), delay: HOUR },
    }
}
