//! What is outgoing: written with its event, taken by a claim.

use std::time::Duration;

use serde::Deserialize;
use sqlx::{Row, postgres::PgRow, types::Json};
use time::OffsetDateTime;

use crate::generation::{
    DeliveryId, EndpointId, EventKind, GenerationId, SigningSecret, Webhook, WebhookEvent, notice,
};
use crate::ledger::{Answer, ClaimedDelivery, DeliveryClaim, Next, StoreError};

use super::{bytes, deliveries, unreadable, uuid_of_delivery, uuid_of_endpoint};
use crate::ledger::postgres::{PgStore, change::Change, row};

/// Puts what `kind` tells of the generations of these rows to what is outgoing, after the events themselves were appended.
/// Generations without a webhook cost no statement.
pub async fn enqueue(change: &mut Change, generations: &[PgRow], kind: EventKind) -> Result<(), StoreError> {
    let Some(event) = WebhookEvent::of(kind) else { return Ok(()) };
    for generation in generations {
        let Some(webhook) = webhook(generation)? else { continue };
        // One that cannot be read has nobody to tell of it, and must end all the same.
        let Some(record) = row::readable(generation) else { continue };
        let (endpoint, url) = match &webhook {
            Webhook::Url { url, events } if events.contains(&event) => (None, Some(url)),
            Webhook::Endpoint { endpoint } if listens(change, *endpoint, event).await? => (Some(*endpoint), None),
            Webhook::Url { .. } | Webhook::Endpoint { .. } => continue,
        };
        let now = sqlx::query_scalar("SELECT statement_timestamp()").fetch_one(change.connection()).await?;
        sqlx::query(
            "INSERT INTO webhook_deliveries
                 (id, generation_id, seq, endpoint_id, url, receiver, kind, due_at, created_at, body)
             VALUES ($1, $2, (SELECT max(seq) FROM generation_events WHERE generation_id = $2), $3, $4, $5, $6, $7, $7, $8)",
        )
        .bind(uuid_of_delivery(DeliveryId::new()))
        .bind(row::uuid(record.id))
        .bind(endpoint.map(uuid_of_endpoint))
        .bind(url)
        .bind(webhook.receiver())
        .bind(kind.as_str())
        .bind::<OffsetDateTime>(now)
        .bind(notice(&record, kind, now).to_string())
        .execute(change.connection())
        .await?;
    }
    Ok(())
}

