//! The ledger by its users: each takes the roles that it needs.

use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;

use super::{
    Acceptance, Accepted, Answer, Beat, Claimant, ClaimedDelivery, Counts, Delivery, DeliveryClaim, DeliveryPage,
    Endpoint, EndpointTerms, Fingerprint, Glance, Hint, KeyRecord, Lease, ListQuery, NewEndpoint, Next, Orders,
    Outcome, Page, Place, Reaped, Reaping, Renewed, Report, StoreError, WorkerRecord, Workload,
};
use crate::crash::Attempt;
use crate::generation::{DeliveryId, EndpointId, Event, GenerationId, Preview, Record, SigningSecret};

/// All of it, as both stores have it.
pub trait Store: Serving + Working + Sweeping + Webhooks {}
impl<S: Serving + Working + Sweeping + Webhooks> Store for S {}

/// What the service takes.
pub trait Serving: Accepts + Reads + Fleet + Keys {}
impl<S: Accepts + Reads + Fleet + Keys> Serving for S {}

/// What a worker takes.
pub trait Working: Claims + Reads + Fleet {}
impl<S: Claims + Reads + Fleet> Working for S {}

/// What the sweeper takes.
pub trait Sweeping: Upkeep + Accepts + Reads + Fleet {}
impl<S: Upkeep + Accepts + Reads + Fleet> Sweeping for S {}

/// What clients change. Every change of state, here and in the other roles, is one conditional transaction that also appends the
/// event which tells of it; a change that no longer applies changes nothing. Times are the database's.
#[async_trait]
pub trait Accepts: Send + Sync + 'static {
    /// Makes the generation durable in state `queued`, with its first event, in its tenant's place of the queue.
    ///
    /// A request that was accepted before, by its idempotency key or by its id, is answered with the generation that it
    /// made, whatever became of it since; the key is looked at first. An erased generation takes its id and its key along:
    /// both are free again, as is a key whose time is over. Nothing of an answer [`Accepted::Again`] is written.
    ///
    /// The share of its tenant is charged with the generation here, whatever becomes of it.
    ///
    /// # Errors
    /// [`Refusal::QueueFull`](super::Refusal::QueueFull), [`Refusal::TenantQueueFull`](super::Refusal::TenantQueueFull), [`Refusal::KeyReused`](super::Refusal::KeyReused), [`Refusal::IdTaken`](super::Refusal::IdTaken).
    async fn accept(&self, acceptance: &Acceptance<'_>) -> Result<Accepted, StoreError>;

    /// The generation that this tenant's idempotency key stands for, and the fingerprint of the request that made it.
    async fn find_accepted(&self, tenant: &str, key: &str) -> Result<Option<(GenerationId, Fingerprint)>, StoreError>;

    /// Cancels: a queued generation at once, a running one by a mark that its worker obeys before the next step; a
    /// finished one is returned unchanged. `None`: there is no such generation.
    async fn cancel(&self, id: GenerationId) -> Result<Option<Record>, StoreError>;

    /// Queues a dead generation again, as if it had never run, in its old place of the queue and whatever the queue's bounds.
    /// Its fence goes on, and so do its events: only here does one follow a final one. `None`: there is no such dead
    /// generation.
    async fn revive(&self, id: GenerationId) -> Result<Option<Record>, StoreError>;

    /// Erases a finished generation with its events; the caller erases the blobs of the returned record.
    ///
    /// # Errors
    /// [`Refusal::NotFinished`](super::Refusal::NotFinished).
    async fn delete(&self, id: GenerationId) -> Result<Option<Record>, StoreError>;
}

/// What is only looked at.
#[async_trait]
pub trait Reads: Send + Sync + 'static {
    async fn get(&self, id: GenerationId) -> Result<Option<Record>, StoreError>;

    /// A page of records, newest first. Unreadable rows are passed over, as in every method that looks at many.
    async fn list(&self, query: &ListQuery) -> Result<Page, StoreError>;

    /// The events after `seq`, in order. Empty for an unknown generation.
    async fn events(&self, id: GenerationId, after: i64) -> Result<Vec<Event>, StoreError>;

    /// A generation of this tenant whose request brought along the picture with this SHA-256, if one is kept; the newest of
    /// several.
    async fn find_input(&self, tenant: &str, sha256: &str) -> Result<Option<GenerationId>, StoreError>;

    /// How many generations wait and run.
    async fn counts(&self) -> Result<Counts, StoreError>;

    /// How many generations of this tenant wait and run.
    async fn counts_of(&self, tenant: &str) -> Result<Counts, StoreError>;

    /// How much work is before a generation that would be accepted now, and how fast the workers are that have beaten lately, each
    /// of which runs `slots` generations at a time.
    async fn workload(&self, lately: Duration, slots: usize) -> Result<Workload, StoreError>;

    /// The queued generations before this one in the order of the queue, whoever may claim them and when; `None` where it is
    /// not queued.
    async fn place(&self, id: GenerationId) -> Result<Option<Place>, StoreError>;

    /// Reads and writes nothing but proves that the store answers.
    async fn ping(&self) -> Result<(), StoreError>;
}

