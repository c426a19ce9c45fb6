//! Tests of the HTTP edge: invalid bodies, endless headers, and clients that lie about lengths or stall.
//!
//! A small router uses the extractor, layers and listener of `latentd::http`, so no ledger or engine is needed.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Body,
    http::{Request, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use latentd::{
    config::{Config, Http, Sources},
    generation::Fields,
    http,
    metrics::Metrics,
    telemetry::Tracer,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// A timeout for hanging requests, longer than any request takes.
const HANG: Duration = Duration::from_secs(20);

fn settings(flags: &[(&str, &str)]) -> Http {
    let flags = flags.iter().map(|(key, value)| (format!("http.{key}"), (*value).to_owned())).collect();
    Config::load(&Sources { flags, ..Sources::default() }).unwrap().http
}

fn router(http: &Http, metrics: &Metrics) -> Router {
    let router = Router::new()
        .route("/fields", post(async |mut fields: Fields| Json(json!({"prompt": fields.take("prompt")}))))
        .route(
            "/panic",
            get(async || {
                if true {
                    panic!("as tested")
                }
            }),
        )
        .route("/large", get(async || Json(json!({"text": "x".repeat(10_000)}))))
        .route("/picture", get(async || ([(header::CONTENT_TYPE, "image/png")], vec![0; 10_000])))
        .with_state(http::Bodies::new(http, tokio_util::task::TaskTracker::new()));
    http::finish(router, metrics.clone(), Tracer::off())
}

/// Sends a request to the router without a socket; returns the status, headers and body of the answer.
async fn ask(request: Request<Body>) -> (u16, header::HeaderMap, Vec<u8>) {
    let response = router(&settings(&[]), &Metrics::new()).oneshot(request).await.unwrap().into_response();
    let (head, body) = response.into_parts();
    let body = axum::body::to_bytes(body, 1 << 24).await.unwrap();
    (head.status.as_u16(), head.headers, body.to_vec())
}

#[tokio::test]
async fn invalid_bodies_are_refused_with_the_reason() {
    let json = "application/json";
    let form = "application/x-www-form-urlencoded";
    let huge = format!("{{\"prompt\": \"{}\"}}", "x".repeat(34_000_000));
    let deep = format!("{{\"a\": {}", "[".repeat(1000));
    let cases: [(&str, &[u8], u16, &str); 20] = [
        (json, b"{\"prompt\": ", 400, "malformed_json"),
        (json, b"", 400, "malformed_json"),
        (json, b"{\"prompt\": \"\xff\"}", 400, "malformed_json"),
        (json, b"{\"seed\": NaN}", 400, "malformed_json"),
        (json, b"{\"seed\": 1e999}", 400, "malformed_json"),
        (json, b"{\"seed\": 1, \"seed\": 2}", 400, "malformed_json"),
        (json, deep.as_bytes(), 400, "malformed_json"),
        (json, b"[]", 422, "validation_failed"),
        (json, b"\"a red fox\"", 422, "validation_failed"),
        (json, b"null", 422, "validation_failed"),
        (json, huge.as_bytes(), 413, "body_too_large"),
        (form, b"prompt=%FF", 400, "malformed_form"),
        (form, b"{\"prompt\": \"a red fox\"}", 415, "unsupported_media_type"),
        ("text/plain", b"a red fox", 415, "unsupported_media_type"),
        ("application/x-www-form-urlencoded; charset=utf-16", b"prompt=a", 415, "unsupported_media_type"),
        ("application/json; charset=latin1", b"{\"prompt\": \"caf\xe9\"}", 400, "malformed_json"),
        ("multipart/form-data", b"", 415, "unsupported_media_type"),
        ("multipart/form-data; boundary=x", b"", 400, "malformed_form"),
        ("multipart/form-data; boundary=x", b"--x\r\n\r\na\r\n--x--", 400, "malformed_form"),
        ("", b"{}", 415, "unsupported_media_type"),
    ];
    for (kind, body, status, code) in cases {
        let request = Request::post("/fields").header("content-type", kind).body(Body::from(body.to_vec())).unwrap();
        let (answered, headers, document) = ask(request).await;
        let start = String::from_utf8_lossy(&body[..body.len().min(40)]);
        let document: Value = serde_json::from_slice(&document).unwrap();
        assert_eq!((answered, document["code"].as_str()), (status, Some(code)), "{kind} {start}: {document:#}");
        assert_eq!(headers["content-type"], "application/problem+json");
        assert_eq!(document["status"], status);
        assert_eq!(document["instance"], "/fields");
        assert_eq!(document["type"], format!("https://latentd.dev/problems/{code}"));
        assert_eq!(document["request_id"], headers["x-request-id"].to_str().unwrap());
    }
}

#[tokio::test]
async fn valid_bodies_are_read() {
    let cases = [
        ("application/json", "{\"prompt\": \"a red fox\"}"),
        ("application/json; charset=UTF-8", "{\"prompt\": \"a red fox\"}"),
        ("application/json; charset=ISO-8859-1", "{\"prompt\": \"a red fox\"}"),
        ("application/x-www-form-urlencoded", "prompt=a red fox"),
        ("application/x-www-form-urlencoded", "prompt=a+red%20fox"),
    ];
    for (kind, body) in cases {
        let (status, headers, answer) =
            ask(Request::post("/fields").header("content-type", kind).body(body.into()).unwrap()).await;
        assert_eq!((status, answer.as_slice()), (200, &b"{\"prompt\":\"a red fox\"}"[..]), "{kind}");
        assert_eq!(headers["latentd-version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(headers["x-content-type-options"], "nosniff");
    }
}

#[tokio::test]
async fn a_valid_request_id_is_kept() {
    let sent = async |id: &[u8]| {
        let (_, headers, _) = ask(Request::get("/large").header("x-request-id", id).body(Body::empty()).unwrap()).await;
        headers["x-request-id"].as_bytes().to_vec()
    };
    assert_eq!(sent(b"job-7.a_B").await, b"job-7.a_B");
    let long = "a".repeat(65);
    for id in [&b""[..], b"two words", b"\"quoted\"", b"caf\xe9", long.as_bytes()] {
        let made = sent(id).await;
        assert_ne!(made, id);
        assert_eq!(made.len(), 32);
    }
}

#[tokio::test]
async fn a_panic_is_answered_with_500_and_counted() {
    let metrics = Metrics::new();
    let router = router(&settings(&[]), &metrics);
    let response = router.oneshot(Request::get("/panic").body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), 500);
    let document = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    let document: Value = serde_json::from_slice(&document).unwrap();
    assert_eq!(document["code"], "internal");
    assert!(!document.to_string().contains("as tested"), "the answer contains the message of the panic: {document}");
    let counted = "latentd_http_requests_total{method=\"GET\",route=\"/panic\",status=\"500\"} 1";
    assert!(metrics.render().contains(counted), "{}", metrics.render());
}

#[tokio::test]
async fn texts_are_compressed_and_pictures_are_not() {
    let encoding = async |path: &str| {
        let request = Request::get(path).header("accept-encoding", "gzip").body(Body::empty()).unwrap();
        ask(request).await.1.get("content-encoding").map(|value| value.to_str().unwrap().to_owned())
    };
    assert_eq!(encoding("/large").await.as_deref(), Some("gzip"));
    assert_eq!(encoding("/picture").await, None);
}

/// A listener of `latentd::http` that serves a small router.
struct TestListener {
    address: SocketAddr,
    shutdown: CancellationToken,
    served: JoinHandle<std::io::Result<()>>,
}

impl TestListener {
    async fn open(flags: &[(&str, &str)], router: impl FnOnce(&Http) -> Router) -> TestListener {
        let http = settings(flags);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (shutdown, router) = (CancellationToken::new(), router(&http));
        let stop = shutdown.clone();
        let served =
            tokio::spawn(async move { http::serve(listener, router, &http, stop, Duration::from_secs(1)).await });
        TestListener { address, shutdown, served }
    }

    async fn with_default_router(flags: &[(&str, &str)]) -> TestListener {
        TestListener::open(flags, |http| router(http, &Metrics::new())).await
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Asserts that the server still answers.
    async fn assert_serves(&self) {
        let answer =
            exchange(&mut self.connect().await, b"GET /large HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    async fn close(self) {
        self.shutdown.cancel();
        within(self.served).await.unwrap().unwrap();
    }
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(HANG, what).await.expect("the server hangs")
}

/// Sends a request and reads until the server closes the connection.
async fn exchange(stream: &mut TcpStream, request: &[u8]) -> String {
    stream.write_all(request).await.unwrap();
    rest(stream).await
}

async fn rest(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    // A reset after the answer also ends the connection.
    let _ = within(stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn incomplete_headers_time_out() {
    let door = TestListener::with_default_router(&[("header_timeout_s", "0.3")]).await;
    for start in [&b""[..], b"P", b"GET /large HT", b"GET /large HTTP/1.1\r\nhost: x\r\nx-a: ", b"PRI * HTTP/2.0\r\n"] {
        let answer = exchange(&mut door.connect().await, start).await;
        assert_eq!(answer, "", "{}", String::from_utf8_lossy(start));
    }
    // The timeout also applies after the first answer of a connection.
    let answer = exchange(&mut door.connect().await, b"GET /picture HTTP/1.1\r\nhost: x\r\n\r\nGET /pic").await;
    assert_eq!(answer.matches("HTTP/1.1").count(), 1);
    door.assert_serves().await;
    door.close().await;
}

#[tokio::test]
async fn too_large_or_malformed_headers_are_refused() {
    let door = TestListener::with_default_router(&[("max_header_bytes", "8192")]).await;
    let many: String = (0..101).map(|n| format!("x-{n}: 1\r\n")).collect();
    let cases = [
        (format!("GET /large HTTP/1.1\r\nhost: x\r\nx-a: {}\r\n\r\n", "a".repeat(20_000)), "431"),
        (format!("GET /large HTTP/1.1\r\nhost: x\r\n{many}\r\n"), "431"),
        ("GET /large HTTP/1.1\r\nhost: x\r\nx a: 1\r\n\r\n".to_owned(), "400"),
        ("GET /la rge HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(), "400"),
        ("\u{16}\u{3}\u{1} no TLS here\r\n\r\n".to_owned(), "400"),
    ];
    for (request, status) in cases {
        let answer = exchange(&mut door.connect().await, request.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer} to {}", &request[..60.min(request.len())]);
    }
    door.assert_serves().await;
    door.close().await;
}

/// The answer does not wait for the body, and a client that sends its body before it reads gets the answer too.
#[tokio::test]
async fn a_body_that_is_announced_as_too_large_is_refused_at_once() {
    let door = TestListener::with_default_router(&[("max_body_bytes", "1000"), ("body_timeout_s", "600")]).await;
    let head = "POST /fields HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
    let mut socket = door.connect().await;
    socket.write_all(format!("{head}content-length: 5000000\r\n\r\nshort").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !String::from_utf8_lossy(&answer).contains("body_too_large") {
        assert!(within(socket.read_buf(&mut answer)).await.unwrap() > 0, "{}", String::from_utf8_lossy(&answer));
    }
    assert!(answer.starts_with(b"HTTP/1.1 413"));
    // The rest of the body arrives after the answer, and the connection goes on.
    socket.write_all(&vec![b'x'; 5_000_000 - 5]).await.unwrap();
    socket.write_all(format!("{head}content-length: 2\r\nconnection: close\r\n\r\n{{}}").as_bytes()).await.unwrap();
    let mut next = Vec::new();
    within(socket.read_to_end(&mut next)).await.unwrap();
    assert!(String::from_utf8_lossy(&next).contains("HTTP/1.1 200"), "{}", String::from_utf8_lossy(&next));
    door.assert_serves().await;
    door.close().await;
}

#[tokio::test]
async fn the_bound_on_bodies_holds_whatever_the_headers_say() {
    let door = TestListener::with_default_router(&[("max_body_bytes", "1000")]).await;
    let head = "POST /fields HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n";
    let chunk = format!("{:x}\r\n{}\r\n", 600, "x".repeat(600));
    let cases = [
        (format!("{head}content-length: 1000\r\n\r\n{{}}{}", " ".repeat(998)), "200"),
        (format!("{head}content-length: 1001\r\n\r\n{}", "x".repeat(1001)), "413"),
        (format!("{head}content-length: 5000000\r\n\r\n{}", "x".repeat(5_000_000)), "413"),
        (format!("{head}content-length: 5000000\r\nexpect: 100-continue\r\n\r\n"), "413"),
        (format!("{head}transfer-encoding: chunked\r\n\r\n{chunk}{chunk}0\r\n\r\n"), "413"),
        (format!("{head}transfer-encoding: chunked\r\n\r\nnonsense\r\n"), "400"),
        (format!("{head}content-length: 2\r\ncontent-length: 3\r\n\r\n{{}}"), "400"),
        (format!("{head}content-length: 2\r\n\r\n{{}}and more"), "200"),
    ];
    for (request, status) in cases {
        let answer = exchange(&mut door.connect().await, request.as_bytes()).await;
        let shown = &request[head.len()..(head.len() + 60).min(request.len())];
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer} to {shown}");
    }
    door.assert_serves().await;
    door.close().await;
}

/// A router whose handler keeps the body of its request. The handler adds a permit to the first semaphore when it
/// begins, and waits for a permit of the second.
fn keeping(http: &Http) -> (Router, Arc<Semaphore>, Arc<Semaphore>) {
    let (begun, gate) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let ends = (begun.clone(), gate.clone());
    let keep = async move |fields: Fields| {
        let (begun, gate) = ends;
        begun.add_permits(1);
        gate.acquire().await.unwrap().forget();
        drop(fields);
        "kept"
    };
    let router = Router::new()
        .route("/keep", post(keep))
        .with_state(http::Bodies::new(http, tokio_util::task::TaskTracker::new()));
    (http::finish(router, Metrics::new(), Tracer::off()), begun, gate)
}

/// Sends a body of about this many bytes with a `Content-Length`.
fn keep(router: &Router, bytes: usize) -> JoinHandle<Result<Response, Infallible>> {
    let body = format!("{{\"prompt\": \"{}\"}}", "x".repeat(bytes));
    let request =
        Request::post("/keep").header("content-type", "application/json").header("content-length", body.len());
    tokio::spawn(router.clone().oneshot(request.body(Body::from(body)).unwrap()))
}

#[tokio::test]
async fn large_bodies_wait_for_each_other_and_small_ones_do_not() {
    let http = settings(&[("max_body_bytes", "1000000"), ("max_bodies_bytes", "1500000")]);
    let (router, begun, gate) = keeping(&http);
    let first = keep(&router, 900_000);
    within(begun.acquire()).await.unwrap().forget();
    let (second, small) = (keep(&router, 900_000), keep(&router, 1_000));
    within(begun.acquire()).await.unwrap().forget();
    // The small request has begun; the second large one waits for the room of the first.
    gate.add_permits(2);
    assert_eq!(within(small).await.unwrap().unwrap().status(), 200);
    assert_eq!(within(first).await.unwrap().unwrap().status(), 200);
    within(begun.acquire()).await.unwrap().forget();
    gate.add_permits(1);
    assert_eq!(within(second).await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn a_large_body_that_waits_too_long_for_room_is_refused() {
    let http = settings(&[("max_body_bytes", "1000000"), ("max_bodies_bytes", "1000000"), ("body_timeout_s", "0.3")]);
    let (router, begun, gate) = keeping(&http);
    let first = keep(&router, 900_000);
    within(begun.acquire()).await.unwrap().forget();
    let refused = within(keep(&router, 900_000)).await.unwrap().unwrap();
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("retry-after"));
    let document = axum::body::to_bytes(refused.into_body(), 1 << 20).await.unwrap();
    let document: Value = serde_json::from_slice(&document).unwrap();
    assert_eq!(document["code"], "bodies_full");
    assert!(document["detail"].as_str().unwrap().contains("1000000 bytes"), "{document}");
    gate.add_permits(2);
    assert_eq!(within(first).await.unwrap().unwrap().status(), 200);
    assert_eq!(within(keep(&router, 900_000)).await.unwrap().unwrap().status(), 200, "there is room again");
}

/// If a request has two lengths, a proxy and the server may disagree about where the next request begins (request
/// smuggling). RFC 9112 says that the chunks decide the length, and that the server closes the connection after its
/// answer. So the server never reads later bytes as a request.
#[tokio::test]
async fn a_body_with_two_lengths_ends_its_connection() {
    let door = TestListener::with_default_router(&[]).await;
    let body = "{\"prompt\": \"a red fox\"}";
    let chunks = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let smuggled = "GET /picture HTTP/1.1\r\nhost: x\r\n\r\n";
    for lengths in [
        "content-length: 4\r\ntransfer-encoding: chunked\r\n".to_owned(),
        "transfer-encoding: chunked\r\ncontent-length: 4\r\n".to_owned(),
        format!("content-length: {}\r\ntransfer-encoding: chunked\r\n", chunks.len() + smuggled.len()),
    ] {
        let head = format!("POST /fields HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{lengths}\r\n");
        let answer = exchange(&mut door.connect().await, format!("{head}{chunks}{smuggled}").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("a red fox"), "{answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{lengths}: {answer}");
        assert!(answer.to_ascii_lowercase().contains("connection: close"), "{lengths}: {answer}");
    }
    for lengths in ["transfer-encoding: chunked, identity\r\n", "transfer-encoding: gzip\r\ncontent-length: 4\r\n"] {
        let head = format!("POST /fields HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{lengths}\r\n");
        let answer = exchange(&mut door.connect().await, format!("{head}{chunks}{smuggled}").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{lengths}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{lengths}: {answer}");
    }
    door.assert_serves().await;
    door.close().await;
}

#[tokio::test]
async fn incomplete_bodies_time_out() {
    let door = TestListener::with_default_router(&[("body_timeout_s", "0.3")]).await;
    let head =
        "POST /fields HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{\"prompt\"";
    let answer = exchange(&mut door.connect().await, head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("request_timeout"), "{answer}");

    // A client that disconnects in the middle of its body does not affect the server.
    let mut stream = door.connect().await;
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    rest(&mut stream).await;
    door.assert_serves().await;
    door.close().await;
}

#[tokio::test]
async fn connections_beyond_the_bound_wait() {
    let door = TestListener::with_default_router(&[("max_connections", "1")]).await;
    let mut first = door.connect().await;
    first.write_all(b"GET /picture HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut start = [0; 12];
    within(first.read_exact(&mut start)).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 200");

    let mut second = door.connect().await;
    second.write_all(b"GET /picture HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    // Another exchange on the first connection gives the server time to serve the second by mistake.
    let answer = exchange(&mut first, b"GET /large HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    let mut early = [0];
    let unserved = second.try_read(&mut early);
    assert!(answer.contains("HTTP/1.1 200"));
    assert!(unserved.is_err() || rest(&mut second).await.len() > 1, "the second connection was dropped: {unserved:?}");
    door.close().await;
}

#[tokio::test]
async fn the_connections_of_an_address_are_bounded() {
    let door = TestListener::with_default_router(&[("max_connections_per_address", "1")]).await;
    let mut first = door.connect().await;
    first.write_all(b"GET /picture HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut start = [0; 12];
    within(first.read_exact(&mut start)).await.unwrap();
    assert_eq!(rest(&mut door.connect().await).await, "", "the second is closed at once");
    let answer = exchange(&mut first, b"GET /large HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(answer.contains("HTTP/1.1 200"), "the first connection still works: {answer}");
    let served = async {
        while !exchange_or_end(&mut door.connect().await).await.starts_with("HTTP/1.1 200") {
            tokio::task::yield_now().await;
        }
    };
    within(served).await;
    door.close().await;
}

/// Like [`exchange`], for a connection that the server may close before the request is sent.
async fn exchange_or_end(stream: &mut TcpStream) -> String {
    let _ = stream.write_all(b"GET /picture HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    rest(stream).await
}

/// A minimal HTTP/2 client that writes frames itself and answers every ping.
struct Http2(TcpStream);

/// Types of HTTP/2 frames (RFC 9113, section 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;

impl Http2 {
    /// Opens a connection and sends these settings (identifier, value).
    async fn connect(door: &TestListener, settings: &[(u16, u32)]) -> Http2 {
        let mut client = Http2(door.connect().await);
        client.0.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        let pairs = settings.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat());
        client.send(SETTINGS, 0, 0, &pairs.collect::<Vec<u8>>()).await;
        client
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        // If the server has closed the connection, the next read shows it.
        let _ = self.0.write_all(&[&head, payload].concat()).await;
    }

    /// Sends a complete GET request.
    async fn get(&mut self, stream: u32, path: &str) {
        // HPACK: static table entries for GET and http; path and authority are literals.
        let text = |name: u8, value: &str| [&[name, value.len() as u8], value.as_bytes()].concat();
        let block = [&[0x82, 0x86][..], &text(4, path), &text(1, "x")].concat();
        self.send(HEADERS, 0x5, stream, &block).await;
    }

    /// The type, flags, stream and payload of the next frame that is not a ping; `None` if the server has closed.
    async fn next(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        loop {
            let mut head = [0; 9];
            within(self.0.read_exact(&mut head)).await.ok()?;
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            within(self.0.read_exact(&mut payload)).await.ok()?;
            match head[3] {
                PING if head[4] & 1 == 0 => self.send(PING, 1, 0, &payload).await,
                PING => {}
                kind => {
                    return Some((kind, head[4], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload));
                }
            }
        }
    }

    /// The types of all frames until the server closes the connection.
    async fn kinds_to_the_end(mut self) -> Vec<u8> {
        let mut kinds = Vec::new();
        while let Some((kind, ..)) = self.next().await {
            kinds.push(kind);
        }
        kinds
    }
}

#[tokio::test]
async fn http2_announces_the_bound_of_streams() {
    let door = TestListener::with_default_router(&[("max_streams", "7")]).await;
    let mut client = Http2::connect(&door, &[]).await;
    let (kind, _, _, settings) = client.next().await.unwrap();
    assert_eq!(kind, SETTINGS, "the first frame is SETTINGS");
    let streams = settings.chunks(6).find(|setting| setting[..2] == [0, 3]).map(|setting| &setting[2..]);
    assert_eq!(streams, Some(&7_u32.to_be_bytes()[..]));
    client.get(1, "/picture").await;
    let mut bytes = 0;
    loop {
        let (kind, flags, _, payload) = client.next().await.unwrap();
        bytes += if kind == DATA { payload.len() } else { 0 };
        if kind == DATA && flags & 1 == 1 {
            break;
        }
    }
    assert_eq!(bytes, 10_000);
    drop(client);
    door.close().await;
}

#[tokio::test]
async fn an_idle_http2_connection_ends_even_if_it_answers_pings() {
    let door = TestListener::with_default_router(&[("idle_timeout_s", "0.3")]).await;
    let mut client = Http2::connect(&door, &[]).await;
    client.get(1, "/picture").await;
    let kinds = client.kinds_to_the_end().await;
    assert!(kinds.contains(&DATA), "{kinds:?}");
    assert_eq!(kinds.last(), Some(&GOAWAY), "GOAWAY is not the last frame: {kinds:?}");
    door.assert_serves().await;
    door.close().await;
}

#[tokio::test]
async fn a_connection_whose_answers_are_not_read_ends() {
    let door = TestListener::with_default_router(&[("write_timeout_s", "0.3"), ("idle_timeout_s", "1000")]).await;
    // The client's flow control window is 0, so the server cannot send any data of its answers.
    let mut client = Http2::connect(&door, &[(4, 0)]).await;
    for stream in [1, 3, 5] {
        client.get(stream, "/picture").await;
    }
    let kinds = client.kinds_to_the_end().await;
    assert_eq!(kinds.iter().filter(|kind| **kind == HEADERS).count(), 3, "{kinds:?}");
    assert!(kinds.contains(&GOAWAY) && !kinds.contains(&DATA), "{kinds:?}");
    door.assert_serves().await;
    door.close().await;
}

#[tokio::test]
async fn a_connection_that_waits_for_an_answer_is_not_idle() {
    let (finish, finished) = tokio::sync::oneshot::channel::<()>();
    let finished = Arc::new(tokio::sync::Mutex::new(Some(finished)));
    let slow = async move || {
        finished.lock().await.take().expect("asked once").await.unwrap();
        "finished"
    };
    let flags = [("write_timeout_s", "0.2"), ("idle_timeout_s", "0.2"), ("header_timeout_s", "5")];
    let door = TestListener::open(&flags, |http| router(http, &Metrics::new()).route("/slow", get(slow))).await;
    let mut client = Http2::connect(&door, &[]).await;
    client.get(1, "/slow").await;
    // Another connection is idle for the same time and is closed.
    let mut idle = Http2::connect(&door, &[]).await;
    idle.get(1, "/picture").await;
    assert_eq!(idle.kinds_to_the_end().await.last(), Some(&GOAWAY));
    finish.send(()).unwrap();
    let mut answered = false;
    while let Some((kind, _, _, payload)) = client.next().await {
        answered |= kind == DATA && payload == b"finished";
    }
    assert!(answered);
    door.close().await;
}

#[tokio::test]
async fn a_stopping_server_finishes_running_requests() {
    let (began, is_begun) = tokio::sync::oneshot::channel();
    let (finish, finished) = tokio::sync::oneshot::channel::<()>();
    let ends = Arc::new(std::sync::Mutex::new(Some((began, finished))));
    let slow = async move || {
        let (began, finished) = ends.lock().unwrap().take().expect("asked once");
        began.send(()).unwrap();
        finished.await.unwrap();
        "finished"
    };
    let door = TestListener::open(&[], |_| {
        http::finish(Router::new().route("/slow", get(slow)), Metrics::new(), Tracer::off())
    })
    .await;
    let mut stream = door.connect().await;
    stream.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    within(is_begun).await.unwrap();
    let mut idle = door.connect().await;
    door.shutdown.cancel();
    assert_eq!(rest(&mut idle).await, "", "an idle connection is closed at once");
    finish.send(()).unwrap();
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("finished"), "{answer}");
    within(door.served).await.unwrap().unwrap();
    assert!(TcpStream::connect(door.address).await.is_err(), "the listener is still open");
}

#[tokio::test]
async fn a_stopping_server_does_not_wait_forever() {
    let door = TestListener::open(&[], |_| {
        let endless = async || Body::from_stream(futures::stream::pending::<Result<&str, std::io::Error>>());
        http::finish(Router::new().route("/endless", get(endless)), Metrics::new(), Tracer::off())
    })
    .await;
    let mut stream = door.connect().await;
    stream.write_all(b"GET /endless HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut start = [0; 12];
    within(stream.read_exact(&mut start)).await.unwrap();
    door.close().await;
}
