//! Registered receivers of webhooks, and the log of what went out to them. Locks are taken in the order generation,
//! endpoint, delivery.

use std::time::Duration;

use async_trait::async_trait;

use super::{
    Answer, ClaimedDelivery, Delivery, DeliveryClaim, DeliveryPage, DeliveryState, Endpoint, EndpointTerms, Ledger,
    NewEndpoint, Next, StoreError, Webhooks,
    change::atomically,
    dialect::{Columns, Dialect, Value, unreadable, values},
    outgoing::{CLAIM, claimed},
};
use crate::generation::{DeliveryId, EndpointId, EventKind, SigningSecret};

/// What [`endpoint`] reads.
macro_rules! endpoint_columns {
    () => {
        "id, url, events, description, enabled, gone, old_secret_until, created_at, updated_at"
    };
}

/// What [`delivery`] reads.
macro_rules! delivery_columns {
    () => {
        "id, generation_id, kind, state, attempts, last_status, last_error, last_at, due_at, created_at, ended_at"
    };
}

/// Those who create endpoints of one tenant at the same time do so one after the other, so that the count is exact.
const CREATING: &str = "SELECT pg_advisory_xact_lock(x'776865'::int, hashtext($1))";

#[async_trait]
impl<D: Dialect> Webhooks for Ledger<D> {
    async fn create_endpoint(&self, new: &NewEndpoint<'_>, most: usize) -> Result<Option<Endpoint>, StoreError> {
        atomically!(self, |change| {
            if D::IS_SHARED {
                change.fetch(CREATING, values![new.tenant]).await?;
            }
            let had = "SELECT count(*) AS had FROM webhook_endpoints WHERE tenant_id = $1";
            if change.one(had, values![new.tenant]).await?.get::<usize>("had")? >= most {
                return Ok(None);
            }
            let text = concat!(
                "INSERT INTO webhook_endpoints
                 (id, tenant_id, url, events, description, enabled, secret, created_at, updated_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, now(), now())
             RETURNING ",
                endpoint_columns!()
            );
            let NewEndpoint { id, tenant, terms, secret } = new;
            let events = Value::json(&terms.events)?;
            let values = values![*id, *tenant, &terms.url, events, &terms.description, terms.enabled, secret.reveal()];
            endpoint(&change.one(text, values).await?).map(Some)
        })
    }

    async fn endpoints(&self, tenant: &str) -> Result<Vec<Endpoint>, StoreError> {
        let text = concat!("SELECT ", endpoint_columns!(), " FROM webhook_endpoints WHERE tenant_id = $1 ORDER BY id");
        self.read(text, values![tenant]).await?.iter().map(endpoint).collect()
    }

    async fn endpoint(&self, tenant: &str, id: EndpointId) -> Result<Option<Endpoint>, StoreError> {
        let text = concat!("SELECT ", endpoint_columns!(), " FROM webhook_endpoints WHERE id = $1 AND tenant_id = $2");
        self.read_first(text, values![id, tenant]).await?.as_ref().map(endpoint).transpose()
    }

    async fn replace_endpoint(
        &self,
        tenant: &str,
        id: EndpointId,
        terms: &EndpointTerms,
    ) -> Result<Option<Endpoint>, StoreError> {
        atomically!(self, |change| {
            let text = concat!(
                "UPDATE webhook_endpoints
             SET url = $3, events = $4, description = $5, enabled = $6, gone = gone AND NOT $6, updated_at = now()
             WHERE id = $1 AND tenant_id = $2
             RETURNING ",
                endpoint_columns!()
            );
            let events = Value::json(&terms.events)?;
            let values = values![id, tenant, &terms.url, events, &terms.description, terms.enabled];
            let Some(replaced) = change.first(text, values).await? else { return Ok(None) };
            if !terms.enabled {
                change.give_up(id).await?;
            }
            endpoint(&replaced).map(Some)
        })
    }

    async fn delete_endpoint(&self, tenant: &str, id: EndpointId) -> Result<bool, StoreError> {
        // The deliveries go with it, by their foreign key.
        let deleted = "DELETE FROM webhook_endpoints WHERE id = $1 AND tenant_id = $2 RETURNING id";
        Ok(!self.write(deleted, values![id, tenant]).await?.is_empty())
    }

    async fn rotate_secret(
        &self,
        tenant: &str,
        id: EndpointId,
        secret: &SigningSecret,
        overlap: Duration,
    ) -> Result<Option<Endpoint>, StoreError> {
        // A second try of this call must not push out the old secret by the new one.
        let text = concat!(
            "UPDATE webhook_endpoints
             SET old_secret = CASE WHEN secret = $3 THEN old_secret ELSE secret END, old_secret_until = now() + $4,
                 secret = $3, updated_at = now()
             WHERE id = $1 AND tenant_id = $2
             RETURNING ",
            endpoint_columns!()
        );
        let rotated = self.write(text, values![id, tenant, secret.reveal(), overlap]).await?;
        rotated.first().map(endpoint).transpose()
    }

