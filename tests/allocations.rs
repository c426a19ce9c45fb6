//! Bounds on the cost of refused requests: peak memory (a small multiple of the body), the number of allocations, and
//! the length of the answer.
//!
//! This test does not use the test harness, because no other test may run at the same time. It replaces the allocator
//! of the C library with one that counts, so that it counts all memory of the process.
#![allow(unsafe_code, reason = "functions of the C library are replaced by ones that count")]
#![allow(dead_code, unused_imports, reason = "this test uses only a part of the shared modules")]

#[path = "http_routes/api.rs"]
mod api;
#[path = "contract/conforms.rs"]
mod conforms;
#[path = "http_routes/silence.rs"]
mod silence;

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[path = "allocations/counting.rs"]
mod counting;
#[path = "allocations/kinds.rs"]
mod kinds;

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn main() {
    println!("allocations: only glibc's allocator can be counted");
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let api = api::TestApi::open(&[]).await;
        // Memory that is allocated once, such as the catalogue of LoRAs, is not counted for any request.
        let valid = kinds::valid_request();
        assert_eq!(api.ask(api::post(&valid, &[])).await.status, 202);
        for kind in kinds::all() {
            for mib in [1, 2, 4] {
                refused(&api, &kind, mib << 20).await;
            }
        }
        for (what, body) in kinds::pictures() {
            measured(&api, &what, "application/json", body).await;
        }
    });
    println!("allocations: every refusal is within its bounds");
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
async fn refused(api: &api::TestApi, kind: &kinds::Kind, length: usize) {
    let body = (kind.body)(length);
    assert!(body.len() <= length && body.len() > length / 2, "{} has {} bytes, not {length}", kind.name, body.len());
    measured(api, kind.name, kind.content_type, body).await;
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
async fn measured(api: &api::TestApi, what: &str, content_type: &str, body: Vec<u8>) {
    use axum::{body::Body, http::Request};

    /// Peak bytes for each byte of the body: the body, the parsed values, and buffers of the parser.
    const FOR_EACH_BYTE: usize = 5;
    /// Peak bytes that do not depend on the length of the body: the maximum number of values, errors, the answer.
    const ALWAYS: usize = 16 << 20;
    /// Each parsed value costs a few allocations; the length of a text adds none.
    const MOST_ALLOCATIONS: usize = 200_000;
    const LONGEST_ANSWER: usize = 200_000;

    let length = body.len();
    let request = Request::post("/v1/images").header("content-type", content_type).header("content-length", length);
    let request = request.body(Body::from(body)).unwrap();
    let count = counting::Count::begin();
    let answer = api::read(api.send(request).await).await;
    let (peak, allocations) = count.end();
    println!("{what}: {length} bytes -> {}, {peak} bytes at a time, {allocations} allocations", answer.status);
    assert!((400..500).contains(&answer.status), "{what}: {} {}", answer.status, answer.text());
    assert!(answer.body.len() <= LONGEST_ANSWER, "{what}: an answer of {} bytes", answer.body.len());
    let most = FOR_EACH_BYTE * length + ALWAYS;
    assert!(peak <= most, "{what}: {peak} bytes at a time for a body of {length}, at most {most} are allowed");
    assert!(allocations <= MOST_ALLOCATIONS, "{what}: {allocations} allocations for a body of {length}");
}
