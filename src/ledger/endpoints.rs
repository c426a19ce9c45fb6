//! Webhook endpoints and the deliveries to them. Rows are locked in the order generation, endpoint, delivery.

use std::time::Duration;

use async_trait::async_trait;

use super::{
    ClaimedDelivery, DeliveryAnswer, DeliveryClaim, Ledger, NewEndpoint, Next, Page, Result,
    change::atomically,
    dialect::{Value, values},
    row::{Row, from_row},
};
use crate::generation::{Delivery, DeliveryId, Endpoint, EndpointId, EndpointSettings, SigningSecret};

/// The columns that [`endpoint`] reads.
const ENDPOINT: &str = "id, url, events, description, enabled, gone, old_secret_until, created_at, updated_at";

/// The columns that [`delivery`] reads.
const DELIVERY: &str = "id, generation_id AS generation, kind, state, attempts, last_status, last_error, last_at,
     CASE WHEN state = 'pending' THEN due_at END AS due_at, created_at, ended_at";

/// The methods of the ledger for endpoints and deliveries. An endpoint of another tenant counts as missing.
#[async_trait]
pub trait Webhooks: AsRef<Ledger> + Send + Sync + 'static {
    /// Registers an endpoint; `None` if the tenant has `most` endpoints already.
    async fn create_endpoint(&self, new: &NewEndpoint<'_>, most: usize) -> Result<Option<Endpoint>> {
        atomically!(self, |change| {
            if change.is_shared {
                // Endpoints of one tenant are created one after the other, so that the count is exact.
                let lock = "SELECT pg_advisory_xact_lock(x'776865'::int, hashtext($1))";
                change.fetch(lock, values![new.tenant]).await?;
            }
            let had = "SELECT count(*) AS had FROM webhook_endpoints WHERE tenant_id = $1";
            if change.one(had, values![new.tenant]).await?.get::<usize>("had")? >= most {
                return Ok(None);
            }
            let text = format!(
                "INSERT INTO webhook_endpoints
                 (id, tenant_id, url, events, description, enabled, secret, created_at, updated_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, now(), now()) RETURNING {ENDPOINT}"
            );
            let NewEndpoint { id, tenant, terms, secret } = new;
            let events = Value::json(&terms.events)?;
            let values = values![*id, *tenant, &terms.url, events, &terms.description, terms.enabled, secret.reveal()];
            endpoint(&change.one(&text, values).await?).map(Some)
        })
    }

    /// The tenant's endpoints, oldest first.
    async fn endpoints(&self, tenant: &str) -> Result<Vec<Endpoint>> {
        let text = format!("SELECT {ENDPOINT} FROM webhook_endpoints WHERE tenant_id = $1 ORDER BY id");
        self.as_ref().read(&text, values![tenant]).await?.iter().map(endpoint).collect()
    }

    async fn endpoint(&self, tenant: &str, id: EndpointId) -> Result<Option<Endpoint>> {
        let text = format!("SELECT {ENDPOINT} FROM webhook_endpoints WHERE id = $1 AND tenant_id = $2");
        self.as_ref().read(&text, values![id, tenant]).await?.pop().as_ref().map(endpoint).transpose()
    }

    /// Replaces the terms of an endpoint. Disabling an endpoint makes its pending deliveries dead.
    async fn replace_endpoint(
        &self,
        tenant: &str,
        id: EndpointId,
        terms: &EndpointSettings,
    ) -> Result<Option<Endpoint>> {
        atomically!(self, |change| {
            let text = format!(
                "UPDATE webhook_endpoints
                 SET url = $3, events = $4, description = $5, enabled = $6, gone = gone AND NOT $6, updated_at = now()
                 WHERE id = $1 AND tenant_id = $2 RETURNING {ENDPOINT}"
            );
            let events = Value::json(&terms.events)?;
            let values = values![id, tenant, &terms.url, events, &terms.description, terms.enabled];
            let Some(replaced) = change.fetch(&text, values).await?.pop() else { return Ok(None) };
            if !terms.enabled {
                change.give_up(id).await?;
            }
            endpoint(&replaced).map(Some)
        })
    }

    /// Erases an endpoint with its deliveries. Returns whether it existed.
    async fn delete_endpoint(&self, tenant: &str, id: EndpointId) -> Result<bool> {
        // The database then erases the deliveries, too, because their foreign key cascades.
        let deleted = "DELETE FROM webhook_endpoints WHERE id = $1 AND tenant_id = $2 RETURNING id";
        Ok(!self.as_ref().write(deleted, values![id, tenant]).await?.is_empty())
    }

    /// Replaces the secret that signs messages. For `overlap`, the old secret signs them too.
    async fn rotate_secret(
        &self,
        tenant: &str,
        id: EndpointId,
        secret: &SigningSecret,
        overlap: Duration,
    ) -> Result<Option<Endpoint>> {
        // A retry of this call must not replace the old secret by the new one.
        let text = format!(
            "UPDATE webhook_endpoints
             SET old_secret = CASE WHEN secret = $3 THEN old_secret ELSE secret END, old_secret_until = now() + $4,
                 secret = $3, updated_at = now()
             WHERE id = $1 AND tenant_id = $2 RETURNING {ENDPOINT}"
        );
        let rotated = self.as_ref().write(&text, values![id, tenant, secret.reveal(), overlap]).await?;
        rotated.first().map(endpoint).transpose()
    }

    /// Up to `limit` deliveries to an endpoint, newest first, older than `after`. `None` if there is no such endpoint.
    async fn deliveries(
        &self,
        tenant: &str,
        endpoint: EndpointId,
        limit: usize,
        after: Option<DeliveryId>,
    ) -> Result<Option<Page<Delivery>>> {
        if self.endpoint(tenant, endpoint).await?.is_none() {
            return Ok(None);
        }
        // The text depends on `after`: a condition such as "no cursor, or older" would read the index from its start.
        let older = if after.is_some() { " AND id < $3" } else { "" };
        let text = format!(
            "SELECT {DELIVERY} FROM webhook_deliveries WHERE endpoint_id = $1{older} ORDER BY id DESC LIMIT $2"
        );
        let mut values = values![endpoint, limit.saturating_add(1)];
        values.extend(after.map(Value::from));
        let rows = self.as_ref().read(&text, values).await?;
        let records = rows.iter().take(limit).map(delivery).collect::<Result<_, _>>()?;
        Ok(Some(Page { records, has_more: rows.len() > limit }))
    }

    /// Makes a delivery due at once, whatever its state, and gives it all of its attempts again.
    async fn retry_delivery(&self, tenant: &str, endpoint: EndpointId, id: DeliveryId) -> Result<Option<Delivery>> {
        // With the new fence, the outcome of an attempt in progress is not stored.
        let text = format!(
            "UPDATE webhook_deliveries
             SET state = 'pending', attempts = 0, fence = fence + 1, due_at = now(), ended_at = NULL, expires_at = NULL
             WHERE id = $1 AND endpoint_id = (SELECT id FROM webhook_endpoints WHERE id = $2 AND tenant_id = $3)
             RETURNING {DELIVERY}"
        );
        self.as_ref().write(&text, values![id, endpoint, tenant]).await?.first().map(delivery).transpose()
    }

    /// Takes up to `limit` due deliveries, the longest overdue first, for the time of `lease`. Skips a delivery if an
    /// earlier delivery of its generation is pending, or if its receiver is in `except`.
    async fn claim_deliveries(&self, limit: usize, lease: Duration, except: &[String]) -> Result<Vec<ClaimedDelivery>> {
        let text = "WITH picked AS MATERIALIZED (
             SELECT id AS picked_id FROM webhook_deliveries AS this
             WHERE state = 'pending' AND due_at <= now() AND receiver <> ALL($3) AND NOT EXISTS (
                 SELECT 1 FROM webhook_deliveries AS earlier
                 WHERE earlier.generation_id = this.generation_id AND earlier.seq < this.seq AND earlier.state = 'pending')
             ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED
         )
         UPDATE webhook_deliveries SET fence = fence + 1, attempts = attempts + 1, due_at = now() + $2
         FROM picked WHERE id = picked_id
         RETURNING id, generation_id AS generation, receiver, fence, attempts, body,
             coalesce(url, (SELECT e.url FROM webhook_endpoints AS e WHERE e.id = endpoint_id)) AS url,
             (SELECT g.params -> 'trace' FROM generations AS g WHERE g.id = generation_id) AS trace,
             (SELECT e.secret FROM webhook_endpoints AS e WHERE e.id = endpoint_id) AS secret,
             (SELECT e.old_secret FROM webhook_endpoints AS e
              WHERE e.id = endpoint_id AND e.old_secret_until > now()) AS old_secret";
        let claimed = |row: &Row| {
            let secrets: [Option<SigningSecret>; 2] = [row.get("secret")?, row.get("old_secret")?];
            Ok(from_row!(row => ClaimedDelivery {
                generation, receiver, url, body, attempts;
                claim: from_row!(row => DeliveryClaim { id, fence }),
                secrets: secrets.into_iter().flatten().collect(),
                trace: row.json("trace").unwrap_or_default()
            }))
        };
        let rows = self.as_ref().write(text, values![limit, lease, Value::Texts(except.to_vec())]).await?;
        rows.iter().map(claimed).collect()
    }

    /// Stores the outcome of an attempt if the claim is still valid, and returns whether it is.
    async fn settle_delivery(&self, claim: DeliveryClaim, answer: &DeliveryAnswer, next: Next) -> Result<bool> {
        atomically!(self, |change| {
            let gone = if next == Next::Gone { change.disable(claim).await? } else { None };
            let (state, after) = match next {
                Next::Retry { after } => ("pending", after),
                Next::Delivered => ("delivered", Duration::ZERO),
                Next::Dead | Next::Gone => ("dead", Duration::ZERO),
            };
            let text = "UPDATE webhook_deliveries
                 SET state = $3, due_at = now() + $4, fence = fence + 1, ended_at = CASE WHEN $5 THEN now() END,
                     expires_at = CASE WHEN $5 THEN now() + $6 END, last_status = $7, last_error = $8, last_at = now()
                 WHERE id = $1 AND fence = $2 AND state = 'pending' RETURNING id";
            let (ends, kept, said) = (state != "pending", change.retention, answer.error.as_deref());
            let values = values![claim.id, claim.fence, state, after, ends, kept, answer.status, said];
            if change.fetch(text, values).await?.is_empty() {
                return Ok(false);
            }
            if let Some(endpoint) = gone {
                change.give_up(endpoint).await?;
            }
            Ok(true)
        })
    }

    /// Gives a claim back: the delivery is due at once, and the attempt is not counted.
    async fn release_delivery(&self, claim: DeliveryClaim) -> Result<()> {
        let text = "UPDATE webhook_deliveries SET due_at = now(), attempts = attempts - 1, fence = fence + 1
             WHERE id = $1 AND fence = $2 AND state = 'pending'";
        self.as_ref().write(text, values![claim.id, claim.fence]).await.map(drop)
    }

    /// How many deliveries are pending.
    async fn backlog(&self) -> Result<usize> {
        let text = "SELECT count(*) AS pending FROM webhook_deliveries WHERE state = 'pending'";
        Ok(self.as_ref().read_one(text, values![]).await?.get("pending")?)
    }

    /// Erases ended deliveries. They are kept after their end for as long as finished generations.
    async fn purge_deliveries(&self) -> Result<()> {
        let text = "WITH overdue AS MATERIALIZED (
             SELECT id FROM webhook_deliveries WHERE expires_at <= now() FOR UPDATE SKIP LOCKED)
         DELETE FROM webhook_deliveries WHERE id IN (SELECT id FROM overdue)";
        self.as_ref().write(text, values![]).await.map(drop)
    }
}

fn endpoint(row: &Row) -> Result<Endpoint> {
    let terms = from_row!(row => EndpointSettings { url, description, enabled; events: row.json("events")? });
    Ok(from_row!(row => Endpoint { id, gone, old_secret_until, created_at, updated_at; terms: terms }))
}

fn delivery(row: &Row) -> Result<Delivery> {
    Ok(from_row!(row => Delivery {
        id, generation, kind, state, attempts, last_status, last_error, last_at, due_at, created_at, ended_at
    }))
}