fn webhook(generation: &PgRow) -> Result<Option<Webhook>, StoreError> {
    #[derive(Deserialize)]
    struct Params {
        #[serde(default)]
        webhook: Option<Webhook>,
    }

    match generation.try_get::<Json<Params>, _>("params") {
        Ok(Json(params)) => Ok(params.webhook),
        Err(sqlx::Error::ColumnDecode { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether an endpoint is there, enabled, and asks for such events; it stays so until this change is concluded, or else
/// nobody would end what is written for one that is disabled meanwhile.
async fn listens(change: &mut Change, endpoint: EndpointId, event: WebhookEvent) -> Result<bool, StoreError> {
    let events: Option<Json<Vec<WebhookEvent>>> =
        sqlx::query_scalar("SELECT events FROM webhook_endpoints WHERE id = $1 AND enabled FOR SHARE")
            .bind(uuid_of_endpoint(endpoint))
            .fetch_optional(change.connection())
            .await?;
    Ok(events.is_some_and(|Json(events)| events.contains(&event)))
}

const CLAIM: &str = "
    WITH picked AS MATERIALIZED (
        SELECT id FROM webhook_deliveries AS this
        WHERE state = 'pending' AND due_at <= statement_timestamp() AND receiver <> ALL($3) AND NOT EXISTS (
            SELECT FROM webhook_deliveries AS earlier
            WHERE earlier.generation_id = this.generation_id AND earlier.seq < this.seq AND earlier.state = 'pending')
        ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED
    ), claimed AS (
        UPDATE webhook_deliveries AS this
        SET fence = fence + 1, attempts = attempts + 1, due_at = statement_timestamp() + $2
        FROM picked WHERE this.id = picked.id
        RETURNING this.id, generation_id, endpoint_id, receiver, url, fence, attempts, body
    )
    SELECT claimed.id, generation_id, receiver, fence, attempts, body, coalesce(claimed.url, endpoint.url) AS url, secret,
        CASE WHEN old_secret_until > statement_timestamp() THEN old_secret END AS old_secret
    FROM claimed LEFT JOIN webhook_endpoints AS endpoint ON endpoint.id = endpoint_id";

pub async fn claim(
    store: &PgStore,
    limit: usize,
    lease: Duration,
    except: &[String],
) -> Result<Vec<ClaimedDelivery>, StoreError> {
    let mut loan = store.lend().await?;
    let rows = sqlx::query(CLAIM)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .bind(row::interval(lease))
        .bind(except)
        .fetch_all(&mut *loan)
        .await?;
    loan.give_back();
    rows.iter().map(claimed).collect()
}

fn claimed(row: &PgRow) -> Result<ClaimedDelivery, StoreError> {
    let secrets = [row.try_get("secret")?, row.try_get::<Option<&str>, _>("old_secret")?];
    let secrets = secrets.into_iter().flatten().map(SigningSecret::parse).collect::<Result<_, _>>();
    Ok(ClaimedDelivery {
        claim: DeliveryClaim { id: DeliveryId::from_bytes(bytes(row, "id")?), fence: row.try_get("fence")? },
        generation: GenerationId::from_bytes(bytes(row, "generation_id")?),
        receiver: row.try_get("receiver")?,
        url: row.try_get("url")?,
        secrets: secrets.map_err(|_| unreadable("an endpoint's secret"))?,
        body: row.try_get("body")?,
        attempts: row.try_get::<i32, _>("attempts")?.unsigned_abs(),
    })
}

pub async fn settle(store: &PgStore, claim: DeliveryClaim, answer: &Answer, next: Next) -> Result<bool, StoreError> {
    let mut change = Change::begin(store).await?;
    let settled = write(&mut change, claim, answer, next).await;
    change.conclude(settled).await
}

async fn write(change: &mut Change, claim: DeliveryClaim, answer: &Answer, next: Next) -> Result<bool, StoreError> {
    let gone = if next == Next::Gone { disable(change, claim).await? } else { None };
    let (state, after) = match next {
        Next::Retry { after } => ("pending", after),
        Next::Delivered => ("delivered", Duration::ZERO),
        Next::Dead | Next::Gone => ("dead", Duration::ZERO),
    };
    let kept = (state != "pending").then(|| row::interval(change.retention()));
    let settled = sqlx::query(
        "UPDATE webhook_deliveries
         SET state = $3, due_at = statement_timestamp() + $4,
             ended_at = CASE WHEN $5::interval IS NOT NULL THEN statement_timestamp() END,
             expires_at = statement_timestamp() + $5, last_status = $6, last_error = $7, last_at = statement_timestamp(),
             fence = fence + 1
         WHERE id = $1 AND fence = $2 AND state = 'pending'",
    )
    .bind(uuid_of_delivery(claim.id))
    .bind(claim.fence)
    .bind(state)
    .bind(row::interval(after))
    .bind(kept)
    .bind(answer.status.map(i32::from))
    .bind(&answer.error)
    .execute(change.connection())
    .await?;
    if settled.rows_affected() == 0 {
        return Ok(false);
    }
    if let Some(endpoint) = gone {
        deliveries::give_up(change, endpoint).await?;
    }
    Ok(true)
}

/// Disables the endpoint of a delivery whose claim still stands; before the delivery is written, for the order of locks.
async fn disable(change: &mut Change, claim: DeliveryClaim) -> Result<Option<sqlx::types::Uuid>, StoreError> {
    let endpoint = sqlx::query_scalar(
        "UPDATE webhook_endpoints SET enabled = false, gone = true, updated_at = statement_timestamp()
         WHERE id = (SELECT endpoint_id FROM webhook_deliveries WHERE id = $1 AND fence = $2 AND state = 'pending')
         RETURNING id",
    )
    .bind(uuid_of_delivery(claim.id))
    .bind(claim.fence)
    .fetch_optional(change.connection())
    .await?;
    Ok(endpoint)
}

pub async fn release(store: &PgStore, claim: DeliveryClaim) -> Result<(), StoreError> {
    let mut loan = store.lend().await?;
    sqlx::query(
        "UPDATE webhook_deliveries SET due_at = statement_timestamp(), attempts = attempts - 1, fence = fence + 1
         WHERE id = $1 AND fence = $2 AND state = 'pending'",
    )
    .bind(uuid_of_delivery(claim.id))
    .bind(claim.fence)
    .execute(&mut *loan)
    .await?;
    loan.give_back();
    Ok(())
}
