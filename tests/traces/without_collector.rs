//! A collector that is away, hangs or refuses changes nothing for requests.

use serde_json::json;
use tokio::net::TcpListener;

use crate::{
    collector::{Collector, one},
    harness::{Server, request, with},
};

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

async fn draw(server: &Server) {
    let posted =
        server.client.post(server.url("/v1/images")).header("Prefer", "wait=100").header("traceparent", PARENT);
    let answer = posted
        .json(&with(request("a red fox", 1), &json!({"steps": 2, "width": 64, "height": 64})))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn without_a_collector_requests_succeed_and_lost_spans_are_counted() {
    let data = tempfile::tempdir().unwrap();
    // Nothing listens on this port after the listener is dropped.
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let endpoint = format!("http://{address}");
    let server = Server::start(data.path(), &[("LATENTD_TELEMETRY__OTLP_ENDPOINT", &endpoint)]).await;
    draw(&server).await;
    server
        .until("lost spans are counted", async |server: &Server| {
            server.metric("latentd_trace_spans_total", "failed").await > 0.0
        })
        .await;
    draw(&server).await;
    assert!(server.stopped().await.success());
}

#[tokio::test]
async fn a_collector_that_hangs_delays_neither_requests_nor_the_end() {
    let data = tempfile::tempdir().unwrap();
    // Connections are accepted by the system and never answered.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let settings = [("LATENTD_TELEMETRY__OTLP_ENDPOINT", &*endpoint), ("LATENTD_SHUTDOWN_TIMEOUT_S", "2")];
    let server = Server::start(data.path(), &settings).await;
    draw(&server).await;
    draw(&server).await;
    assert!(server.stopped().await.success());
}

#[tokio::test]
async fn spans_that_a_busy_collector_refuses_are_sent_again() {
    let (data, collector) = (tempfile::tempdir().unwrap(), Collector::start().await);
    collector.refuse(1);
    let server = Server::start(data.path(), &[("LATENTD_TELEMETRY__OTLP_ENDPOINT", &*collector.endpoint())]).await;
    draw(&server).await;
    let spans = collector.until("0af7651916cd43dd8448eb211c80319c", &["POST /v1/images", "attempt"]).await;
    one(&spans, "POST /v1/images");
    assert_eq!(server.metric("latentd_trace_spans_total", "failed").await, 0.0);
    assert!(server.stopped().await.success());
}
