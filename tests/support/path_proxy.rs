//! A reverse proxy that shows a server under a path, as nginx does with `location /ai/ { proxy_pass http://server/; }`.

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

pub const PATH: &str = "/ai";

pub struct PathProxy {
    /// Where the server's root is seen, with a slash at its end.
    pub url: String,
    asked: Arc<Mutex<Vec<String>>>,
    serving: AbortHandle,
}

#[derive(Clone)]
struct Shared {
    server: String,
    client: reqwest::Client,
    asked: Arc<Mutex<Vec<String>>>,
}

impl PathProxy {
    /// Before a server at this address, such as `http://127.0.0.1:8080`.
    pub async fn before(server: &str) -> PathProxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}{PATH}/", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let shared = Shared { server: server.to_owned(), client: reqwest::Client::new(), asked: asked.clone() };
        let router = Router::new().fallback(forward).with_state(shared);
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() }).abort_handle();
        PathProxy { url, asked, serving }
    }

    /// Every path that a client has asked for.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for PathProxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn forward(State(shared): State<Shared>, request: Request) -> Response {
    let (mut head, body) = request.into_parts();
    shared.asked.lock().unwrap().push(head.uri.path().to_owned());
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
