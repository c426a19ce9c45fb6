//! Checks answers against `openapi.yaml`. Other tests include this file with `#[path = "contract/conforms.rs"]`.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

static CONTRACT: LazyLock<Value> =
    LazyLock::new(|| serde_yaml_ng::from_str(latentd::http::OPENAPI_YAML).expect("openapi.yaml is YAML"));

/// The parsed contract.
pub fn contract() -> &'static Value {
    &CONTRACT
}

/// The target of a `$ref` within the contract; a value without a `$ref` is returned unchanged.
pub fn resolved(value: &'static Value) -> &'static Value {
    match value.get("$ref").and_then(Value::as_str) {
        Some(target) => {
            let pointer = target.strip_prefix('#').expect("references stay in the document");
            resolved(contract().pointer(pointer).unwrap_or_else(|| panic!("{target} leads nowhere")))
        }
        None => value,
    }
}

/// The errors of `instance` under a schema of the contract; empty if the instance is valid.
pub fn complaints(schema: &Value, instance: &Value) -> Vec<String> {
    let document = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "allOf": [schema],
        "components": contract()["components"],
    });
    let validator = jsonschema::validator_for(&document).unwrap_or_else(|error| panic!("a schema is broken: {error}"));
    validator.iter_errors(instance).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

/// The operation of a concrete path, such as `/v1/images/img_…`. Literal segments take precedence over parameters.
pub fn operation(method: &str, path: &str) -> Option<&'static Value> {
    let path = path.split('?').next().unwrap_or_default();
    let fits = |template: &str| {
        let (wanted, given) = (template.split('/'), path.split('/'));
        wanted.clone().count() == given.clone().count()
            && wanted.zip(given).all(|(wanted, given)| wanted == given || wanted.starts_with('{') && !given.is_empty())
    };
    let paths = contract()["paths"].as_object()?;
    let best =
        paths.iter().filter(|(template, _)| fits(template)).min_by_key(|(template, _)| template.matches('{').count());
    best?.1.get(method.to_ascii_lowercase())
}

/// Panics unless the contract allows this answer: the operation lists the status, and the body has one of the media
/// types of the status and is valid for its schema. For a path or method outside the contract, the status must be 404
/// or 405 and the body an error of the protocol that the path belongs to.
pub fn assert_conforms(method: &str, path: &str, status: u16, body: &[u8]) {
    let Some(operation) = operation(method, path) else {
        assert!(
            status == 404 || status == 405,
            "{method} {path} is not in the contract but was answered with {status}"
        );
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        let schema = match segments[..] {
            ["sdapi" | "controlnet" | "internal", ..] => "SdapiError",
            ["api", ..] => "OllamaError",
            ["v1", "images", "generations" | "edits" | "variations", ..] => "OpenAiErrorBody",
            ["v1", "videos", _, "content"] => "OpenAiErrorBody",
            _ => "Problem",
        };
        let schema = json!({"$ref": format!("#/components/schemas/{schema}")});
        return assert_valid(&schema, &json_of(body), method, path, status);
    };
    let response = operation["responses"].get(status.to_string());
    let response =
        resolved(response.unwrap_or_else(|| panic!("{method} {path} answered {status}, which is not listed")));
    let no_types = Map::new();
    let types = response.get("content").and_then(Value::as_object).unwrap_or(&no_types);
    if body.is_empty() {
        assert!(types.is_empty(), "{method} {path} answered {status} with an empty body");
        return;
    }
    let kinds: Vec<&String> = types.keys().filter(|kind| looks_like(kind, body)).collect();
    let kind = kinds.first().unwrap_or_else(|| {
        panic!("{method} {path} answered {status} with none of {types:?}: {}", String::from_utf8_lossy(body))
    });
    // Errors of two protocols on one path are both JSON.
    let schema = &json!({"anyOf": kinds.iter().map(|kind| &types[*kind]["schema"]).collect::<Vec<_>>()});
    match kind.as_str() {
        "application/json" | "application/problem+json" | "application/schema+json" => {
            assert_valid(schema, &json_of(body), method, path, status)
        }
        "text/event-stream" => {
            for event in events(std::str::from_utf8(body).expect("event streams are UTF-8")) {
                assert_valid(schema, &event, method, path, status);
            }
        }
        "application/x-ndjson" => {
            lines(body).unwrap().iter().for_each(|line| assert_valid(schema, line, method, path, status));
        }
        _ => {}
    }
}

