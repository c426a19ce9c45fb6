//! Writes deliveries of webhooks together with their events, and ends the deliveries of disabled endpoints.

use time::OffsetDateTime;

use super::{DeliveryClaim, Result, change::Change, dialect::values, record::readable, row::Row};
use crate::generation::{DeliveryId, EndpointId, EventKind, Webhook, WebhookEvent, notice};

impl Change {
    /// Writes the delivery of the event `kind`, which was just appended, for the generation of this row. A generation
    /// without a webhook costs no statement.
    pub async fn enqueue(&mut self, generation: &Row, kind: EventKind) -> Result<()> {
        let Some(event) = WebhookEvent::of(kind) else { return Ok(()) };
        // The webhook of an unreadable generation is unknown, and the change of its state must succeed nevertheless.
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

    /// Whether an endpoint exists, is enabled, and wants this event. The row is locked until the end of this change;
    /// otherwise the endpoint could be disabled meanwhile, and nothing would end the new delivery.
    async fn listens(&mut self, endpoint: EndpointId, event: WebhookEvent) -> Result<bool> {
        let text = "SELECT events FROM webhook_endpoints WHERE id = $1 AND enabled FOR SHARE";
        let Some(row) = self.fetch(text, values![endpoint]).await?.pop() else { return Ok(false) };
        Ok(row.json::<Vec<WebhookEvent>>("events").is_ok_and(|events| events.contains(&event)))
    }

    /// Disables the endpoint of a claimed delivery. Call this before the delivery changes, to keep the order of locks.
    pub async fn disable(&mut self, claim: DeliveryClaim) -> Result<Option<EndpointId>> {
        let text = "UPDATE webhook_endpoints SET enabled = false, gone = true, updated_at = now()
             WHERE id = (SELECT endpoint_id FROM webhook_deliveries WHERE id = $1 AND fence = $2 AND state = 'pending')
             RETURNING id";
        let disabled = self.fetch(text, values![claim.id, claim.fence]).await?.pop();
        Ok(disabled.map(|row| row.get("id")).transpose()?)
    }

    /// Ends all pending deliveries of a disabled endpoint.
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
