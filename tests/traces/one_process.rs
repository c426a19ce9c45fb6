//! Traces of one process with SQLite.

use reqwest::{Response, StatusCode};
use serde_json::{Value, json};

use crate::{
    collector::{Collector, Span, one},
    harness::{Server, request, with},
};

pub const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// Names of the phases of a run, in their order.
pub const PHASES: [&str; 5] = ["load", "encode text", "denoise", "decode", "store"];

/// Draws a picture with these headers.
async fn draw(server: &Server, body: &Value, headers: &[(&str, &str)]) -> Response {
    let request = server.client.post(server.url("/v1/images")).header("Prefer", "wait=100").json(body);
    let answer = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).send().await;
    let answer = answer.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    answer
}

/// The parts of the header `traceresponse`: trace, span, flags.
fn traceresponse(answer: &Response) -> (String, String, String) {
    let parts: Vec<&str> = answer.headers()["traceresponse"].to_str().unwrap().split('-').collect();
    let [version, trace, span, flags] = parts[..] else { panic!("{parts:?}") };
    assert_eq!(version, "00");
    (trace.to_owned(), span.to_owned(), flags.to_owned())
}

/// Checks the spans of one attempt: their parents and their times.
pub fn assert_attempt(spans: &[Span], attempt: &Span) {
    let phases: Vec<&Span> = PHASES.iter().map(|name| one(spans, name)).collect();
    for pair in phases.windows(2) {
        assert!(pair[0].ended <= pair[1].begun, "{pair:#?}");
    }
    for phase in phases.iter().copied().chain([one(spans, "write outcome")]) {
        assert_eq!(phase.parent, attempt.id, "{phase:?}");
        assert!(attempt.begun <= phase.begun && phase.ended <= attempt.ended, "{phase:?} {attempt:?}");
    }
    let batches: Vec<&Span> = spans.iter().filter(|span| span.name.starts_with("batch ")).collect();
    for batch in &batches {
        let phase = phases[1..4].iter().find(|phase| phase.id == batch.parent);
        let phase = phase.unwrap_or_else(|| panic!("{batch:?} is below no phase"));
        assert!(phase.begun <= batch.begun && batch.ended <= phase.ended, "{batch:?} {phase:?}");
        assert!(batch.number("latentd.batch.own_rows") <= batch.number("latentd.batch.rows"));
        assert_eq!(batch.name, format!("batch {}", batch.text("latentd.network")));
    }
    for phase in &phases[1..4] {
        assert!(batches.iter().any(|batch| batch.parent == phase.id), "{} has no batch", phase.name);
    }
}

