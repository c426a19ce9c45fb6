//! The API of webhook endpoints and of the deliveries to them.

use axum::{
    extract::{RawQuery, State},
    http::header,
    response::{IntoResponse, Json, Response},
};
use serde::Serialize;

use super::{
    caller::Caller,
    error::{ApiError, success},
    list::Page,
    path::{DeliveryName, EndpointName},
    url, urlencoded,
};
use crate::{
    generation::{
        Delivery, DeliveryId, Endpoint, EndpointId, Fields, GenerationId, Invalid, SigningSecret, WebhookEvent, rfc3339,
    },
    service::Service,
};

#[derive(Debug, Serialize)]
struct EndpointObject {
    id: EndpointId,
    object: &'static str,
    url: String,
    events: Vec<WebhookEvent>,
    description: String,
    /// `enabled`, `disabled`, or `gone` if the receiver has answered 410.
    status: &'static str,
    created_at: String,
    updated_at: String,
    old_secret_expires_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
}

#[derive(Debug, Serialize)]
struct DeliveryObject {
    id: DeliveryId,
    object: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    generation: GenerationId,
    status: &'static str,
    attempts: u32,
    last_status: Option<u16>,
    last_error: Option<String>,
    last_attempt_at: Option<String>,
    next_attempt_at: Option<String>,
    created_at: String,
    ended_at: Option<String>,
}

const NO_STORE: [(header::HeaderName, &str); 1] = [(header::CACHE_CONTROL, "no-store")];

pub async fn create(State(service): State<Service>, caller: Caller, fields: Fields) -> Result<Response, ApiError> {
    let (endpoint, secret) = service.webhooks().create(&caller.tenant, fields).await?;
    let location = [(header::LOCATION, url::webhook_endpoint(endpoint.id))];
    Ok((success::CREATED, location, NO_STORE, Json(endpoint_object(endpoint, Some(&secret)))).into_response())
}

pub async fn list(State(service): State<Service>, caller: Caller) -> Result<Response, ApiError> {
    let endpoints = service.webhooks().list(&caller.tenant).await?;
    let ids: Vec<EndpointId> = endpoints.iter().map(|endpoint| endpoint.id).collect();
    let data = endpoints.into_iter().map(|endpoint| endpoint_object(endpoint, None)).collect();
    Ok((NO_STORE, Json(Page::of(data, &ids, false))).into_response())
}

pub async fn get(
    State(service): State<Service>,
    caller: Caller,
    EndpointName(id): EndpointName,
) -> Result<Response, ApiError> {
    let endpoint = service.webhooks().get(&caller.tenant, id).await?;
    Ok((NO_STORE, Json(endpoint_object(endpoint, None))).into_response())
}

pub async fn replace(
    State(service): State<Service>,
    caller: Caller,
    EndpointName(id): EndpointName,
    fields: Fields,
) -> Result<Response, ApiError> {
    let endpoint = service.webhooks().replace(&caller.tenant, id, fields).await?;
    Ok((NO_STORE, Json(endpoint_object(endpoint, None))).into_response())
}

pub async fn delete(
    State(service): State<Service>,
    caller: Caller,
    EndpointName(id): EndpointName,
) -> Result<Response, ApiError> {
    service.webhooks().delete(&caller.tenant, id).await?;
    Ok(success::NO_CONTENT.into_response())
}

/// Replaces the secret of an endpoint; only this answer shows the new one.
pub async fn rotate(
    State(service): State<Service>,
    caller: Caller,
    EndpointName(id): EndpointName,
) -> Result<Response, ApiError> {
    let (endpoint, secret) = service.webhooks().rotate(&caller.tenant, id).await?;
    Ok((NO_STORE, Json(endpoint_object(endpoint, Some(&secret)))).into_response())
}