/// What a worker does with generations.
#[async_trait]
pub trait Claims: Send + Sync + 'static {
    /// Takes up to `limit` queued generations for this worker in the order of the queue: priority, then the tenants' fair
    /// share, then age. Each becomes `running` under a lease, its attempt and fence grow by one. Not taken are those that
    /// wait for the delay of a retry, those whose `start_timeout_s` has passed before their first claim, those of tenants
    /// with as many running as they may have, and those of models that the worker has not.
    ///
    /// A generation that was running when a process ended is claimed alone: by an `idle` worker, and nothing beside it, in
    /// this claim and in others of that worker for as long as it runs. One at the head of the queue keeps a worker that is not
    /// idle from claiming, so that it becomes idle; for other workers the queue goes on behind it.
    async fn claim(&self, by: &Claimant, limit: usize, idle: bool) -> Result<Vec<(Record, Lease)>, StoreError>;

    /// Prolongs the leases that still are their generations', also one that has ended but was not taken back yet, and tells of
    /// each whether its client has canceled it. One that is not returned is lost: its work must be thrown away.
    async fn renew(&self, by: &Claimant, leases: &[Lease]) -> Result<Vec<Renewed>, StoreError>;

    /// Ends a run. Returns the record, or `None` where the lease is no longer the generation's: then nothing changed
    /// and the outcome must be thrown away. A generation whose client has asked to cancel it is not queued again but
    /// canceled, and one that was canceled before its artifacts were stored does not succeed any more.
    async fn finish(&self, lease: Lease, outcome: Outcome) -> Result<Option<Record>, StoreError>;
}

/// What is done for the queue from time to time.
#[async_trait]
pub trait Upkeep: Send + Sync + 'static {
    /// Takes running generations back whose worker is gone: queued again, one crash counted, after a delay that doubles with
    /// each. Those with [`Reaping::max_crashes`] fail with `worker_crashed` and are marked dead; those whose client has asked
    /// for it are canceled. Several processes may reap at the same time.
    async fn reap(&self, reaping: &Reaping) -> Result<Reaped, StoreError>;

    /// Gives a generation up after one crash, since this attempt is known to have aborted its process: fails it with
    /// `worker_crashed` and marks it dead, or cancels it if its client has asked for that. `None`, and no change, if a later
    /// attempt has begun or the generation has ended.
    async fn condemn(&self, attempt: Attempt) -> Result<Option<Record>, StoreError>;

    /// Expires queued generations whose `start_timeout_s` has passed before they were claimed for the first time;
    /// returns them. One that began once and came back to the queue never expires.
    async fn expire_overdue(&self) -> Result<Vec<Record>, StoreError>;

    /// Raises every queued generation that was accepted and last raised so long ago by one priority, none beyond the highest.
    async fn age(&self, after: Duration) -> Result<(), StoreError>;

    /// Finished generations whose retention has ended, at most `limit`, for the sweeper to delete.
    async fn overdue_for_deletion(&self, limit: usize) -> Result<Vec<Record>, StoreError>;

    /// Erases what nobody looks for any more: idempotency keys whose time is over, workers that have not beaten for an hour.
    async fn purge(&self) -> Result<(), StoreError>;
}

