//! One trace across an API process and a worker process on PostgreSQL, and the batches that two traces share.

use std::path::Path;

use serde_json::{Value, json};

use crate::{
    collector::{Collector, Span, one},
    harness::{Launch, Server, request, with},
    one_process::assert_attempt,
    postgres::Cluster,
    receiver::Receiver,
};

const TRACES: [&str; 2] = ["11111111111111111111111111111111", "22222222222222222222222222222222"];
const PARENT: &str = "00f067aa0ba902b7";

fn launch(role: &str, data: &Path, database: &str, collector: &Collector, receiver: &Receiver) -> Launch {
    Launch::on(data)
        .set("LATENTD_ROLE", role)
        .set("LATENTD_DATABASE__URL", database)
        .set("LATENTD_TELEMETRY__OTLP_ENDPOINT", collector.endpoint())
        .set("LATENTD_TELEMETRY__SAMPLE_RATIO", 0)
        .set("LATENTD_WEBHOOKS__ALLOW_HTTP", true)
        .set("LATENTD_WEBHOOKS__ALLOW_HOSTS", "127.0.0.1")
        .set("LATENTD_WEBHOOKS__PORTS", receiver.address.port())
}

#[tokio::test]
async fn api_worker_and_webhook_are_in_the_trace_of_the_request_and_shared_batches_link_the_traces() {
    let Some(cluster) = Cluster::shared() else { return };
    let (data, database) = (tempfile::tempdir().unwrap(), cluster.create_database().await);
    let (collector, receiver) = (Collector::start().await, Receiver::start(&[]).await);
    let launch = |role| launch(role, data.path(), &database, &collector, &receiver);
    let api = Server::start_ready(&launch("api")).await;
    let endpoint = json!({"url": receiver.url(), "events": ["completed"]});
    let endpoint = api.client.post(api.url("/v1/webhook_endpoints")).json(&endpoint).send().await.unwrap();
    let endpoint: Value = endpoint.json().await.unwrap();

    // Both generations wait before the worker starts, so that it computes them together.
    let mut ids = Vec::new();
    for (trace, seed) in TRACES.iter().zip(1..) {
        let body = with(
            request(&format!("fox {seed}"), seed),
            &json!({"steps": 4, "width": 64, "height": 64, "webhook": {"endpoint": endpoint["id"]}}),
        );
        let posted = api.client.post(api.url("/v1/images")).json(&body);
        let posted = posted.header("traceparent", format!("00-{trace}-{PARENT}-01")).header("tracestate", "a=b");
        let accepted: Value = posted.send().await.unwrap().json().await.unwrap();
        ids.push(accepted["id"].as_str().unwrap_or_else(|| panic!("{accepted}")).to_owned());
    }
    let worker = Server::start_ready(&launch("worker")).await;
    for id in &ids {
        assert_eq!(api.ended(id).await["status"], "succeeded");
    }
    let messages = receiver.until(2).await;
    let mut traces = Vec::new();
    for (trace, id) in TRACES.iter().zip(&ids) {
        let spans = collector.until(trace, &["attempt", "webhook"]).await;
        assert_one_trace(&spans, id);
        let message = messages.iter().find(|message| message.body.contains(id)).unwrap();
        let sent = one(&spans, "webhook");
        assert_eq!(message.header("traceparent"), format!("00-{trace}-{}-01", sent.id));
        assert_eq!((message.header("tracestate"), sent.number("http.response.status_code")), ("a=b", 200));
        traces.push(spans);
    }
    assert_shared_batches(&traces);
    assert!(worker.stopped().await.success() && api.stopped().await.success());
}

/// The spans of the request and the webhook are of the API process, all others of the worker.
fn assert_one_trace(spans: &[Span], id: &str) {
    let posted = one(spans, "POST /v1/images");
    let attempt = one(spans, "attempt");
    assert_eq!((&*posted.parent, posted.role.as_str()), (PARENT, "api"));
    assert_eq!((&attempt.parent, attempt.role.as_str(), attempt.kind), (&posted.id, "worker", 5));
    assert_ne!(attempt.instance, posted.instance);
    assert_eq!(attempt.text("latentd.generation.id"), id);
    assert_attempt(spans, attempt);
    for (name, role) in [("queue wait", "worker"), ("webhook", "api")] {
        let span = one(spans, name);
        assert_eq!((&span.parent, span.role.as_str()), (&posted.id, role));
    }
    let wait = one(spans, "queue wait");
    assert!(wait.ended - wait.begun > 0, "the generation waited for the worker to start");
}

fn assert_shared_batches(traces: &[Vec<Span>]) {
    let mut shared = 0;
    for (spans, others) in [(&traces[0], &traces[1]), (&traces[1], &traces[0])] {
        for span in spans {
            let runs = if span.name.starts_with("batch ") { span.number("latentd.batch.runs") } else { 1 };
            assert_eq!(span.links.len() as i64, runs - 1, "{span:?}");
            for (trace, id) in &span.links {
                let other = others.iter().find(|other| other.id == *id);
                let other = other.unwrap_or_else(|| panic!("the link of {span:?} leads nowhere"));
                assert_eq!((&other.trace, &other.name), (trace, &span.name));
                assert_eq!(other.links, [(span.trace.clone(), span.id.clone())]);
                let rows = [span, other].map(|span| span.number("latentd.batch.own_rows")).iter().sum::<i64>();
                assert_eq!(rows, span.number("latentd.batch.rows"), "{span:?} {other:?}");
                shared += 1;
            }
        }
    }
    assert!(shared >= 2, "no batch was shared");
}