pub async fn deliveries(
    State(service): State<Service>,
    caller: Caller,
    EndpointName(id): EndpointName,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let (limit, after) = page(query.as_deref())?;
    let page = service.webhooks().deliveries(&caller.tenant, id, limit, after).await?;
    let ids: Vec<DeliveryId> = page.records.iter().map(|delivery| delivery.id).collect();
    let next = ids.last().filter(|_| page.has_more).map(|last| {
        let parameters = [("limit", Some(limit.to_string())), ("after", Some(last.to_string()))];
        (header::LINK, url::next_page(&format!("{}/deliveries", url::webhook_endpoint(id)), parameters))
    });
    let list = Page::of(page.records.into_iter().map(delivery_object).collect(), &ids, page.has_more);
    Ok((axum::response::AppendHeaders(next), NO_STORE, Json(list)).into_response())
}

/// Makes a delivery due again.
pub async fn retry(
    State(service): State<Service>,
    caller: Caller,
    EndpointName(endpoint): EndpointName,
    DeliveryName(id): DeliveryName,
) -> Result<Response, ApiError> {
    let delivery = service.webhooks().retry(&caller.tenant, endpoint, id).await?;
    Ok((success::ACCEPTED, NO_STORE, Json(delivery_object(delivery))).into_response())
}

/// Reads the limit and the cursor of a page.
///
/// # Errors
/// All invalid or unknown parameters.
fn page(query: Option<&str>) -> Result<(usize, Option<DeliveryId>), ApiError> {
    let mut fields = urlencoded::query(query)?;
    let limit = fields.integer("limit", 1, 100).and_then(|limit| usize::try_from(limit).ok()).unwrap_or(20);
    let after = fields.text("after", 64).map(|text| text.parse());
    if let Some(Err(_)) = &after {
        fields.error("after", "invalid_value", "must be the id of a delivery");
    }
    match fields.finish() {
        errors if errors.is_empty() => Ok((limit, after.and_then(Result::ok))),
        errors => Err(ApiError::Invalid(Invalid { errors })),
    }
}

/// `secret` is shown only if it was just made.
fn endpoint_object(endpoint: Endpoint, secret: Option<&SigningSecret>) -> EndpointObject {
    EndpointObject {
        id: endpoint.id,
        object: "webhook_endpoint",
        url: endpoint.terms.url,
        events: endpoint.terms.events,
        description: endpoint.terms.description,
        status: match (endpoint.terms.enabled, endpoint.gone) {
            (true, _) => "enabled",
            (false, false) => "disabled",
            (false, true) => "gone",
        },
        created_at: rfc3339(endpoint.created_at),
        updated_at: rfc3339(endpoint.updated_at),
        old_secret_expires_at: endpoint.old_secret_until.map(rfc3339),
        secret: secret.map(SigningSecret::reveal),
    }
}

fn delivery_object(delivery: Delivery) -> DeliveryObject {
    DeliveryObject {
        id: delivery.id,
        object: "webhook_delivery",
        kind: delivery.kind.as_str(),
        generation: delivery.generation,
        status: delivery.state.as_str(),
        attempts: delivery.attempts,
        last_status: delivery.last_status,
        last_error: delivery.last_error,
        last_attempt_at: delivery.last_at.map(rfc3339),
        next_attempt_at: delivery.due_at.map(rfc3339),
        created_at: rfc3339(delivery.created_at),
        ended_at: delivery.ended_at.map(rfc3339),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_bounded_and_every_bad_parameter_is_named() {
        let id = DeliveryId::new();
        assert_eq!(page(None).unwrap(), (20, None));
        assert_eq!(page(Some(&format!("limit=5&after={id}"))).unwrap(), (5, Some(id)));
        let Err(ApiError::Invalid(invalid)) = page(Some("limit=101&after=img_x&color=red")) else {
            panic!("it passed")
        };
        let mut named: Vec<_> = invalid.errors.iter().map(|error| error.pointer.as_str()).collect();
        named.sort_unstable();
        assert_eq!(named, ["/after", "/color", "/limit"]);
    }
}