#[tokio::test]
async fn a_request_is_one_trace_from_its_parent_to_the_stored_picture() {
    let (data, collector) = (tempfile::tempdir().unwrap(), Collector::start().await);
    let settings = [
        ("LATENTD_TELEMETRY__OTLP_ENDPOINT", &*collector.endpoint()),
        ("LATENTD_TELEMETRY__OTLP_HEADERS", "api-key=of%20the%20collector"),
        ("LATENTD_TELEMETRY__SAMPLE_RATIO", "0"),
    ];
    let server = Server::start(data.path(), &settings).await;
    let body = with(request("a red fox", 7), &json!({"steps": 3, "width": 64, "height": 64}));
    let parent = format!("00-{TRACE}-{PARENT}-01");
    let answer = draw(&server, &body, &[("traceparent", &parent), ("tracestate", "rojo=1,congo=2")]).await;
    let (trace, id, flags) = traceresponse(&answer);
    assert_eq!((&*trace, &*flags), (TRACE, "01"));
    let generation: Value = answer.json().await.unwrap();
    assert!(!generation["params"].to_string().contains(TRACE), "the trace is no parameter: {generation}");

    let spans = collector.until(TRACE, &["POST /v1/images", "attempt"]).await;
    let posted = one(&spans, "POST /v1/images");
    assert_eq!((&*posted.id, &*posted.parent, posted.kind), (&*id, PARENT, 2));
    assert_eq!((posted.text("http.route"), posted.number("http.response.status_code")), ("/v1/images", 200));
    let attempt = one(&spans, "attempt");
    assert_eq!((&attempt.parent, attempt.text("latentd.outcome")), (&posted.id, "succeeded"));
    assert_eq!(attempt.text("latentd.generation.id"), generation["id"]);
    assert_eq!(posted.text("latentd.generation.id"), generation["id"]);
    assert_eq!(one(&spans, "queue wait").parent, posted.id);
    assert_attempt(&spans, attempt);
    let steps = spans.iter().filter(|span| span.parent == one(&spans, "denoise").id).count();
    assert!(steps >= 3, "{steps} batches for 3 steps");
    for span in &spans {
        assert_eq!((span.role.as_str(), span.state.as_str()), ("all", "rojo=1,congo=2"), "{span:?}");
        assert_eq!((&span.error, span.links.len()), (&None, 0), "{span:?}");
    }
    assert!(collector.headers().iter().all(|headers| headers["api-key"] == "of the collector"));

    // The same request by its idempotency key is the same generation, whatever its trace.
    let key = ("idempotency-key", "once");
    let first: Value = draw(&server, &body, &[key, ("traceparent", &parent)]).await.json().await.unwrap();
    let again = draw(&server, &body, &[key, ("traceparent", &parent.replace(PARENT, "00f067aa0ba902b7"))]).await;
    assert_eq!(again.headers()["idempotency-replayed"], "true");
    assert_eq!(again.json::<Value>().await.unwrap()["id"], first["id"]);

    // Without a valid traceparent there is a new trace, which the ratio 0 does not record. A traceparent that is not
    // sampled is passed on unchanged.
    let invalid = draw(&server, &body, &[("traceparent", &parent.to_uppercase())]).await;
    let (fresh, _, flags) = traceresponse(&invalid);
    assert!(fresh != TRACE && flags == "00", "{fresh} {flags}");
    let unsampled = parent.replace("-01", "-00").replace(TRACE, "4bf92f3577b34da6a3ce929d0e0e4736");
    let (other, id, flags) = traceresponse(&draw(&server, &body, &[("traceparent", &unsampled)]).await);
    assert_eq!((&*other, &*id, &*flags), ("4bf92f3577b34da6a3ce929d0e0e4736", PARENT, "00"));
    assert!(server.metric("latentd_trace_spans_total", "exported").await > 0.0);
    assert_eq!(server.metric("latentd_trace_spans_total", "dropped").await, 0.0);
    assert!(server.stopped().await.success());
    let traces: Vec<String> = collector.spans().into_iter().map(|span| span.trace).collect();
    assert!(!traces.contains(&fresh) && !traces.contains(&other));
}

#[tokio::test]
async fn new_traces_are_recorded_and_all_spans_are_sent_when_the_server_stops() {
    let (data, collector) = (tempfile::tempdir().unwrap(), Collector::start().await);
    let settings = [("OTEL_EXPORTER_OTLP_ENDPOINT", &*collector.endpoint())];
    let server = Server::start(data.path(), &settings).await;
    let answer =
        draw(&server, &with(request("a blue owl", 3), &json!({"steps": 1, "width": 64, "height": 64})), &[]).await;
    let (trace, id, flags) = traceresponse(&answer);
    assert_eq!(flags, "01");
    let refused = server.post(&json!({"prompt": 5})).await;
    let (other, _, _) = traceresponse(&refused);
    assert!(server.stopped().await.success());
    let spans = collector.spans_of(&trace);
    let posted = one(&spans, "POST /v1/images");
    assert_eq!((&*posted.id, &*posted.parent), (&*id, ""));
    assert_attempt(&spans, one(&spans, "attempt"));
    let refused = &collector.spans_of(&other)[0];
    assert_eq!((refused.number("http.response.status_code"), refused.text("error.type")), (422, "validation_failed"));
    assert_eq!(refused.error, None, "a refused request is no error of the server");
    // The operator's listener has no spans.
    assert!(collector.spans().iter().all(|span| !span.name.contains("readyz")));
}
