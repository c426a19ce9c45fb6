//! `POST /v1/images`: one request, three answers.

use axum::{
    extract::State,
    http::{HeaderName, header},
    response::{AppendHeaders, IntoResponse, Json, Response},
};

use super::{
    AppState, content,
    error::{ApiError, location, success},
    events, generation,
    negotiate::{Accept, Prefer},
    presence::{Presence, Waits},
};
use crate::{
    generation::{Fields, GenerationId, Status},
    service::View,
};

pub async fn create(
    State(state): State<AppState>,
    accept: Accept,
    prefer: Prefer,
    fields: Fields,
) -> Result<Response, ApiError> {
    match accept {
        Accept::Json => object(&state, prefer, fields).await,
        Accept::Png => picture(&state, prefer, fields).await,
        Accept::Events => stream(state, fields).await,
    }
}

/// The same with the answer in the path, for shells.
pub async fn create_png(State(state): State<AppState>, prefer: Prefer, fields: Fields) -> Result<Response, ApiError> {
    picture(&state, prefer, fields).await
}

async fn object(state: &AppState, prefer: Prefer, fields: Fields) -> Result<Response, ApiError> {
    let Some(wait) = prefer.wait else {
        let view = state.service.create(fields).await?;
        return Ok(receipt(state, &view, &prefer));
    };
    let (view, mut presence) = state.accept(fields, Waits::ForObject).await?;
    let waited = state.wait(view.record.id, wait).await;
    presence.keep();
    Ok(receipt(state, &waited?, &prefer))
}

/// 200 with the finished generation, or 202 with where to look and when.
fn receipt(state: &AppState, view: &View, prefer: &Prefer) -> Response {
    let pace = state.service.pace();
    let object = Json(generation::object(view, pace, &state.signer));
    let headers = (headers(view.record.id), applied(prefer), [(header::CACHE_CONTROL, "no-store")]);
    if view.record.status.is_terminal() {
        return (headers, object).into_response();
    }
    let retry_after = [(header::RETRY_AFTER, generation::retry_after_s(view, pace).to_string())];
    (success::ACCEPTED, headers, retry_after, object).into_response()
}

async fn picture(state: &AppState, prefer: Prefer, mut fields: Fields) -> Result<Response, ApiError> {
    if wants_many(&mut fields) {
        return Err(ApiError::MultipleImages);
    }
    let (view, mut presence) = state.accept(fields, Waits::ForResult).await?;
    let waited = state.wait(view.record.id, prefer.wait.unwrap_or(prefer.default_wait)).await;
    presence.keep();
    let id = view.record.id;
    match waited?.record.status {
        Status::Queued | Status::Running => Err(ApiError::WaitTimeout(id)),
        Status::Canceled => Err(ApiError::Canceled(id)),
        Status::Expired => Err(ApiError::Expired(id)),
        Status::Failed { problem } => Err(ApiError::Failed { id, code: problem.code, message: problem.message }),
        Status::Succeeded { .. } => {
            let (image, bytes) = state.service.content(id, 0).await?;
            let where_from = [(header::CONTENT_LOCATION, content::url(&id, 0))];
            let seed = [(HeaderName::from_static("latentd-seed"), image.seed.to_string())];
            Ok((headers(id), applied(&prefer), where_from, seed, content::file(&image, bytes)).into_response())
        }
    }
}

/// Whether `n` asks for more pictures than one answer holds. A bad `n` is the resolver's to judge.
fn wants_many(fields: &mut Fields) -> bool {
    let Some(n) = fields.take("n") else {
        return false;
    };
    let many = n.as_f64().is_some_and(|n| n > 1.0);
    fields.put_back("n", n);
    many
}

async fn stream(state: AppState, fields: Fields) -> Result<Response, ApiError> {
    let (view, presence) = state.accept(fields, Waits::ForResult).await?;
    let id = view.record.id;
    Ok((headers(id), events::stream(state, id, 0, presence).await?).into_response())
}

fn headers(id: GenerationId) -> impl axum::response::IntoResponseParts {
    AppendHeaders([
        (header::LOCATION, location(&id)),
        (HeaderName::from_static("latentd-generation-id"), id.to_string()),
        (header::VARY, "Accept, Prefer".to_owned()),
    ])
}

fn applied(prefer: &Prefer) -> impl axum::response::IntoResponseParts + use<> {
    AppendHeaders(prefer.applied().map(|applied| (HeaderName::from_static("preference-applied"), applied)))
}

impl AppState {
    /// Creates the generation in a task of its own: a client that leaves between the commit and the receipt drops this
    /// future, but the presence is made all the same, and its drop does what the request wants.
    async fn accept(&self, fields: Fields, waits: Waits) -> Result<(View, Presence), ApiError> {
        let state = self.clone();
        let accepting = self.afterwork.spawn(async move {
            let view = state.service.create(fields).await?;
            let presence = Presence::of(&state, &view, waits);
            Ok((view, presence))
        });
        accepting.await.unwrap_or_else(|error| Err(ApiError::Internal { cause: error.to_string() }))
    }

    /// The generation when it has ended, at the latest after `timeout`; [`ApiError::Draining`] as soon as the server
    /// stops.
    pub(super) async fn wait(&self, id: GenerationId, timeout: std::time::Duration) -> Result<View, ApiError> {
        tokio::select! {
            view = self.service.wait(id, timeout) => Ok(view?),
            () = self.draining.cancelled() => Err(ApiError::Draining(Some(id))),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;

    #[test]
    fn only_a_number_above_one_wants_many() {
        for (n, expected) in
            [(json!(1), false), (json!(2), true), (json!(2.0), true), (json!("2"), false), (json!(null), false)]
        {
            let mut fields = Fields::new(Map::from_iter([("n".to_owned(), n.clone())]));
            assert_eq!(wants_many(&mut fields), expected, "{n}");
        }
    }
}
