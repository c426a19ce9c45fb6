//! Clients that repeat each request with the same idempotency key until it is accepted.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use reqwest::{
    Client, RequestBuilder, StatusCode,
    header::{self, HeaderMap},
};
use serde_json::{Value, json};

use crate::server::PATIENCE;

/// Clients of one tenant, and the generations that they have.
pub struct Load {
    pub client: Client,
    door: String,
    /// The ids of all generations that were answered with 202, by the idempotency key of the request.
    acked: Mutex<BTreeMap<String, String>>,
    /// The number of keys that were answered with two different generations.
    pub twice: AtomicUsize,
    /// The number of requests that were refused with 429 or 503.
    pub refused: AtomicUsize,
    /// The number of requests without an answer.
    pub broken: AtomicUsize,
}

impl Load {
    pub fn through(door: String) -> Load {
        Load::with_headers(door, HeaderMap::new())
    }

    /// Clients that use the key of a tenant.
    pub fn of_tenant(door: String, key: &str) -> Load {
        let value = format!("Bearer {key}").parse().unwrap();
        Load::with_headers(door, HeaderMap::from_iter([(header::AUTHORIZATION, value)]))
    }

    fn with_headers(door: String, headers: HeaderMap) -> Load {
        // Each request opens a connection, so that the proxy chooses a backend for each request.
        let client = Client::builder().timeout(PATIENCE).pool_max_idle_per_host(0).default_headers(headers);
        let client = client.build().unwrap();
        let acked = Mutex::new(BTreeMap::new());
        let zero = || AtomicUsize::new(0);
        Load { client, door, acked, twice: zero(), refused: zero(), broken: zero() }
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.door)
    }

    pub fn ids(&self) -> Vec<String> {
        self.acked.lock().unwrap().values().cloned().collect()
    }

    /// Records a generation that was answered with 202.
    pub fn note(&self, key: &str, id: &str) {
        let before = self.acked.lock().unwrap().insert(key.to_owned(), id.to_owned());
        if before.is_some_and(|before| before != id) {
            self.twice.fetch_add(1, Relaxed);
        }
    }

    /// Sends a request until it is accepted; returns the id of the generation. Panics if the request is invalid.
    pub async fn submit(&self, key: &str, body: &Value) -> String {
        match self.offer(key, body).await {
            Ok(id) => id,
            Err(refusal) => panic!("{key}: {refusal}"),
        }
    }

    /// Sends a request until it is accepted or refused with 4xx; returns the id of the generation.
    ///
    /// # Errors
    /// The text of the refusal.
    pub async fn offer(&self, key: &str, body: &Value) -> Result<String, String> {
        let post = || self.client.post(self.url("/v1/images")).header("Idempotency-Key", key).json(body);
        let (status, text) = self.until_answered(post).await;
        if status.is_client_error() {
            return Err(text);
        }
        assert!(status == StatusCode::ACCEPTED || status == StatusCode::OK, "{key}: {status} {text}");
        let generation: Value = serde_json::from_str(&text).unwrap();
        let id = generation["id"].as_str().unwrap().to_owned();
        self.note(key, &id);
        Ok(id)
    }

    pub async fn submit_all(&self, prefix: &str, bodies: &[Value]) -> Vec<String> {
        let mut ids = Vec::new();
        // Eight requests at a time.
        for (group, few) in bodies.chunks(8).enumerate() {
            let submits = few
                .iter()
                .enumerate()
                .map(|(i, body)| async move { self.submit(&format!("{prefix}-{}", 8 * group + i), body).await });
            ids.extend(futures::future::join_all(submits).await);
        }
        ids
    }

    pub async fn cancel(&self, id: &str) -> (StatusCode, Value) {
        let (status, text) =
            self.until_answered(|| self.client.post(self.url(&format!("/v1/images/{id}/cancel")))).await;
        assert!(status.is_success(), "canceling {id}: {status} {text}");
        (status, serde_json::from_str(&text).unwrap())
    }

    /// The current state of the generation; `None` if it does not exist.
    pub async fn look(&self, id: &str) -> Option<Value> {
        let (status, text) = self.until_answered(|| self.client.get(self.url(&format!("/v1/images/{id}")))).await;
        if status == StatusCode::NOT_FOUND {
            return None;
        }
        assert_eq!(status, StatusCode::OK, "{id}: {text}");
        Some(serde_json::from_str(&text).unwrap())
    }

    /// Waits until the generation has ended; `None` if it does not exist or does not end.
    pub async fn ended(&self, id: &str) -> Option<Value> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let url = self.url(&format!("/v1/images/{id}"));
            let (status, text) = self.until_answered(|| self.client.get(&url).header("Prefer", "wait=5")).await;
            if status == StatusCode::NOT_FOUND {
                return None;
            }
            assert!(status.is_success(), "{id}: {status} {text}");
            let generation: Value = serde_json::from_str(&text).unwrap();
            if !is_active(&generation) {
                return Some(generation);
            }
        }
        None
    }

    /// All pages of the list of generations.
    pub async fn list(&self, query: &str) -> Vec<Value> {
        let mut found = Vec::new();
        let mut after = String::new();
        loop {
            let url = self.url(&format!("/v1/images?limit=100{query}{after}"));
            let (status, text) = self.until_answered(|| self.client.get(&url)).await;
            assert_eq!(status, StatusCode::OK, "{text}");
            let page: Value = serde_json::from_str(&text).unwrap();
            found.extend(page["data"].as_array().unwrap().iter().cloned());
            if page["has_more"] != true {
                return found;
            }
            after = format!("&after={}", page["last_id"].as_str().unwrap());
        }
    }

    /// Repeats a request until there is an answer other than 429, 503 or a conflict with a running request.
    pub async fn until_answered(&self, request: impl Fn() -> RequestBuilder) -> (StatusCode, String) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let outcome = async {
                let response = request().send().await?;
                let (status, headers) = (response.status(), response.headers().clone());
                Ok::<_, reqwest::Error>((status, headers, response.text().await?))
            };
            match outcome.await {
                Ok((StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE, headers, text)) => {
                    assert!(headers.contains_key("retry-after"), "a refusal without Retry-After: {text}");
                    self.refused.fetch_add(1, Relaxed);
                }
                // The first request with this key is still being accepted.
                Ok((StatusCode::CONFLICT, _, text)) if text.contains("idempotency_in_progress") => {}
                Ok((status, _, text)) => {
                    assert!(status.as_u16() < 500 || text.contains("\"code\""), "an error without a problem: {text}");
                    return (status, text);
                }
                Err(_) => {
                    self.broken.fetch_add(1, Relaxed);
                }
            }
            assert!(Instant::now() < deadline, "no answer");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

pub fn is_active(generation: &Value) -> bool {
    ["queued", "running"].contains(&generation["status"].as_str().unwrap())
}

/// A request for one small picture.
pub fn request(seed: u64, steps: u32) -> Value {
    json!({
        "prompt": format!("a red fox, {}", crate::site::SECRET), "seed": seed, "steps": steps, "width": 64, "height": 64,
        "guidance_scale": 1,
    })
}
