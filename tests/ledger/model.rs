//! A simple model of a store: maps in memory without a clock. Random tests compare real stores with it.

use std::collections::BTreeMap;

use latentd::generation::{EventKind, GenerationId};

use crate::place::ALONE_FROM;

/// The number of crashes at which a generation is given up when its device is lost.
pub const MOST_CRASHES: u32 = 3;

/// The outcome of a run.
#[derive(Clone, Copy, Debug)]
pub enum How {
    Succeeded,
    Failed,
    Canceled,
    Released,
    RetryNow,
    RetryLater,
    /// The device was lost; the generation is given up after three crashes.
    DeviceLost,
}

/// The answer of [`Model::accept`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Answer {
    New,
    Again(GenerationId),
    QueueFull(usize),
    TenantQueueFull(usize),
    KeyReused,
    IdTaken,
}

/// The fields of a request that the model uses.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    pub id: GenerationId,
    pub tenant: &'static str,
    pub fingerprint: u8,
    /// The idempotency key, and whether it expires immediately.
    pub key: Option<(&'static str, bool)>,
    pub priority: i16,
    pub cost: f64,
    /// Whether the start timeout passes before the first claim.
    pub is_overdue: bool,
    pub max_queued: usize,
}

#[derive(Debug)]
pub struct Tenant {
    pub weight: f64,
    /// Virtual finish time of the tenant's newest generation.
    pub vft: f64,
    pub max_queued: Option<u32>,
    pub max_running: Option<u32>,
}

#[derive(Debug)]
pub struct Row {
    pub ask: Ask,
    pub status: &'static str,
    pub priority: i16,
    pub vft: f64,
    pub attempt: u32,
    pub fence: i64,
    pub version: i64,
    pub crashes: u32,
    pub is_dead: bool,
    pub has_started: bool,
    pub cancel_requested: bool,
    /// Whether a retry or a backoff delays the generation for longer than any test.
    pub is_delayed: bool,
    /// The worker, and whether the lease has ended.
    pub lease: Option<(usize, bool)>,
    pub history: Vec<EventKind>,
    pub is_starred: bool,
    /// Whether a star was taken away.
    pub was_starred: bool,
}

impl Row {
    fn change(&mut self, status: &'static str, event: EventKind) {
        self.status = status;
        self.version += 1;
        self.history.push(event);
        self.lease = None;
    }
}

#[derive(Default)]
pub struct Model {
    pub rows: BTreeMap<GenerationId, Row>,
    pub tenants: BTreeMap<&'static str, Tenant>,
    /// Generation and fingerprint of each valid key, by tenant and key.
    pub keys: BTreeMap<(&'static str, &'static str), (GenerationId, u8)>,
    /// The virtual time of the queue.
    clock: f64,
}

impl Model {
    pub fn accept(&mut self, ask: Ask) -> Answer {
        let known = ask.key.and_then(|(key, _)| self.keys.get(&(ask.tenant, key)));
        if let Some((id, fingerprint)) = known {
            return if *fingerprint == ask.fingerprint { Answer::Again(*id) } else { Answer::KeyReused };
        }
        if let Some(row) = self.rows.get(&ask.id) {
            let same = (row.ask.tenant, row.ask.fingerprint) == (ask.tenant, ask.fingerprint);
            return if same { Answer::Again(ask.id) } else { Answer::IdTaken };
        }
        let (queued, own) = (self.count("queued", None), self.count("queued", Some(ask.tenant)));
        if queued >= ask.max_queued {
            return Answer::QueueFull(queued);
        }
        let unknown = || Tenant { weight: 1.0, vft: 0.0, max_queued: None, max_running: None };
        let tenant = self.tenants.entry(ask.tenant).or_insert_with(unknown);
        if tenant.max_queued.is_some_and(|most| own >= most as usize) {
            return Answer::TenantQueueFull(own);
        }
        tenant.vft = tenant.vft.max(self.clock) + ask.cost / tenant.weight;
        let row = Row {
            ask,
            status: "queued",
            priority: ask.priority,
            vft: tenant.vft,
            attempt: 0,
            fence: 0,
            version: 1,
            crashes: 0,
            is_dead: false,
            has_started: false,
            cancel_requested: false,
            is_delayed: false,
            lease: None,
            history: vec![EventKind::Queued],
            is_starred: false,
            was_starred: false,
        };
        self.rows.insert(ask.id, row);
        if let Some((key, false)) = ask.key {
            self.keys.insert((ask.tenant, key), (ask.id, ask.fingerprint));
        }
        Answer::New
    }

    /// The queued generations in the order of claims.
    pub fn queue(&self) -> Vec<GenerationId> {
        let mut queue: Vec<_> = self.rows.iter().filter(|(_, row)| row.status == "queued").collect();
        queue.sort_by(|(a_id, a), (b_id, b)| {
            b.priority.cmp(&a.priority).then(a.vft.total_cmp(&b.vft)).then(a_id.cmp(b_id))
        });
        queue.into_iter().map(|(id, _)| *id).collect()
    }

