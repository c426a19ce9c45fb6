//! What a refused request costs: memory that is at most a small multiple of its body, a bounded number of allocations, and an
//! answer of bounded length, whatever the body is made of.
//!
//! A program of its own without the test harness, since nothing may run beside it. It stands between the program and the C
//! library's allocator, of which all memory comes.
#![allow(unsafe_code, reason = "functions of the C library are replaced by ones that count")]
#![allow(dead_code, unused_imports, reason = "the shared parts have more than this needs")]

#[path = "contract/conforms.rs"]
mod conforms;
#[path = "http_routes/desk.rs"]
mod desk;
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
        let desk = desk::Desk::open(&[]).await;
        // What is made once, such as the catalogue of LoRAs, is nobody's.
        let first = kinds::first();
        assert_eq!(desk.ask(desk::post(&first, &[])).await.status, 202);
        for kind in kinds::all() {
            for mib in [1, 2, 4] {
                refused(&desk, &kind, mib << 20).await;
            }
        }
        for (what, body) in kinds::pictures() {
            measured(&desk, &what, "application/json", body).await;
        }
    });
    println!("allocations: every refusal is within its bounds");
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
async fn refused(desk: &desk::Desk, kind: &kinds::Kind, length: usize) {
    let body = (kind.body)(length);
    assert!(body.len() <= length && body.len() > length / 2, "{} has {} bytes, not {length}", kind.name, body.len());
    measured(desk, kind.name, kind.content_type, body).await;
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
async fn measured(desk: &desk::Desk, what: &str, content_type: &str, body: Vec<u8>) {
    use axum::{body::Body, http::Request};

    /// Bytes at a time for each byte of the body: itself, what was parsed of it, and what is on the way from one to the other.
    const FOR_EACH_BYTE: usize = 5;
    /// Bytes at a time whatever the body: the most values that a request may have, errors, the answer.
    const ALWAYS: usize = 16 << 20;
    /// A parsed value costs a few of them; text costs none.
    const MOST_ALLOCATIONS: usize = 200_000;
    const LONGEST_ANSWER: usize = 200_000;

    let length = body.len();
    let request = Request::post("/v1/images").header("content-type", content_type).header("content-length", length);
    let request = request.body(Body::from(body)).unwrap();
    let count = counting::Count::begin();
    let answer = desk::read(desk.send(request).await).await;
    let (peak, allocations) = count.end();
    println!("{what}: {length} bytes -> {}, {peak} bytes at a time, {allocations} allocations", answer.status);
    assert!((400..500).contains(&answer.status), "{what}: {} {}", answer.status, answer.text());
    assert!(answer.body.len() <= LONGEST_ANSWER, "{what}: an answer of {} bytes", answer.body.len());
    let most = FOR_EACH_BYTE * length + ALWAYS;
    assert!(peak <= most, "{what}: {peak} bytes at a time for a body of {length}, at most {most} are allowed");
    assert!(allocations <= MOST_ALLOCATIONS, "{what}: {allocations} allocations for a body of {length}");
}
