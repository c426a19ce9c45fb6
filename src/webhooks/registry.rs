//! Manages webhook endpoints, and checks the webhook of a request.

use std::{sync::Arc, time::Duration};

use super::{
    guard::{Forbidden, Guard, literal},
    resolver::{Guarded, Resolver},
};
use crate::{
    config::Webhooks,
    generation::{
        Delivery, DeliveryId, Endpoint, EndpointId, EndpointSettings, Fields, Invalid, SigningSecret, Webhook,
        WebhookEvent,
    },
    ledger::{self, NewEndpoint, Page, StoreError},
};

/// Manages the endpoints of all tenants. A cheap handle.
#[derive(Clone)]
pub struct EndpointRegistry {
    store: Arc<dyn ledger::Webhooks>,
    /// Longest duration of a query of the store; `None` means that queries have no limit.
    patience: Option<Duration>,
    guarded: Guarded,
    max_endpoints: usize,
    /// How long an old secret still signs after it was replaced.
    rotation: Duration,
    /// Whether messages to URLs that requests name directly can be signed, because `webhooks.secret` is set.
    signs_for_requests: bool,
}

/// Why a request about endpoints failed.
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

/// Longest time to resolve the host of a URL before the URL is accepted. The addresses of a host that takes longer are
/// checked only when a message is sent.
const RESOLVED_AT_ONCE: Duration = Duration::from_secs(1);
const MAX_DESCRIPTION_CHARS: usize = 256;

impl EndpointRegistry {
    pub fn new(
        store: Arc<dyn ledger::Webhooks>,
        patience: Option<Duration>,
        guard: Arc<Guard>,
        resolver: Arc<dyn Resolver>,
        settings: &Webhooks,
    ) -> EndpointRegistry {
        EndpointRegistry {
            store,
            patience,
            guarded: Guarded { guard, resolver },
            max_endpoints: settings.max_endpoints.get(),
            rotation: settings.rotation_s.into(),
            signs_for_requests: settings.secret.is_some(),
        }
    }

    /// Checks the webhook of a request before the request is accepted. A fault is added to `fields`, as an error of the
    /// field with the fault.
    ///
    /// # Errors
    /// Only errors of the store.
    pub async fn check(&self, fields: &mut Fields, tenant: &str) -> Result<(), StoreError> {
        match fields.webhook() {
            None => {}
            Some(Webhook::Endpoint { endpoint }) => match self.query(self.store.endpoint(tenant, endpoint)).await? {
                None => fields.error_below("webhook", "endpoint", "invalid_value", "is not a registered endpoint"),
                Some(endpoint) if !endpoint.terms.enabled => {
                    fields.error_below("webhook", "endpoint", "invalid_value", "is disabled");
                }
                Some(_) => {}
            },
            Some(Webhook::Url { .. }) if !self.signs_for_requests => {
                let detail = "is not possible without the setting webhooks.secret; register an endpoint instead";
                fields.error_below("webhook", "url", FORBIDDEN, detail);
            }
            Some(Webhook::Url { url, .. }) => {
                if let Err(forbidden) = self.check_address(&url).await {
                    fields.error_below("webhook", "url", FORBIDDEN, forbidden.to_string());
                }
            }
        }
        Ok(())
    }

    /// Registers an endpoint with a new secret.
    ///
    /// # Errors
    /// Fields are invalid (the error lists all of them), the tenant already has the largest number of endpoints, or the
    /// store fails.
    pub async fn create(&self, tenant: &str, fields: Fields) -> Result<(Endpoint, SigningSecret), RegistryError> {
        let terms = self.terms(fields).await?;
        let (id, secret) = (EndpointId::new(), fresh_secret()?);
        let new = NewEndpoint { id, tenant, terms: &terms, secret: &secret };
        let most = self.max_endpoints;
        let endpoint = self.query(self.store.create_endpoint(&new, most)).await?.ok_or(RegistryError::Full { most })?;
        Ok((endpoint, secret))
    }

