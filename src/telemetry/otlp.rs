//! Writes spans as OTLP/JSON, the JSON form of
//! [OpenTelemetry's protocol](https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding): ids in hexadecimal,
//! 64-bit numbers as texts, enums as numbers.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use super::span::{Attribute, Span};

/// The body of a request that exports these spans of one process, which `resource` describes.
pub fn body(resource: &[(&'static str, String)], spans: &[Span]) -> String {
    let resource: Vec<Value> =
        resource.iter().map(|(name, value)| attribute(name, &Attribute::Text(value.clone()))).collect();
    let spans: Vec<Value> = spans.iter().map(written).collect();
    let scope = json!({"name": "latentd", "version": env!("CARGO_PKG_VERSION")});
    let of_scope = json!({"scope": scope, "spans": spans});
    json!({"resourceSpans": [{"resource": {"attributes": resource}, "scopeSpans": [of_scope]}]}).to_string()
}

fn written(span: &Span) -> Value {
    let Span { context, parent, name, kind, begun, ended, attributes, links, error } = span;
    let mut written = Map::from_iter([
        ("traceId".to_owned(), json!(format!("{:?}", context.trace))),
        ("spanId".to_owned(), json!(format!("{:?}", context.span))),
        ("flags".to_owned(), json!(u8::from(context.is_sampled))),
        ("name".to_owned(), json!(name)),
        ("kind".to_owned(), json!(*kind as u8)),
        ("startTimeUnixNano".to_owned(), nanoseconds(*begun)),
        ("endTimeUnixNano".to_owned(), nanoseconds(*ended)),
    ]);
    if let Some(parent) = parent {
        written.insert("parentSpanId".to_owned(), json!(format!("{parent:?}")));
    }
    if !context.tracestate().is_empty() {
        written.insert("traceState".to_owned(), json!(context.tracestate()));
    }
    if !attributes.is_empty() {
        let attributes: Vec<Value> = attributes.iter().map(|(name, value)| attribute(name, value)).collect();
        written.insert("attributes".to_owned(), attributes.into());
    }
    if !links.is_empty() {
        let link = |to: &crate::generation::TraceContext| {
            let (trace, span) = (format!("{:?}", to.trace), format!("{:?}", to.span));
            json!({"traceId": trace, "spanId": span})
        };
        written.insert("links".to_owned(), links.iter().map(link).collect());
    }
    if let Some(error) = error {
        const ERROR: u8 = 2;
        written.insert("status".to_owned(), json!({"code": ERROR, "message": error}));
    }
    written.into()
}

fn attribute(name: &str, value: &Attribute) -> Value {
    let value = match value {
        Attribute::Text(text) => json!({"stringValue": text}),
        Attribute::Int(number) => json!({"intValue": number.to_string()}),
        Attribute::Seconds(seconds) => json!({"doubleValue": seconds}),
    };
    json!({"key": name, "value": value})
}

/// Nanoseconds since 1970 as a text.
fn nanoseconds(time: SystemTime) -> Value {
    json!(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos().to_string())
}
