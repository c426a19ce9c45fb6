//! The desk for endpoints, and for what a request says of its webhook.

use std::{sync::Arc, time::Duration};

use super::{
    guard::{Forbidden, Guard, literal},
    resolver::{Guarded, Resolver},
};
use crate::{
    config::Webhooks,
    generation::{
        Delivery, DeliveryId, Endpoint, EndpointId, EndpointTerms, Fields, Invalid, SigningSecret, Webhook,
        WebhookEvent,
    },
    ledger::{self, NewEndpoint, Page, StoreError},
};

/// A cheap handle to the endpoints of all tenants.
#[derive(Clone)]
pub struct Registry {
    store: Arc<dyn ledger::Webhooks>,
    /// No call to the store takes longer; `None` where it answers or fails by itself.
    patience: Option<Duration>,
    guarded: Guarded,
    max_endpoints: usize,
    rotation: Duration,
    /// Addresses that a request names itself can be signed for.
    signs_for_requests: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error("there is no such endpoint or delivery")]
    NotFound,
    #[error("the tenant has {most} endpoints already")]
    Full { most: usize },
    #[error("the system gives no random numbers: {0}")]
    Entropy(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A name that does not resolve in this time is judged when the message is sent.
const RESOLVED_AT_ONCE: Duration = Duration::from_secs(1);
const MAX_DESCRIPTION_CHARS: usize = 256;

impl Registry {
    pub fn new(
        store: Arc<dyn ledger::Webhooks>,
        patience: Option<Duration>,
        guard: Arc<Guard>,
        resolver: Arc<dyn Resolver>,
        settings: &Webhooks,
    ) -> Registry {
        Registry {
            store,
            patience,
            guarded: Guarded { guard, resolver },
            max_endpoints: settings.max_endpoints.get(),
            rotation: settings.rotation_s.into(),
            signs_for_requests: settings.secret.is_some(),
        }
    }

    /// Judges a request's webhook, before the request is accepted. What is wrong with it becomes an error of its field.
    ///
    /// # Errors
    /// Only those of the store.
    pub async fn check(&self, fields: &mut Fields, tenant: &str) -> Result<(), StoreError> {
        match fields.webhook() {
            None => {}
            Some(Webhook::Endpoint { endpoint }) => match self.ask(self.store.endpoint(tenant, endpoint)).await? {
                None => fields.error_below("webhook", "endpoint", "invalid_value", "is not a registered endpoint"),
                Some(endpoint) if !endpoint.terms.enabled => {
                    fields.error_below("webhook", "endpoint", "invalid_value", "is disabled");
                }
                Some(_) => {}
            },
            Some(Webhook::Url { .. }) if !self.signs_for_requests => {
                let detail = "cannot be signed for, as webhooks.secret is not set here: register an endpoint";
                fields.error_below("webhook", "url", FORBIDDEN, detail);
            }
            Some(Webhook::Url { url, .. }) => {
                if let Err(forbidden) = self.judge(&url).await {
                    fields.error_below("webhook", "url", FORBIDDEN, forbidden.to_string());
                }
            }
        }
        Ok(())
    }

    /// # Errors
    /// All invalid fields, or as many endpoints as a tenant may have.
    pub async fn create(&self, tenant: &str, fields: Fields) -> Result<(Endpoint, SigningSecret), RegistryError> {
        let terms = self.terms(fields).await?;
        let (id, secret) = (EndpointId::new(), fresh_secret()?);
        let new = NewEndpoint { id, tenant, terms: &terms, secret: &secret };
        let most = self.max_endpoints;
        let endpoint = self.ask(self.store.create_endpoint(&new, most)).await?.ok_or(RegistryError::Full { most })?;
        Ok((endpoint, secret))
    }

    pub async fn list(&self, tenant: &str) -> Result<Vec<Endpoint>, RegistryError> {
        Ok(self.ask(self.store.endpoints(tenant)).await?)
    }

    pub async fn get(&self, tenant: &str, id: EndpointId) -> Result<Endpoint, RegistryError> {
        self.ask(self.store.endpoint(tenant, id)).await?.ok_or(RegistryError::NotFound)
    }

    pub async fn replace(&self, tenant: &str, id: EndpointId, fields: Fields) -> Result<Endpoint, RegistryError> {
        let terms = self.terms(fields).await?;
        self.ask(self.store.replace_endpoint(tenant, id, &terms)).await?.ok_or(RegistryError::NotFound)
    }

    pub async fn delete(&self, tenant: &str, id: EndpointId) -> Result<(), RegistryError> {
        if self.ask(self.store.delete_endpoint(tenant, id)).await? { Ok(()) } else { Err(RegistryError::NotFound) }
    }

    /// A new secret; the old one signs beside it for a while.
    pub async fn rotate(&self, tenant: &str, id: EndpointId) -> Result<(Endpoint, SigningSecret), RegistryError> {
        let secret = fresh_secret()?;
        let rotated = self.ask(self.store.rotate_secret(tenant, id, &secret, self.rotation)).await?;
        Ok((rotated.ok_or(RegistryError::NotFound)?, secret))
    }

    pub async fn deliveries(
        &self,
        tenant: &str,
        endpoint: EndpointId,
        limit: usize,
        after: Option<DeliveryId>,
    ) -> Result<Page<Delivery>, RegistryError> {
        self.ask(self.store.deliveries(tenant, endpoint, limit, after)).await?.ok_or(RegistryError::NotFound)
    }

    pub async fn retry(&self, tenant: &str, endpoint: EndpointId, id: DeliveryId) -> Result<Delivery, RegistryError> {
        self.ask(self.store.retry_delivery(tenant, endpoint, id)).await?.ok_or(RegistryError::NotFound)
    }

    async fn ask<T>(&self, answer: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        match self.patience {
            None => answer.await,
            Some(patience) => tokio::time::timeout(patience, answer).await.unwrap_or(Err(StoreError::TimedOut)),
        }
    }

    async fn terms(&self, mut fields: Fields) -> Result<EndpointTerms, Invalid> {
        let url = fields.text("url", Webhook::MAX_URL_CHARS);
        match &url {
            None if !fields.has_errors() => fields.error("url", "required", "is required"),
            None => {}
            Some(url) => {
                if let Err(forbidden) = self.judge(url).await {
                    fields.error("url", FORBIDDEN, forbidden.to_string());
                }
            }
        }
        let terms = EndpointTerms {
            url: url.unwrap_or_default(),
            events: WebhookEvent::read(&mut fields),
            description: fields.text("description", MAX_DESCRIPTION_CHARS).unwrap_or_default(),
            enabled: fields.flag("enabled").unwrap_or(true),
        };
        match fields.finish() {
            errors if errors.is_empty() => Ok(terms),
            errors => Err(Invalid { errors }),
        }
    }

    /// By the form of an address and, where its host resolves at once, by where it leads. That it leads somewhere is no
    /// matter here: it is judged again, and then for good, whenever a message is sent.
    async fn judge(&self, url: &str) -> Result<(), Forbidden> {
        let url = self.guarded.guard.check_url(url)?;
        let Some(host) = url.host_str().filter(|host| literal(host).is_none()) else { return Ok(()) };
        match tokio::time::timeout(RESOLVED_AT_ONCE, self.guarded.resolve(host)).await {
            Ok(Err(error)) if error.is::<Forbidden>() => Err(Forbidden::Address),
            Ok(Ok(_) | Err(_)) | Err(_) => Ok(()),
        }
    }
}

/// The code of an address that may not be sent to.
const FORBIDDEN: &str = "webhook_url_forbidden";

fn fresh_secret() -> Result<SigningSecret, RegistryError> {
    let mut key = vec![0; 32];
    getrandom::fill(&mut key).map_err(|error| RegistryError::Entropy(error.to_string()))?;
    SigningSecret::from_key(key).map_err(|error| RegistryError::Entropy(error.to_string()))
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}