/// The objects of a body with several lines; `None` if the body is something else.
fn lines(body: &[u8]) -> Option<Vec<Value>> {
    let lines = std::str::from_utf8(body).ok()?.strip_suffix('\n')?.lines();
    let lines: Vec<Value> = lines.map(serde_json::from_str).collect::<Result<_, _>>().ok()?;
    (lines.len() > 1).then_some(lines)
}

/// Panics with all errors if `instance` is not valid for `schema`.
pub fn assert_valid(schema: &Value, instance: &Value, method: &str, path: &str, status: u16) {
    let complaints = complaints(schema, instance);
    assert!(complaints.is_empty(), "{method} {path} answered {status} with {instance:#}\n{}", complaints.join("\n"));
}

fn json_of(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(body)))
}

fn looks_like(kind: &str, body: &[u8]) -> bool {
    match kind {
        "image/png" => body.starts_with(b"\x89PNG\r\n\x1a\n"),
        "image/jpeg" => body.starts_with(b"\xff\xd8\xff"),
        "image/webp" => body.starts_with(b"RIFF") && body[8..].starts_with(b"WEBP"),
        "image/apng" => body.starts_with(b"\x89PNG\r\n\x1a\n"),
        "image/gif" => body.starts_with(b"GIF89a"),
        "video/mp4" => body.get(4..8) == Some(&b"ftyp"[..]),
        "application/zip" => body.starts_with(b"PK\x03\x04"),
        "audio/wav" => body.starts_with(b"RIFF") && body[8..].starts_with(b"WAVE"),
        "audio/flac" => body.starts_with(b"fLaC") || body.starts_with(b"ID3"),
        "audio/ogg" => body.starts_with(b"OggS"),
        "application/x-ndjson" => lines(body).is_some(),
        "application/json" | "application/problem+json" | "application/schema+json" if lines(body).is_some() => false,
        "application/json" | "application/problem+json" | "application/schema+json" => {
            body.trim_ascii_start().starts_with(b"{") || body.trim_ascii_start().starts_with(b"[")
        }
        "text/event-stream" => {
            [&b"retry:"[..], b"id:", b"event:", b"data:", b":"].iter().any(|start| body.starts_with(start))
        }
        "text/html" => body.trim_ascii_start().starts_with(b"<"),
        "text/markdown" => std::str::from_utf8(body).is_ok(),
        "text/plain" => body.starts_with(b"# HELP"),
        "application/yaml" => body.starts_with(b"openapi:"),
        _ => false,
    }
}

/// The complete events of a stream in the form of the contract: objects with `id`, `event`, `retry` and `data`.
/// Comments are skipped.
pub fn events(stream: &str) -> Vec<Value> {
    let whole = stream.rsplit_once("\n\n").map_or("", |(whole, _)| whole);
    let is_comment = |block: &&str| block.lines().all(|line| line.starts_with(':'));
    whole.split("\n\n").filter(|block| !is_comment(block)).map(event).collect()
}

fn event(lines: &str) -> Value {
    let mut event = Map::new();
    for (name, value) in lines.lines().filter_map(|line| line.split_once(':')).filter(|(name, _)| !name.is_empty()) {
        let value = value.strip_prefix(' ').unwrap_or(value);
        let value = match name {
            "id" | "retry" => json!(value.parse::<i64>().expect("ids and times are numbers")),
            "data" if !value.is_empty() => serde_json::from_str(value).expect("data is JSON"),
            _ => json!(value),
        };
        event.insert(name.to_owned(), value);
    }
    Value::Object(event)
}
