//! What is outgoing: written with its event, taken by a claim.

use std::time::Duration;

use serde::Deserialize;
use sqlx::{Row, sqlite::SqliteRow};

use crate::generation::{
    DeliveryId, EndpointId, EventKind, GenerationId, SigningSecret, Webhook, WebhookEvent, notice,
};
use crate::ledger::{Answer, ClaimedDelivery, DeliveryClaim, Next, StoreError};

use super::{bytes, deliveries, moment, unreadable};
use crate::ledger::sqlite::{SqliteStore, change::Change, row};

/// Puts what `kind` tells of the generation of this row to what is outgoing, after the event itself was appended. A generation
/// without a webhook costs no statement.
pub async fn enqueue(change: &mut Change, generation: &SqliteRow, kind: EventKind) -> Result<(), StoreError> {
    #[derive(Deserialize)]
    struct Params {
        #[serde(default)]
        webhook: Option<Webhook>,
    }

    let Some(event) = WebhookEvent::of(kind) else { return Ok(()) };
    let params: &str = generation.try_get("params")?;
    let Ok(Params { webhook: Some(webhook) }) = serde_json::from_str(params) else { return Ok(()) };
    // One that cannot be read has nobody to tell of it, and must end all the same.
    let Some(record) = row::readable(generation) else { return Ok(()) };
    let (endpoint, url) = match &webhook {
        Webhook::Url { url, events } if events.contains(&event) => (None, Some(url)),
        Webhook::Endpoint { endpoint } if listens(change, *endpoint, event).await? => (Some(*endpoint), None),
        Webhook::Url { .. } | Webhook::Endpoint { .. } => return Ok(()),
    };
    let now = change.now;
    let body = notice(&record, kind, row::moment(now)?).to_string();
    sqlx::query(
        "INSERT INTO webhook_deliveries
             (id, generation_id, seq, endpoint_id, url, receiver, kind, due_at, created_at, body)
         VALUES (?1, ?2, (SELECT max(seq) FROM generation_events WHERE generation_id = ?2), ?3, ?4, ?5, ?6, ?7, ?7, ?8)",
    )
    .bind(&DeliveryId::new().as_bytes()[..])
    .bind(&record.id.as_bytes()[..])
    .bind(endpoint.map(|id| id.as_bytes().to_vec()))
    .bind(url)
    .bind(webhook.receiver())
    .bind(kind.as_str())
    .bind(now)
    .bind(body)
    .execute(change.connection())
    .await?;
    Ok(())
}

/// Whether an endpoint is there, enabled, and asks for such events.
async fn listens(change: &mut Change, endpoint: EndpointId, event: WebhookEvent) -> Result<bool, StoreError> {
    let events: Option<String> = sqlx::query_scalar("SELECT events FROM webhook_endpoints WHERE id = ? AND enabled")
        .bind(&endpoint.as_bytes()[..])
        .fetch_optional(change.connection())
        .await?;
    let events: Option<Vec<WebhookEvent>> = events.and_then(|events| serde_json::from_str(&events).ok());
    Ok(events.is_some_and(|events| events.contains(&event)))
}

const CLAIM: &str = "
    UPDATE webhook_deliveries SET fence = fence + 1, attempts = attempts + 1, due_at = ?2
    WHERE id IN (
        SELECT id FROM webhook_deliveries AS this
        WHERE state = 'pending' AND due_at <= ?1 AND receiver NOT IN (SELECT value FROM json_each(?4)) AND NOT EXISTS (
            SELECT 1 FROM webhook_deliveries AS earlier
            WHERE earlier.generation_id = this.generation_id AND earlier.seq < this.seq AND earlier.state = 'pending')
        ORDER BY due_at LIMIT ?3)
    RETURNING *";

pub async fn claim(
    store: &SqliteStore,
    limit: usize,
    lease: Duration,
    except: &[String],
) -> Result<Vec<ClaimedDelivery>, StoreError> {
    // Mostly nothing is due, and then the one connection that writes is left in peace.
    let due: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM webhook_deliveries WHERE state = 'pending' AND due_at <= ?)")
            .bind(store.clock.now_ms())
            .fetch_one(&store.readers)
            .await?;
    if !due {
        return Ok(Vec::new());
    }
    let mut change = Change::begin(store).await?;
    let now = change.now;
    let rows = sqlx::query(CLAIM)
        .bind(now)
        .bind(now.saturating_add(row::millis(lease)))
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .bind(row::json(&except)?)
        .fetch_all(change.connection())
        .await?;
    let mut claimed = Vec::with_capacity(rows.len());
    for row in &rows {
        let (url, secrets) = receiver(&mut change, row).await?;
        claimed.push(ClaimedDelivery {
            claim: DeliveryClaim { id: DeliveryId::from_bytes(bytes(row, "id")?), fence: row.try_get("fence")? },
            generation: GenerationId::from_bytes(bytes(row, "generation_id")?),
            receiver: row.try_get("receiver")?,
            url,
            secrets,
            body: row.try_get("body")?,
            attempts: row.try_get("attempts")?,
        });
    }
    change.commit().await?;
    Ok(claimed)
}

