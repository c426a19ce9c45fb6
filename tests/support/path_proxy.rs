//! A reverse proxy that serves a server under a path, like nginx with `location /ai/ { proxy_pass http://server/; }`.

#![allow(dead_code, reason = "each test target uses its part")]

use std::sync::{Arc, Mutex};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use tokio::{net::TcpListener, task::AbortHandle};

/// The path under which the server appears.
pub const PATH: &str = "/ai";

/// A running proxy; it stops when it is dropped.
pub struct PathProxy {
    /// The URL of the server's root, with a slash at the end.
    pub url: String,
    requested_paths: Arc<Mutex<Vec<String>>>,
    serving: AbortHandle,
}

#[derive(Clone)]
struct Shared {
    server: String,
    client: reqwest::Client,
    requested_paths: Arc<Mutex<Vec<String>>>,
}

impl PathProxy {
    /// Starts a proxy in front of the server at this URL, such as `http://127.0.0.1:8080`.
    pub async fn in_front_of(server: &str) -> PathProxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}{PATH}/", listener.local_addr().unwrap());
        let requested_paths = Arc::new(Mutex::new(Vec::new()));
        let shared = Shared {
            server: server.to_owned(),
            client: reqwest::Client::new(),
            requested_paths: requested_paths.clone(),
        };
        let router = Router::new().fallback(forward).with_state(shared);
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() }).abort_handle();
        PathProxy { url, requested_paths, serving }
    }

    /// All paths that clients have requested.
    pub fn requested_paths(&self) -> Vec<String> {
        self.requested_paths.lock().unwrap().clone()
    }
}

impl Drop for PathProxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn forward(State(shared): State<Shared>, request: Request) -> Response {
    let (mut head, body) = request.into_parts();
    shared.requested_paths.lock().unwrap().push(head.uri.path().to_owned());
    let whole = head.uri.path_and_query().map_or("", |path| path.as_str());
    let Some(rest) = whole.strip_prefix(PATH).filter(|rest| rest.starts_with('/')) else {
        return (StatusCode::NOT_FOUND, "another service").into_response();
    };
    head.headers.remove(header::HOST);
    head.headers.remove(header::CONNECTION);
    let body = axum::body::to_bytes(body, 32 << 20).await.unwrap();
    let asking = shared.client.request(head.method, format!("{}{rest}", shared.server)).headers(head.headers);
    let Ok(answer) = asking.body(body).send().await else {
        return StatusCode::BAD_GATEWAY.into_response();
    };
    let (status, mut headers) = (answer.status(), answer.headers().clone());
    headers.remove(header::TRANSFER_ENCODING);
    headers.remove(header::CONNECTION);
    (status, headers, Body::from_stream(answer.bytes_stream())).into_response()
}
