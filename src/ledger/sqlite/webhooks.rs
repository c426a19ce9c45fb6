//! Endpoints of webhooks, and what goes out to them.

mod deliveries;
mod endpoints;
mod outgoing;

use std::time::Duration;

use async_trait::async_trait;

use crate::generation::{DeliveryId, EndpointId, SigningSecret};
use crate::ledger::{
    Answer, ClaimedDelivery, Delivery, DeliveryClaim, DeliveryPage, Endpoint, EndpointTerms, NewEndpoint, Next,
    StoreError, WebhookStore,
};

use super::{SqliteStore, row};

pub use outgoing::enqueue;

#[async_trait]
impl WebhookStore for SqliteStore {
    async fn create_endpoint(&self, new: &NewEndpoint<'_>, most: usize) -> Result<Option<Endpoint>, StoreError> {
        endpoints::create(self, new, most).await
    }

    async fn endpoints(&self, tenant: &str) -> Result<Vec<Endpoint>, StoreError> {
        endpoints::list(self, tenant).await
    }

    async fn endpoint(&self, tenant: &str, id: EndpointId) -> Result<Option<Endpoint>, StoreError> {
        endpoints::get(self, tenant, id).await
    }

    async fn replace_endpoint(
        &self,
        tenant: &str,
        id: EndpointId,
        terms: &EndpointTerms,
    ) -> Result<Option<Endpoint>, StoreError> {
        endpoints::replace(self, tenant, id, terms).await
    }

    async fn delete_endpoint(&self, tenant: &str, id: EndpointId) -> Result<bool, StoreError> {
        endpoints::delete(self, tenant, id).await
    }

    async fn rotate_secret(
        &self,
        tenant: &str,
        id: EndpointId,
        secret: &SigningSecret,
        overlap: Duration,
    ) -> Result<Option<Endpoint>, StoreError> {
        endpoints::rotate(self, tenant, id, secret, overlap).await
    }

    async fn deliveries(
        &self,
        tenant: &str,
        endpoint: EndpointId,
        limit: usize,
        after: Option<DeliveryId>,
    ) -> Result<Option<DeliveryPage>, StoreError> {
        match endpoints::get(self, tenant, endpoint).await? {
            None => Ok(None),
            Some(_) => deliveries::list(self, endpoint, limit, after).await.map(Some),
        }
    }

    async fn retry_delivery(
        &self,
        tenant: &str,
        endpoint: EndpointId,
        id: DeliveryId,
    ) -> Result<Option<Delivery>, StoreError> {
        deliveries::retry(self, tenant, endpoint, id).await
    }

    async fn claim_deliveries(
        &self,
        limit: usize,
        lease: Duration,
        except: &[String],
    ) -> Result<Vec<ClaimedDelivery>, StoreError> {
        outgoing::claim(self, limit, lease, except).await
    }

    async fn settle_delivery(&self, claim: DeliveryClaim, answer: &Answer, next: Next) -> Result<bool, StoreError> {
        outgoing::settle(self, claim, answer, next).await
    }

    async fn release_delivery(&self, claim: DeliveryClaim) -> Result<(), StoreError> {
        outgoing::release(self, claim).await
    }

    async fn backlog(&self) -> Result<usize, StoreError> {
        let pending = sqlx::query_scalar("SELECT count(*) FROM webhook_deliveries WHERE state = 'pending'");
        Ok(row::size(pending.fetch_one(&self.readers).await?))
    }

    async fn purge_deliveries(&self) -> Result<(), StoreError> {
        let purge = sqlx::query("DELETE FROM webhook_deliveries WHERE expires_at <= ?");
        purge.bind(self.clock.now_ms()).execute(&self.writer).await?;
        Ok(())
    }
}

/// A column of 16 bytes.
fn bytes(row: &sqlx::sqlite::SqliteRow, column: &str) -> Result<[u8; 16], sqlx::Error> {
    let bytes: &[u8] = sqlx::Row::try_get(row, column)?;
    bytes.try_into().map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

/// A column of milliseconds.
fn moment(row: &sqlx::sqlite::SqliteRow, column: &str) -> Result<Option<time::OffsetDateTime>, sqlx::Error> {
    let Some(ms): Option<i64> = sqlx::Row::try_get(row, column)? else { return Ok(None) };
    row::moment(ms).map(Some)
}

fn unreadable(what: &str) -> sqlx::Error {
    sqlx::Error::Decode(format!("{what} cannot be read").into())
}