/// What processes know of each other.
#[async_trait]
pub trait Fleet: Send + Sync + 'static {
    /// Whether other processes use the store at the same time, so that they must hear of each other through it.
    fn is_shared(&self) -> bool;

    /// A worker shows that it lives; returns whether an operator has asked it to take no more work.
    async fn beat(&self, beat: &Beat) -> Result<Orders, StoreError>;

    /// The workers that have beaten within the last hour, by name.
    async fn workers(&self) -> Result<Vec<WorkerRecord>, StoreError>;

    /// Asks a worker to take no more work, or with `false` to take work again, which its next [`Fleet::beat`] tells it; whether
    /// there is one of that name.
    async fn drain_worker(&self, worker: &str, drain: bool) -> Result<bool, StoreError>;

    /// The worker has ended in order.
    async fn leave(&self, worker: &str) -> Result<(), StoreError>;

    /// Leaves progress and previews for other processes to see; they survive nothing. Where a lease is lost, nothing.
    async fn report(&self, reports: &[Report]) -> Result<(), StoreError>;

    /// What a watcher in another process sees of these generations; those that are gone are left out.
    async fn glance(&self, ids: &[GenerationId]) -> Result<Vec<Glance>, StoreError>;

    /// The previews that were reported, the latest of each artifact.
    async fn previews(&self, id: GenerationId) -> Result<Vec<Preview>, StoreError>;

    /// Tells other processes to look at once at what they would look at within a second anyway. Hints may be lost.
    async fn hint(&self, hints: &[Hint]) -> Result<(), StoreError>;

    /// What other processes hint at, from now on. Never ends; silent where the store is not shared or cannot hint.
    fn hints(&self) -> BoxStream<'static, Hint>;
}

/// API keys and their tenants.
#[async_trait]
pub trait Keys: Send + Sync + 'static {
    /// Makes an API key and, where there is none of that name, its tenant; the weight and caps given are the tenant's from
    /// now on. A key whose public part is taken is an error and changes nothing.
    async fn create_key(&self, key: &KeyRecord) -> Result<(), StoreError>;

    /// Whether a key was ever made, revoked or not.
    async fn has_keys(&self) -> Result<bool, StoreError>;

    /// The key with this public part, unless it was revoked.
    async fn find_key(&self, id: &str) -> Result<Option<KeyRecord>, StoreError>;
}

/// The tables of endpoints and deliveries. An endpoint of another tenant is none.
#[async_trait]
pub trait Webhooks: Send + Sync + 'static {
    /// `None` where the tenant has `most` endpoints already.
    async fn create_endpoint(&self, new: &NewEndpoint<'_>, most: usize) -> Result<Option<Endpoint>, StoreError>;

    /// The tenant's endpoints, oldest first.
    async fn endpoints(&self, tenant: &str) -> Result<Vec<Endpoint>, StoreError>;

    async fn endpoint(&self, tenant: &str, id: EndpointId) -> Result<Option<Endpoint>, StoreError>;

    /// One that becomes disabled takes its pending deliveries along: they are dead.
    async fn replace_endpoint(
        &self,
        tenant: &str,
        id: EndpointId,
        terms: &EndpointTerms,
    ) -> Result<Option<Endpoint>, StoreError>;

    /// Erases an endpoint with its deliveries; whether there was one.
    async fn delete_endpoint(&self, tenant: &str, id: EndpointId) -> Result<bool, StoreError>;

    /// From now on `secret` signs, and for so long the one before beside it.
    async fn rotate_secret(
        &self,
        tenant: &str,
        id: EndpointId,
        secret: &SigningSecret,
        overlap: Duration,
    ) -> Result<Option<Endpoint>, StoreError>;

    /// Up to `limit` deliveries to an endpoint, newest first, older than `after`. `None`: there is no such endpoint.
    async fn deliveries(
        &self,
        tenant: &str,
        endpoint: EndpointId,
        limit: usize,
        after: Option<DeliveryId>,
    ) -> Result<Option<DeliveryPage>, StoreError>;

    /// Makes a delivery due at once, with all its tries before it, whatever became of it.
    async fn retry_delivery(
        &self,
        tenant: &str,
        endpoint: EndpointId,
        id: DeliveryId,
    ) -> Result<Option<Delivery>, StoreError>;

    /// Takes up to `limit` deliveries that are due, the longest overdue first; for as long as `lease` nobody else gets them.
    /// One whose generation has an earlier one pending is not taken, nor one to a receiver in `except`.
    async fn claim_deliveries(
        &self,
        limit: usize,
        lease: Duration,
        except: &[String],
    ) -> Result<Vec<ClaimedDelivery>, StoreError>;

    /// Writes what a try has come to; nothing where the claim is no longer the delivery's. Returns whether it was.
    async fn settle_delivery(&self, claim: DeliveryClaim, answer: &Answer, next: Next) -> Result<bool, StoreError>;

    /// Gives a claim back: due at once, the try not counted.
    async fn release_delivery(&self, claim: DeliveryClaim) -> Result<(), StoreError>;

    /// How many deliveries are pending.
    async fn backlog(&self) -> Result<usize, StoreError>;

    /// Erases deliveries that ended as long ago as finished generations are kept.
    async fn purge_deliveries(&self) -> Result<(), StoreError>;
}
