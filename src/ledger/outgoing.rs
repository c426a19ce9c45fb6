//! What is outgoing to the receivers of webhooks: written with its event, taken by a claim, settled by what a try has come to.

use time::OffsetDateTime;

use super::{
    ClaimedDelivery, DeliveryClaim, Result,
    change::Change,
    dialect::values,
    record::readable,
    row::{Row, from_row},
};
use crate::generation::{DeliveryId, EndpointId, EventKind, SigningSecret, Webhook, WebhookEvent, notice};

pub const CLAIM: &str = "
    WITH picked AS MATERIALIZED (
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
        (SELECT e.secret FROM webhook_endpoints AS e WHERE e.id = endpoint_id) AS secret,
        (SELECT e.old_secret FROM webhook_endpoints AS e
         WHERE e.id = endpoint_id AND e.old_secret_until > now()) AS old_secret";

/// Reads a row of [`CLAIM`].
pub fn claimed(row: &Row) -> Result<ClaimedDelivery> {
    let secrets: [Option<SigningSecret>; 2] = [row.get("secret")?, row.get("old_secret")?];
    Ok(from_row!(row => ClaimedDelivery {
        generation, receiver, url, body, attempts;
        claim: from_row!(row => DeliveryClaim { id, fence }),
        secrets: secrets.into_iter().flatten().collect()
    }))
}

impl Change {
    /// Puts what `kind` tells of the generation of this row to what is outgoing, after the event itself was appended. A
    /// generation without a webhook costs no statement.
    pub async fn enqueue(&mut self, generation: &Row, kind: EventKind) -> Result<()> {
        let Some(event) = WebhookEvent::of(kind) else { return Ok(()) };
        // One that cannot be read has nobody to tell of it, and must end all the same.
        let Some(record) = readable(generation) else { return Ok(()) };
        let Some(webhook) = &record.job.webhook else { return Ok(()) };
        let (endpoint, url) = match webhook {
            Webhook::Url { url, events } if events.contains(&event) => (None, Some(url.as_str())),
            Webhook::Endpoint { endpoint } if self.listens(*endpoint, event).await? => (Some(*endpoint), None),
            Webhook::Url { .. } | Webhook::Endpoint { .. } => return Ok(()),
        };
        let now: OffsetDateTime = self.one("SELECT now() AS at", values![]).await?.get("at")?;
        let body = notice(&record, kind, now).to_string();
        let text = "INSERT INTO webhook_deliveries
                 (id, generation_id, seq, endpoint_id, url, receiver, kind, due_at, created_at, body)
             VALUES ($1, $2, (SELECT max(seq) FROM generation_events WHERE generation_id = $2), $3, $4, $5, $6, now(),
                 now(), $7)";
        let id = DeliveryId::new();
        self.fetch(text, values![id, record.id, endpoint, url, webhook.receiver(), kind.as_str(), body]).await?;
        Ok(())
    }

    /// Whether an endpoint is there, enabled, and asks for such events; it stays so until this change is concluded, or else
    /// nobody would end what is written for one that is disabled meanwhile.
    async fn listens(&mut self, endpoint: EndpointId, event: WebhookEvent) -> Result<bool> {
        let text = "SELECT events FROM webhook_endpoints WHERE id = $1 AND enabled FOR SHARE";
        let Some(row) = self.fetch(text, values![endpoint]).await?.pop() else { return Ok(false) };
        Ok(row.json::<Vec<WebhookEvent>>("events").is_ok_and(|events| events.contains(&event)))
    }

    /// Disables the endpoint of a delivery whose claim still stands; before the delivery is written, for the order of locks.
    pub async fn disable(&mut self, claim: DeliveryClaim) -> Result<Option<EndpointId>> {
        let text = "UPDATE webhook_endpoints SET enabled = false, gone = true, updated_at = now()
             WHERE id = (SELECT endpoint_id FROM webhook_deliveries WHERE id = $1 AND fence = $2 AND state = 'pending')
             RETURNING id";
        let disabled = self.fetch(text, values![claim.id, claim.fence]).await?.pop();
        Ok(disabled.map(|row| row.get("id")).transpose()?)
    }

    /// Ends everything that is pending for an endpoint which is disabled.
    pub async fn give_up(&mut self, endpoint: EndpointId) -> Result<()> {
        let text = "WITH pending AS MATERIALIZED (
                SELECT id AS pending_id FROM webhook_deliveries WHERE endpoint_id = $1 AND state = 'pending'
                ORDER BY id FOR UPDATE)
            UPDATE webhook_deliveries SET state = 'dead', last_error = 'the endpoint is disabled', ended_at = now(),
                expires_at = now() + $2
            FROM pending WHERE id = pending_id";
        self.fetch(text, values![endpoint, self.retention]).await.map(drop)
    }
}