/// Where a delivery goes, and what signs for it.
async fn receiver(change: &mut Change, delivery: &SqliteRow) -> Result<(String, Vec<SigningSecret>), StoreError> {
    if let Some(url) = delivery.try_get("url")? {
        return Ok((url, Vec::new()));
    }
    let endpoint = sqlx::query("SELECT url, secret, old_secret, old_secret_until FROM webhook_endpoints WHERE id = ?")
        .bind(&bytes(delivery, "endpoint_id")?[..])
        .fetch_one(change.connection())
        .await?;
    let now = row::moment(change.now)?;
    let old = moment(&endpoint, "old_secret_until")?.is_some_and(|until| until > now);
    let old: Option<&str> = if old { endpoint.try_get("old_secret")? } else { None };
    let secrets = [Some(endpoint.try_get("secret")?), old].into_iter().flatten().map(SigningSecret::parse);
    let secrets = secrets.collect::<Result<_, _>>().map_err(|_| unreadable("an endpoint's secret"))?;
    Ok((endpoint.try_get("url")?, secrets))
}

pub async fn settle(
    store: &SqliteStore,
    claim: DeliveryClaim,
    answer: &Answer,
    next: Next,
) -> Result<bool, StoreError> {
    let mut change = Change::begin(store).await?;
    let (now, expires) = (change.now, change.expiry());
    let (state, due, ended) = match next {
        Next::Retry { after } => ("pending", now.saturating_add(row::millis(after)), false),
        Next::Delivered => ("delivered", now, true),
        Next::Dead | Next::Gone => ("dead", now, true),
    };
    let settled = sqlx::query(
        "UPDATE webhook_deliveries
         SET state = ?3, due_at = ?4, ended_at = ?5, expires_at = ?6, last_status = ?7, last_error = ?8, last_at = ?9,
             fence = fence + 1
         WHERE id = ?1 AND fence = ?2 AND state = 'pending'
         RETURNING *",
    )
    .bind(&claim.id.as_bytes()[..])
    .bind(claim.fence)
    .bind(state)
    .bind(due)
    .bind(ended.then_some(now))
    .bind(ended.then_some(expires))
    .bind(answer.status)
    .bind(&answer.error)
    .bind(now)
    .fetch_optional(change.connection())
    .await?;
    let Some(settled) = settled else { return Ok(false) };
    if next == Next::Gone && settled.try_get::<Option<&[u8]>, _>("endpoint_id")?.is_some() {
        let endpoint = EndpointId::from_bytes(bytes(&settled, "endpoint_id")?);
        sqlx::query("UPDATE webhook_endpoints SET enabled = 0, gone = 1, updated_at = ? WHERE id = ?")
            .bind(now)
            .bind(&endpoint.as_bytes()[..])
            .execute(change.connection())
            .await?;
        deliveries::give_up(&mut change, endpoint).await?;
    }
    change.commit().await?;
    Ok(true)
}

pub async fn release(store: &SqliteStore, claim: DeliveryClaim) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE webhook_deliveries SET due_at = ?, attempts = attempts - 1, fence = fence + 1
         WHERE id = ? AND fence = ? AND state = 'pending'",
    )
    .bind(store.clock.now_ms())
    .bind(&claim.id.as_bytes()[..])
    .bind(claim.fence)
    .execute(&store.writer)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_claim_walks_what_is_due_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(dir.path(), Duration::ZERO).await.unwrap();
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {CLAIM}")))
            .bind(0_i64)
            .bind(0_i64)
            .bind(1_i64)
            .bind("[]")
            .fetch_all(&store.writer)
            .await
            .unwrap();
        let plan: Vec<String> = rows.iter().map(|row| row.try_get("detail").unwrap()).collect();
        let plan = plan.join("\n");
        assert!(plan.contains("SEARCH this USING INDEX webhook_deliveries_due"), "{plan}");
        assert!(plan.contains("webhook_deliveries_pending (generation_id=? AND seq<?)"), "{plan}");
        let scans = plan.matches("SCAN").count() - plan.matches("SCAN json_each").count();
        assert!(scans == 0 && !plan.contains("TEMP B-TREE"), "{plan}");
    }
}
