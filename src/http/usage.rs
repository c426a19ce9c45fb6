//! `GET /v1/usage`: what the sender's tenant and key have used per day, and what is left of the key's limits.

use axum::{
    extract::{RawQuery, State},
    http::header,
    response::{IntoResponse, Json, Response},
};
use serde::Serialize;

use super::{caller::Caller, error::ApiError, urlencoded};
use crate::{
    generation::{Allowance, Invalid},
    ledger::{Usage, UsageOfDay},
    service::Service,
};

#[derive(Debug, Serialize)]
struct UsageObject {
    object: &'static str,
    tenant: String,
    /// The public part of the sender's key.
    key: Option<String>,
    limits: Vec<Limit>,
    /// The days with usage, newest first.
    data: Vec<Day>,
}

/// A limit of the sender's key.
#[derive(Debug, Serialize)]
struct Limit {
    policy: &'static str,
    unit: &'static str,
    quota: u64,
    window_s: u64,
    left: u64,
    reset_s: u64,
}

/// The usage of one day (UTC).
#[derive(Debug, Serialize)]
struct Day {
    date: String,
    tenant: Counts,
    /// The usage of the sender's key alone.
    key: Option<Counts>,
}

/// Accepted generations, what they make, and their work.
#[derive(Debug, Serialize)]
struct Counts {
    generations: u64,
    images: u64,
    films: u64,
    film_seconds: f64,
    sounds: u64,
    sound_seconds: f64,
    /// In 10⁹ multiplications.
    cost: f64,
}

impl From<Usage> for Counts {
    fn from(Usage { generations, images, films, film_seconds, sounds, sound_seconds, cost }: Usage) -> Counts {
        Counts { generations, images, films, film_seconds, sounds, sound_seconds, cost }
    }
}

impl From<Allowance> for Limit {
    fn from(Allowance { policy, quota, window_s, left, reset_s }: Allowance) -> Limit {
        let unit = if policy == Allowance::DAY { "gigamultiplications" } else { "requests" };
        Limit { policy, unit, quota, window_s, left, reset_s }
    }
}

/// `GET /v1/usage`.
pub async fn usage(
    State(service): State<Service>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let mut fields = urlencoded::query(query.as_deref())?;
    let days = fields.integer("days", 1, 400).and_then(|days| usize::try_from(days).ok()).unwrap_or(30);
    let errors = fields.finish();
    if !errors.is_empty() {
        return Err(ApiError::Invalid(Invalid { errors }));
    }
    let days = service.usage(&caller, days).await?;
    service.note_allowances(&caller).await?;
    let day = |UsageOfDay { day, tenant, key }| Day {
        date: day,
        tenant: tenant.into(),
        key: caller.key.is_some().then(|| key.into()),
    };
    let usage = UsageObject {
        object: "usage",
        tenant: caller.tenant.to_string(),
        key: caller.key.as_ref().map(|key| key.id.clone()),
        limits: caller.allowances.get().into_iter().map(Limit::from).collect(),
        data: days.into_iter().map(day).collect(),
    };
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(usage)).into_response())
}