    pub fn claim(&mut self, worker: usize, is_late: bool, limit: usize, idle: bool) -> Vec<(GenerationId, i64)> {
        let runs_alone = |row: &Row| row.lease.is_some_and(|(owner, _)| owner == worker) && row.crashes >= ALONE_FROM;
        if self.rows.values().any(runs_alone) {
            return Vec::new();
        }
        let mut claimed = Vec::new();
        for id in self.queue() {
            let row = &self.rows[&id];
            if claimed.len() == limit {
                break;
            }
            let most = self.tenants[row.ask.tenant].max_running.map_or(usize::MAX, |most| most as usize);
            if row.ask.is_overdue || row.is_delayed || self.count("running", Some(row.ask.tenant)) >= most {
                continue;
            }
            let alone = row.crashes >= ALONE_FROM;
            if alone && (!idle || !claimed.is_empty()) {
                break;
            }
            self.clock = self.clock.max(row.vft);
            let row = self.rows.get_mut(&id).unwrap();
            row.attempt += 1;
            row.fence += 1;
            row.has_started = true;
            row.change("running", EventKind::Started);
            row.lease = Some((worker, is_late));
            claimed.push((id, row.fence));
            if alone {
                break;
            }
        }
        claimed
    }

    /// Renews the leases that are still valid. Returns id, fence and whether a cancel was requested for each of them.
    pub fn renew(&mut self, leases: &[(GenerationId, i64)], is_late: bool) -> Vec<(GenerationId, i64, bool)> {
        let mut renewed = Vec::new();
        for (id, fence) in leases {
            if let Some(row) = self.held(*id, *fence) {
                row.lease = row.lease.map(|(worker, _)| (worker, is_late));
                renewed.push((*id, *fence, row.cancel_requested));
            }
        }
        renewed
    }

    pub fn finish(&mut self, id: GenerationId, fence: i64, how: How) -> bool {
        let Some(row) = self.held(id, fence) else { return false };
        match how {
            How::Failed => row.change("failed", EventKind::Failed),
            How::Canceled => row.change("canceled", EventKind::Canceled),
            _ if row.cancel_requested => {
                row.crashes += u32::from(matches!(how, How::DeviceLost));
                row.change("canceled", EventKind::Canceled);
            }
            How::Succeeded => row.change("succeeded", EventKind::Succeeded),
            How::Released => {
                row.attempt -= 1;
                row.change("queued", EventKind::Retrying);
            }
            How::RetryNow | How::RetryLater => {
                row.is_delayed = matches!(how, How::RetryLater);
                row.change("queued", EventKind::Retrying);
            }
            How::DeviceLost => {
                row.crashes += 1;
                if row.crashes >= MOST_CRASHES {
                    row.is_dead = true;
                    row.change("failed", EventKind::Failed);
                } else {
                    row.attempt -= 1;
                    row.change("queued", EventKind::Retrying);
                }
            }
        }
        true
    }

    fn held(&mut self, id: GenerationId, fence: i64) -> Option<&mut Row> {
        self.rows.get_mut(&id).filter(|row| row.status == "running" && row.fence == fence)
    }

    /// Returns the generations that are queued again, and the generations that have ended.
    pub fn reap(&mut self, all: bool, max_crashes: u32, is_delayed: bool) -> (Vec<GenerationId>, Vec<GenerationId>) {
        let (mut queued, mut ended) = (Vec::new(), Vec::new());
        for (id, row) in &mut self.rows {
            if !row.lease.is_some_and(|(_, has_ended)| all || has_ended) {
                continue;
            }
            row.crashes += 1;
            if row.cancel_requested {
                row.change("canceled", EventKind::Canceled);
                ended.push(*id);
            } else if row.crashes >= max_crashes {
                row.is_dead = true;
                row.change("failed", EventKind::Failed);
                ended.push(*id);
            } else {
                row.is_delayed = is_delayed && !all;
                row.change("queued", EventKind::Retrying);
                queued.push(*id);
            }
        }
        (queued, ended)
    }

    pub fn cancel(&mut self, id: GenerationId) {
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

    pub fn revive(&mut self, id: GenerationId) -> bool {
        let Some(row) = self.rows.get_mut(&id).filter(|row| row.is_dead) else { return false };
        row.change("queued", EventKind::Retrying);
        (row.attempt, row.crashes, row.is_dead, row.has_started, row.is_delayed) = (0, 0, false, false, false);
        true
    }

    /// Gives a generation a star, or takes the star away. Returns whether the generation now has the wanted state;
    /// `None` if there is no such generation.
    pub fn star(&mut self, id: GenerationId, starred: bool, most: usize) -> Option<bool> {
        let row = self.rows.get(&id)?;
        let of_tenant = self.rows.values().filter(|other| other.ask.tenant == row.ask.tenant && other.is_starred);
        let is_full = of_tenant.count() >= most;
        if row.is_starred == starred {
            return Some(true);
        }
        if row.status != "succeeded" || starred && is_full {
            return Some(false);
        }
        let row = self.rows.get_mut(&id)?;
        (row.is_starred, row.was_starred) = (starred, !starred);
        row.version += 1;
        Some(true)
    }

    pub fn delete(&mut self, id: GenerationId) {
        self.rows.remove(&id);
        self.keys.retain(|_, (of, _)| *of != id);
    }

    pub fn expire_overdue(&mut self) -> Vec<GenerationId> {
        let is_overdue = |row: &Row| row.status == "queued" && row.ask.is_overdue && row.fence == 0;
        let overdue = self.rows.iter_mut().filter(|(_, row)| is_overdue(row));
        let expire = |(id, row): (&GenerationId, &mut Row)| {
            row.change("expired", EventKind::Expired);
            *id
        };
        overdue.map(expire).collect()
    }

    /// Raises the priority of all queued generations by one, up to the highest.
    pub fn age(&mut self) {
        for row in self.rows.values_mut().filter(|row| row.status == "queued") {
            row.priority = (row.priority + 1).min(2);
        }
    }

    pub fn count(&self, status: &str, tenant: Option<&str>) -> usize {
        let counts = |row: &&Row| row.status == status && tenant.is_none_or(|tenant| row.ask.tenant == tenant);
        self.rows.values().filter(counts).count()
    }
}