    async fn deliveries(
        &self,
        tenant: &str,
        endpoint: EndpointId,
        limit: usize,
        after: Option<DeliveryId>,
    ) -> Result<Option<DeliveryPage>, StoreError> {
        if self.endpoint(tenant, endpoint).await?.is_none() {
            return Ok(None);
        }
        // One text for each form, since a condition with a way out would not start within the index.
        let from = concat!("SELECT ", delivery_columns!(), " FROM webhook_deliveries WHERE endpoint_id = $1");
        let older = if after.is_some() { " AND id < $3" } else { "" };
        let mut values = values![endpoint, limit.saturating_add(1)];
        values.extend(after.map(Value::from));
        let rows = self.read(&format!("{from}{older} ORDER BY id DESC LIMIT $2"), values).await?;
        let deliveries = rows.iter().take(limit).map(delivery).collect::<Result<_, _>>()?;
        Ok(Some(DeliveryPage { deliveries, has_more: rows.len() > limit }))
    }

    async fn retry_delivery(
        &self,
        tenant: &str,
        endpoint: EndpointId,
        id: DeliveryId,
    ) -> Result<Option<Delivery>, StoreError> {
        // What a try under way comes to must not count for the one that was asked for.
        let text = concat!(
            "UPDATE webhook_deliveries
             SET state = 'pending', attempts = 0, fence = fence + 1, due_at = now(), ended_at = NULL, expires_at = NULL
             WHERE id = $1 AND endpoint_id = (SELECT id FROM webhook_endpoints WHERE id = $2 AND tenant_id = $3)
             RETURNING ",
            delivery_columns!()
        );
        self.write(text, values![id, endpoint, tenant]).await?.first().map(delivery).transpose()
    }

    async fn claim_deliveries(
        &self,
        limit: usize,
        lease: Duration,
        except: &[String],
    ) -> Result<Vec<ClaimedDelivery>, StoreError> {
        let rows = self.write(CLAIM, values![limit, lease, Value::Texts(except.to_vec())]).await?;
        rows.iter().map(claimed).collect()
    }

    async fn settle_delivery(&self, claim: DeliveryClaim, answer: &Answer, next: Next) -> Result<bool, StoreError> {
        atomically!(self, |change| {
            let gone = if next == Next::Gone { change.disable(claim).await? } else { None };
            let (state, after) = match next {
                Next::Retry { after } => ("pending", after),
                Next::Delivered => ("delivered", Duration::ZERO),
                Next::Dead | Next::Gone => ("dead", Duration::ZERO),
            };
            let text = "UPDATE webhook_deliveries
             SET state = $3, due_at = now() + $4, ended_at = CASE WHEN $5 THEN now() END,
                 expires_at = CASE WHEN $5 THEN now() + $6 END, last_status = $7, last_error = $8, last_at = now(),
                 fence = fence + 1
             WHERE id = $1 AND fence = $2 AND state = 'pending'
             RETURNING id";
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

    async fn release_delivery(&self, claim: DeliveryClaim) -> Result<(), StoreError> {
        let text = "UPDATE webhook_deliveries SET due_at = now(), attempts = attempts - 1, fence = fence + 1
             WHERE id = $1 AND fence = $2 AND state = 'pending'";
        self.write(text, values![claim.id, claim.fence]).await.map(drop)
    }

    async fn backlog(&self) -> Result<usize, StoreError> {
        let text = "SELECT count(*) AS pending FROM webhook_deliveries WHERE state = 'pending'";
        Ok(self.read_one(text, values![]).await?.get("pending")?)
    }

    async fn purge_deliveries(&self) -> Result<(), StoreError> {
        let text = "WITH overdue AS MATERIALIZED (
                SELECT id FROM webhook_deliveries WHERE expires_at <= now() FOR UPDATE SKIP LOCKED)
            DELETE FROM webhook_deliveries WHERE id IN (SELECT id FROM overdue)";
        self.write(text, values![]).await.map(drop)
    }
}

fn endpoint(row: &impl Columns) -> Result<Endpoint, StoreError> {
    let terms = EndpointTerms {
        url: row.get("url")?,
        events: row.value("events")?,
        description: row.get("description")?,
        enabled: row.get("enabled")?,
    };
    Ok(Endpoint {
        id: row.get("id")?,
        terms,
        gone: row.get("gone")?,
        old_secret_until: row.opt("old_secret_until")?,
        created_at: row.get("created_at")?,
        updated_at: row.get("updated_at")?,
    })
}

fn delivery(row: &impl Columns) -> Result<Delivery, StoreError> {
    let (kind, state): (String, String) = (row.get("kind")?, row.get("state")?);
    let state = DeliveryState::parse(&state).ok_or_else(|| unreadable("a delivery's state"))?;
    Ok(Delivery {
        id: row.get("id")?,
        generation: row.get("generation_id")?,
        kind: EventKind::parse(&kind).ok_or_else(|| unreadable("a delivery's kind"))?,
        state,
        attempts: row.get("attempts")?,
        last_status: row.opt("last_status")?,
        last_error: row.opt("last_error")?,
        last_at: row.opt("last_at")?,
        due_at: row.opt("due_at")?.filter(|_| state == DeliveryState::Pending),
        created_at: row.get("created_at")?,
        ended_at: row.opt("ended_at")?,
    })
}