    pub async fn list(&self, tenant: &str) -> Result<Vec<Endpoint>, RegistryError> {
        Ok(self.query(self.store.endpoints(tenant)).await?)
    }

    pub async fn get(&self, tenant: &str, id: EndpointId) -> Result<Endpoint, RegistryError> {
        self.query(self.store.endpoint(tenant, id)).await?.ok_or(RegistryError::NotFound)
    }

    pub async fn replace(&self, tenant: &str, id: EndpointId, fields: Fields) -> Result<Endpoint, RegistryError> {
        let terms = self.terms(fields).await?;
        self.query(self.store.replace_endpoint(tenant, id, &terms)).await?.ok_or(RegistryError::NotFound)
    }

    pub async fn delete(&self, tenant: &str, id: EndpointId) -> Result<(), RegistryError> {
        if self.query(self.store.delete_endpoint(tenant, id)).await? { Ok(()) } else { Err(RegistryError::NotFound) }
    }

    /// Replaces the secret of an endpoint. For the time of `webhooks.rotation_s`, messages are signed with the old
    /// secret too.
    pub async fn rotate(&self, tenant: &str, id: EndpointId) -> Result<(Endpoint, SigningSecret), RegistryError> {
        let secret = fresh_secret()?;
        let rotated = self.query(self.store.rotate_secret(tenant, id, &secret, self.rotation)).await?;
        Ok((rotated.ok_or(RegistryError::NotFound)?, secret))
    }

    pub async fn deliveries(
        &self,
        tenant: &str,
        endpoint: EndpointId,
        limit: usize,
        after: Option<DeliveryId>,
    ) -> Result<Page<Delivery>, RegistryError> {
        self.query(self.store.deliveries(tenant, endpoint, limit, after)).await?.ok_or(RegistryError::NotFound)
    }

    pub async fn retry(&self, tenant: &str, endpoint: EndpointId, id: DeliveryId) -> Result<Delivery, RegistryError> {
        self.query(self.store.retry_delivery(tenant, endpoint, id)).await?.ok_or(RegistryError::NotFound)
    }

    async fn query<T>(&self, answer: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        match self.patience {
            None => answer.await,
            Some(patience) => tokio::time::timeout(patience, answer).await.unwrap_or(Err(StoreError::TimedOut)),
        }
    }

    async fn terms(&self, mut fields: Fields) -> Result<EndpointSettings, Invalid> {
        let url = fields.text("url", Webhook::MAX_URL_CHARS);
        match &url {
            None if !fields.has_errors() => fields.error("url", "required", "is required"),
            None => {}
            Some(url) => {
                if let Err(forbidden) = self.check_address(url).await {
                    fields.error("url", FORBIDDEN, forbidden.to_string());
                }
            }
        }
        let terms = EndpointSettings {
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

    /// Checks the form of a URL and, if its host resolves in time, the addresses of the host. A host that does not
    /// resolve passes, because the addresses are checked again whenever a message is sent.
    async fn check_address(&self, url: &str) -> Result<(), Forbidden> {
        let url = self.guarded.guard.check_url(url)?;
        let Some(host) = url.host_str().filter(|host| literal(host).is_none()) else { return Ok(()) };
        match tokio::time::timeout(RESOLVED_AT_ONCE, self.guarded.resolve(host)).await {
            Ok(Err(error)) if error.is::<Forbidden>() => Err(Forbidden::Address),
            Ok(Ok(_) | Err(_)) | Err(_) => Ok(()),
        }
    }
}

/// The code of an error about a URL that webhooks may not use.
const FORBIDDEN: &str = "webhook_url_forbidden";

fn fresh_secret() -> Result<SigningSecret, RegistryError> {
    let mut key = vec![0; 32];
    getrandom::fill(&mut key).map_err(|error| RegistryError::Entropy(error.to_string()))?;
    SigningSecret::from_key(key).map_err(|error| RegistryError::Entropy(error.to_string()))
}

impl std::fmt::Debug for EndpointRegistry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EndpointRegistry").finish_non_exhaustive()
    }
}
