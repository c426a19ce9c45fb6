//! Ollama's protocol for pictures: `POST /api/generate` with lines of progress and a picture in base64, and the lists
//! that Ollama's clients read. Text models do not exist here.

mod answer;
mod models;
mod request;
mod stream;

use std::time::Duration;

use axum::{
    extract::{FromRequest, Request, State},
    http::{Extensions, HeaderValue, Method, header},
    response::{IntoResponse, Response},
    routing::{MethodRouter, get, post},
};
use serde_json::json;

use super::{
    AppState,
    caller::Caller,
    create::{headers, marked},
    error::{ApiError, ProblemDocument, invalid_as_bad_request},
    face::{Document, Face, message},
    idempotency::IdempotencyKey,
    presence::Waits,
    route::Route,
    url::Location,
};
use crate::{
    generation::{Fields, WorkKind},
    service::CreateRequest,
};

/// The longest wait for a generation. With usual settings, the generation's own time limits end it much earlier.
const LONGEST_WAIT: Duration = Duration::from_secs(86_400);

/// The operations of this protocol.
pub fn routes() -> Vec<Route> {
    vec![
        endpoint(Method::POST, "/api/generate", post(generate)),
        endpoint(Method::GET, "/api/tags", get(models::tags)),
        endpoint(Method::POST, "/api/show", post(models::show)),
        endpoint(Method::GET, "/api/version", get(models::version)),
    ]
}

fn endpoint(method: Method, path: &'static str, handler: MethodRouter<AppState>) -> Route {
    Route { method, path, routed: path, handler }
}

/// The protocol of `/api`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ollama;

impl Face for Ollama {
    fn render_error(&self, problem: &ProblemDocument) -> Document {
        Document::of("application/json", &error(problem))
    }

    fn adapt_error(&self, _: &ProblemDocument, response: &mut Response) {
        invalid_as_bad_request(response);
    }
}

/// The body of an error, and the last line of a stream that fails.
fn error(problem: &ProblemDocument) -> serde_json::Value {
    json!({"error": message(problem), "code": problem.code})
}

/// A body in JSON. Clients of Ollama, such as `curl -d`, often send no media type or a wrong one, so the header
/// `Content-Type` is ignored.
struct JsonBody(Fields);

impl FromRequest<AppState> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(mut request: Request, state: &AppState) -> Result<Self, ApiError> {
        request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Fields::from_request(request, state).await.map(JsonBody)
    }
}

/// `POST /api/generate`: draws a picture.
async fn generate(
    State(state): State<AppState>,
    caller: Caller,
    key: IdempotencyKey,
    extensions: Extensions,
    JsonBody(fields): JsonBody,
) -> Result<Response, ApiError> {
    let card = |model: &str| state.service.model(model).and_then(|model| model.card);
    let request = request::read(fields, state.service.default_model(), card)?;
    if request.only_loads {
        return Ok(answer::loaded(&request));
    }
    let request::Request { fields, stream, about, .. } = request;
    let order = CreateRequest { caller, kind: WorkKind::Draw, fields, repeatable: key.repeatable(), format: None };
    let (view, replayed, mut presence) = state.accept(order, Waits::ForResult).await?;
    let at = Location::of(&view.record);
    let answer = match stream {
        true => stream::respond(state, about, view.record, extensions, presence),
        false => {
            let waited = state.wait(&view.record, LONGEST_WAIT).await;
            presence.keep();
            let record = waited?.view.record;
            let artifacts = state.artifacts(&record)?;
            let (room, last) = answer::last(&state, &about, &record, &artifacts, &extensions).await?;
            (room.map(axum::Extension), Document::of("application/json", &last)).into_response()
        }
    };
    Ok(marked((headers(at), [(header::CACHE_CONTROL, "no-store")], answer).into_response(), replayed))
}
