//! Requests to a server whose answers are compared with the contract, and a receiver of webhooks.

#![allow(dead_code, reason = "each test target uses its part")]

use std::{fs, path::Path};

use reqwest::{Method, RequestBuilder, StatusCode, header::HeaderMap};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};

use crate::{
    conforms::assert_conforms,
    server::{Launch, Server},
};

/// An answer, after it was compared with the contract.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name}: {self:?}")).to_str().unwrap()
    }
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = String::from_utf8_lossy(&self.body);
        write!(f, "{} {:?} {}", self.status, self.headers, text.chars().take(2000).collect::<String>())
    }
}

/// Sends a request that `more` completes.
pub async fn ask(
    server: &Server,
    method: Method,
    path: &str,
    more: impl Fn(RequestBuilder) -> RequestBuilder,
) -> Answer {
    let response = more(server.client.request(method.clone(), server.url(path))).send().await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    let body = response.bytes().await.unwrap().to_vec();
    if status != StatusCode::PARTIAL_CONTENT {
        assert_conforms(method.as_str(), path, status.as_u16(), &body);
    }
    Answer { status, headers, body }
}

pub async fn get(server: &Server, path: &str) -> Answer {
    ask(server, Method::GET, path, |request| request).await
}

/// Posts a request to the root of its kind, such as `/v1/audio`, and waits for the end of its generation.
pub async fn made(server: &Server, root: &str, body: &Value) -> Value {
    let answer = ask(server, Method::POST, root, |request| request.header("Prefer", "wait=100").json(body)).await;
    let generation = answer.json();
    assert_eq!((answer.status, &generation["status"]), (StatusCode::OK, &json!("succeeded")), "{generation:#}");
    generation
}

/// Whether the server with this folder has stored a part of the log of a run.
pub fn is_log_stored(data: &Path) -> bool {
    fn has_file(folder: &Path) -> bool {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).any(|path| if path.is_dir() { has_file(&path) } else { is_whole(&path) })
    }
    /// The name of an unfinished upload ends in `#` and a number.
    fn is_whole(path: &Path) -> bool {
        !path.to_string_lossy().contains('#')
    }
    has_file(&data.join("blobs/run"))
}

/// A JSON object with the members of both; members of `more` take precedence.
pub fn with(request: &Value, more: &Value) -> Value {
    let mut all = request.clone();
    for (name, value) in more.as_object().unwrap() {
        all[name] = value.clone();
    }
    all
}

/// The settings of a server that sends webhooks to this machine, the URL of a receiver, and the first message that the
/// receiver gets.
pub async fn receiver(launch: Launch) -> (Launch, String, JoinHandle<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let launch = launch
        .set("LATENTD_WEBHOOKS__SECRET", "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")
        .set("LATENTD_WEBHOOKS__ALLOW_HTTP", true)
        .set("LATENTD_WEBHOOKS__ALLOW_HOSTS", "127.0.0.1")
        .set("LATENTD_WEBHOOKS__PORTS", port);
    let received = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut read = Vec::new();
        loop {
            let mut buffer = vec![0; 4096];
            let count = stream.read(&mut buffer).await.unwrap();
            read.extend(&buffer[..count]);
            let text = String::from_utf8_lossy(&read).into_owned();
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head.to_ascii_lowercase();
            let length =
                length.lines().find_map(|line| line.strip_prefix("content-length:")).unwrap().trim().to_owned();
            if body.len() >= length.parse().unwrap() {
                stream.write_all(b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n").await.unwrap();
                return serde_json::from_str(body).unwrap();
            }
        }
    });
    (launch, format!("http://127.0.0.1:{port}/hook"), received)
}
