//! Endpoints of webhooks, and what goes out to them. Locks are taken in the order generation, endpoint, delivery.

mod deliveries;
mod endpoints;
mod outgoing;

use std::time::Duration;

use async_trait::async_trait;
use sqlx::{Row, postgres::PgRow, types::Uuid};
use time::OffsetDateTime;

use crate::generation::{DeliveryId, EndpointId, SigningSecret};
use crate::ledger::{
    Answer, ClaimedDelivery, Delivery, DeliveryClaim, DeliveryPage, Endpoint, EndpointTerms, NewEndpoint, Next,
    StoreError, WebhookStore,
};

use super::{PgStore, row};

pub use outgoing::enqueue;

#[async_trait]
impl WebhookStore for PgStore {
    async fn create_endpoint(&self, new: &NewEndpoint<'_>, most: usize) -> Result<Option<Endpoint>, StoreError> {
        self.bounded(|| endpoints::create(self, new, most)).await
    }

    async fn endpoints(&self, tenant: &str) -> Result<Vec<Endpoint>, StoreError> {
        self.bounded(|| endpoints::list(self, tenant)).await
    }

    async fn endpoint(&self, tenant: &str, id: EndpointId) -> Result<Option<Endpoint>, StoreError> {
        self.bounded(|| endpoints::get(self, tenant, id)).await
    }

    async fn replace_endpoint(
        &self,
        tenant: &str,
        id: EndpointId,
        terms: &EndpointTerms,
    ) -> Result<Option<Endpoint>, StoreError> {
        self.bounded(|| endpoints::replace(self, tenant, id, terms)).await
    }

    async fn delete_endpoint(&self, tenant: &str, id: EndpointId) -> Result<bool, StoreError> {
        self.bounded(|| endpoints::delete(self, tenant, id)).await
    }

    async fn rotate_secret(
        &self,
        tenant: &str,
        id: EndpointId,
        secret: &SigningSecret,
        overlap: Duration,
    ) -> Result<Option<Endpoint>, StoreError> {
        self.bounded(|| endpoints::rotate(self, tenant, id, secret, overlap)).await
    }

    async fn deliveries(
        &self,
        tenant: &str,
        endpoint: EndpointId,
        limit: usize,
        after: Option<DeliveryId>,
    ) -> Result<Option<DeliveryPage>, StoreError> {
        match self.endpoint(tenant, endpoint).await? {
            None => Ok(None),
            Some(_) => self.bounded(|| deliveries::list(self, endpoint, limit, after)).await.map(Some),
        }
    }

    async fn retry_delivery(
        &self,
        tenant: &str,
        endpoint: EndpointId,
        id: DeliveryId,
    ) -> Result<Option<Delivery>, StoreError> {
        self.bounded(|| deliveries::retry(self, tenant, endpoint, id)).await
    }

    async fn claim_deliveries(
        &self,
        limit: usize,
        lease: Duration,
        except: &[String],
    ) -> Result<Vec<ClaimedDelivery>, StoreError> {
        self.bounded(|| outgoing::claim(self, limit, lease, except)).await
    }

    async fn settle_delivery(&self, claim: DeliveryClaim, answer: &Answer, next: Next) -> Result<bool, StoreError> {
        self.bounded(|| outgoing::settle(self, claim, answer, next)).await
    }

    async fn release_delivery(&self, claim: DeliveryClaim) -> Result<(), StoreError> {
        self.bounded(|| outgoing::release(self, claim)).await
    }

    async fn backlog(&self) -> Result<usize, StoreError> {
        self.bounded(|| deliveries::backlog(self)).await
    }

    async fn purge_deliveries(&self) -> Result<(), StoreError> {
        self.bounded(|| deliveries::purge(self)).await
    }
}

fn uuid_of_endpoint(id: EndpointId) -> Uuid {
    Uuid::from_bytes(*id.as_bytes())
}

fn uuid_of_delivery(id: DeliveryId) -> Uuid {
    Uuid::from_bytes(*id.as_bytes())
}

/// The bytes of an id.
fn bytes(row: &PgRow, column: &str) -> Result<[u8; 16], sqlx::Error> {
    Ok(row.try_get::<Uuid, _>(column)?.into_bytes())
}

fn moment(row: &PgRow, column: &str) -> Result<Option<OffsetDateTime>, sqlx::Error> {
    Ok(row.try_get::<Option<OffsetDateTime>, _>(column)?.map(row::whole_ms))
}

fn unreadable(what: &str) -> sqlx::Error {
    sqlx::Error::Decode(format!("{what} cannot be read").into())
}
