//! The table of routes. The router and the test of the contract read it.

use axum::{
    http::{HeaderMap, Method},
    routing::{MethodRouter, delete, get, post, put},
};

use super::{
    AppState, admin, catalogue, content, create, events,
    face::{Face, Native},
    health, images, keys, ollama, openai, page,
    route::Route,
    sdapi, spec, tenant_events, uploads, usage, verify, webhooks,
};
use crate::generation::Format;

/// The operations of the public listener. Assets of the page are not listed; they are found by name.
pub fn public_routes() -> Vec<Route> {
    let mut routes = native_routes();
    routes.extend(sdapi::routes());
    routes.extend(ollama::routes());
    routes
}

/// The faces other than the native face, by the root of their paths.
const FACES: [(&str, &dyn Face); 7] = [
    ("/v1/images/generations", &openai::OpenAi),
    ("/v1/images/edits", &openai::OpenAi),
    ("/v1/images/variations", &openai::OpenAi),
    ("/sdapi", &sdapi::Sdapi),
    ("/controlnet", &sdapi::Sdapi),
    ("/internal", &sdapi::Sdapi),
    ("/api", &ollama::Ollama),
];

/// The face of a path, even if the path has no route: the face whose root is this path or contains it.
pub(super) fn face_of(path: &str) -> &'static dyn Face {
    let has = |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    FACES.iter().find(|(root, _)| has(root)).map_or(&Native, |(_, face)| *face)
}

/// The face of a request. Below `/v1/videos`, OpenAI's clients have the same paths as native ones.
pub(super) fn face_of_request(path: &str, headers: &HeaderMap) -> &'static dyn Face {
    if openai::videos::speaks(path, headers) { &openai::OpenAi } else { face_of(path) }
}

/// The operations of the public listener, without the operations of the A1111 face and the Ollama face.
fn native_routes() -> Vec<Route> {
    vec![
        endpoint(Method::POST, "/v1/images", post(create::create)),
        endpoint(Method::GET, "/v1/images", get(images::list)),
        endpoint(Method::POST, "/v1/images.png", create::create_as(Format::Png)),
        endpoint(Method::POST, "/v1/images.jpg", create::create_as(Format::Jpeg)),
        endpoint(Method::POST, "/v1/images.webp", create::create_as(Format::Webp)),
        endpoint(Method::POST, "/v1/images/generations", post(openai::generations)),
        endpoint(Method::POST, "/v1/images/edits", post(openai::edits)),
        endpoint(Method::POST, "/v1/images/variations", post(openai::variations)),
        endpoint(Method::GET, "/v1/images/{id}", get(images::get)),
        endpoint(Method::PUT, "/v1/images/{id}", put(create::put)),
        endpoint(Method::DELETE, "/v1/images/{id}", delete(images::delete)),
        endpoint(Method::POST, "/v1/images/{id}/cancel", post(images::cancel)),
        endpoint(Method::PUT, "/v1/images/{id}/star", put(images::star)),
        endpoint(Method::DELETE, "/v1/images/{id}/star", delete(images::unstar)),
        endpoint(Method::GET, "/v1/images/{id}/events", get(events::events)),
        endpoint(Method::GET, "/v1/images/{id}/content/{n}", get(content::content)),
        endpoint(Method::GET, "/v1/images/{id}/preview", get(content::preview)),
        endpoint(Method::POST, "/v1/audio", post(create::create)),
        endpoint(Method::GET, "/v1/audio", get(images::list)),
        endpoint(Method::GET, "/v1/audio/{id}", get(images::get)),
        endpoint(Method::PUT, "/v1/audio/{id}", put(create::put)),
        endpoint(Method::DELETE, "/v1/audio/{id}", delete(images::delete)),
        endpoint(Method::POST, "/v1/audio/{id}/cancel", post(images::cancel)),
        endpoint(Method::PUT, "/v1/audio/{id}/star", put(images::star)),
        endpoint(Method::DELETE, "/v1/audio/{id}/star", delete(images::unstar)),
        endpoint(Method::GET, "/v1/audio/{id}/events", get(events::events)),
        endpoint(Method::GET, "/v1/audio/{id}/content/{n}", get(content::content)),
        endpoint(Method::POST, "/v1/videos", post(openai::videos::create)),
        endpoint(Method::GET, "/v1/videos", get(openai::videos::list)),
        endpoint(Method::GET, "/v1/videos/{id}", get(openai::videos::get)),
        endpoint(Method::PUT, "/v1/videos/{id}", put(create::put)),
        endpoint(Method::DELETE, "/v1/videos/{id}", delete(openai::videos::delete)),
        endpoint(Method::GET, "/v1/videos/{id}/content", get(openai::videos::content)),
        endpoint(Method::POST, "/v1/videos/{id}/cancel", post(images::cancel)),
        endpoint(Method::PUT, "/v1/videos/{id}/star", put(images::star)),
        endpoint(Method::DELETE, "/v1/videos/{id}/star", delete(images::unstar)),
        endpoint(Method::GET, "/v1/videos/{id}/events", get(events::events)),
        endpoint(Method::GET, "/v1/videos/{id}/preview", get(content::preview)),
        endpoint(Method::GET, "/v1/videos/{id}/content/{n}", get(content::content)),
        endpoint(Method::GET, "/v1/events", get(tenant_events::events)),
        endpoint(Method::GET, "/v1/uploads/{sha256}", get(uploads::get)),
        endpoint(Method::POST, "/v1/verify", post(verify::verify)),
        endpoint(Method::GET, "/v1/models", get(catalogue::models)),
        // A model's name may contain slashes, like the names of repositories on Hugging Face.
        Route { routed: "/v1/models/{*id}", ..endpoint(Method::GET, "/v1/models/{id}", get(catalogue::model)) },
        // The handler recognizes the suffix `/schema` after such a name.
        Route { routed: "/v1/models/{*id}", ..endpoint(Method::GET, "/v1/models/{id}/schema", get(catalogue::model)) },
        // The handler also recognizes the suffix `/card`.
        Route { routed: "/v1/models/{*id}", ..endpoint(Method::GET, "/v1/models/{id}/card", get(catalogue::model)) },
        endpoint(Method::GET, "/v1/loras", get(catalogue::loras)),
        endpoint(Method::GET, "/v1/embeddings", get(catalogue::embeddings)),
        endpoint(Method::GET, "/v1/controlnets", get(catalogue::control_nets)),
        endpoint(Method::GET, "/v1/schedulers", get(catalogue::schedulers)),
        endpoint(Method::GET, "/v1/queue", get(catalogue::queue)),
        endpoint(Method::GET, "/v1/usage", get(usage::usage)),
        endpoint(Method::POST, "/v1/webhook_endpoints", post(webhooks::create)),
        endpoint(Method::GET, "/v1/webhook_endpoints", get(webhooks::list)),
        endpoint(Method::GET, "/v1/webhook_endpoints/{id}", get(webhooks::get)),
        endpoint(Method::PUT, "/v1/webhook_endpoints/{id}", put(webhooks::replace)),
        endpoint(Method::DELETE, "/v1/webhook_endpoints/{id}", delete(webhooks::delete)),
        endpoint(Method::POST, "/v1/webhook_endpoints/{id}/rotate", post(webhooks::rotate)),
        endpoint(Method::GET, "/v1/webhook_endpoints/{id}/deliveries", get(webhooks::deliveries)),
        endpoint(Method::POST, "/v1/webhook_endpoints/{id}/deliveries/{delivery}/retry", post(webhooks::retry)),
        endpoint(Method::GET, "/health", get(health::health)),
        endpoint(Method::GET, "/healthz", get(health::health)),
        endpoint(Method::GET, "/openapi.yaml", get(spec::yaml)),
        endpoint(Method::GET, "/openapi.json", get(spec::json)),
        endpoint(Method::GET, "/", get(page::index)),
        endpoint(Method::GET, "/docs", get(page::docs)),
    ]
}

/// The operations of the operator's listener.
pub fn operator_routes() -> Vec<Route> {
    vec![
        endpoint(Method::GET, "/livez", get(health::live)),
        endpoint(Method::GET, "/readyz", get(health::ready)),
        endpoint(Method::GET, "/startupz", get(health::started)),
        endpoint(Method::GET, "/metrics", get(health::metrics)),
        endpoint(Method::POST, "/admin/keys", post(keys::create)),
        endpoint(Method::GET, "/admin/keys", get(keys::list)),
        endpoint(Method::POST, "/admin/keys/{id}/revoke", post(keys::revoke)),
        endpoint(Method::POST, "/admin/keys/{id}/rotate", post(keys::rotate)),
        endpoint(Method::GET, "/admin/generations", get(admin::generations)),
        endpoint(Method::POST, "/admin/generations/{id}/requeue", post(admin::requeue)),
        endpoint(Method::POST, "/admin/generations/{id}/kill", post(admin::kill)),
        endpoint(Method::GET, "/admin/workers", get(admin::workers)),
        endpoint(Method::POST, "/admin/workers/{id}/drain", post(admin::drain)),
        endpoint(Method::POST, "/admin/workers/{id}/undrain", post(admin::undrain)),
        endpoint(Method::POST, "/admin/reload", post(admin::reload)),
    ]
}

fn endpoint(method: Method, path: &'static str, handler: MethodRouter<AppState>) -> Route {
    Route { method, path, routed: path, handler }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::error::ApiError;

    #[test]
    fn a_path_has_the_face_of_its_root() {
        for (path, member) in [
            ("/v1/images", "/type"),
            ("/v1/images/generationsx", "/type"),
            ("/v1/images/generations", "/error/message"),
            ("/v1/images/edits/", "/error/message"),
            ("/v1/images/variations/x/events", "/error/message"),
            ("/sdapi", "/fields"),
            ("/sdapi/v1/nothing", "/fields"),
            ("/controlnet/version", "/fields"),
            ("/api", "/error"),
            ("/api/chat", "/error"),
            ("/apis", "/type"),
            ("/admin/keys", "/type"),
        ] {
            let body = face_of(path).render_error(&ApiError::NoSuchPath.problem()).body;
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert!(body.pointer(member).is_some(), "{path}: {body}");
        }
    }
}
