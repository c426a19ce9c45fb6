//! Tests of invalid input: each kind gets its own status and a problem document that names the field.

use reqwest::{RequestBuilder, header};
use serde_json::{Value, json};

use crate::harness::Server;

/// An invalid request, with the expected status, code and, if one field is wrong, the pointer in the problem document.
struct Bad {
    what: &'static str,
    request: fn(RequestBuilder) -> RequestBuilder,
    status: u16,
    code: &'static str,
    pointer: Option<&'static str>,
}

fn field(what: &'static str, request: fn(RequestBuilder) -> RequestBuilder, pointer: &'static str) -> Bad {
    Bad { what, request, status: 422, code: "validation_failed", pointer: Some(pointer) }
}

fn unknown(what: &'static str, request: fn(RequestBuilder) -> RequestBuilder, pointer: &'static str) -> Bad {
    Bad { code: "unknown_field", ..field(what, request, pointer) }
}

fn whole(what: &'static str, request: fn(RequestBuilder) -> RequestBuilder, status: u16, code: &'static str) -> Bad {
    Bad { what, request, status, code, pointer: None }
}

macro_rules! json_body {
    ($($json:tt)+) => { |request: RequestBuilder| request.json(&json!($($json)+)) };
}

macro_rules! raw_json {
    ($body:expr) => {
        |request: RequestBuilder| request.header(header::CONTENT_TYPE, "application/json").body($body)
    };
}

fn cases() -> Vec<Bad> {
    vec![
        field("no prompt", json_body!({}), "/prompt"),
        field("null prompt", json_body!({"prompt": null}), "/prompt"),
        field("prompt of a wrong type", json_body!({"prompt": 7}), "/prompt"),
        field("prompt too long", |r| r.json(&json!({"prompt": "x".repeat(10_001)})), "/prompt"),
        field("NUL in the prompt", json_body!({"prompt": "a\u{0}b"}), "/prompt"),
        field(
            "negative prompt of a wrong type",
            json_body!({"prompt": "a", "negative_prompt": ["b"]}),
            "/negative_prompt",
        ),
        unknown("unknown field", json_body!({"prompt": "a", "stepz": 4}), "/stepz"),
        unknown("unknown field with a slash", json_body!({"prompt": "a", "a/b": 4}), "/a~1b"),
        field("width not a multiple of 8", json_body!({"prompt": "a", "width": 68}), "/width"),
        field("width too small", json_body!({"prompt": "a", "width": 8}), "/width"),
        field("height too large", json_body!({"prompt": "a", "height": 1_000_000}), "/height"),
        field("negative height", json_body!({"prompt": "a", "height": -64}), "/height"),
        field("width with a fraction", json_body!({"prompt": "a", "width": 64.5}), "/width"),
        field("size in words", json_body!({"prompt": "a", "size": "large"}), "/size"),
        field("size beside width", json_body!({"prompt": "a", "size": "64x64", "width": 64}), "/size"),
        field("no steps", json_body!({"prompt": "a", "steps": 0}), "/steps"),
        field("too many steps", json_body!({"prompt": "a", "steps": 1001}), "/steps"),
        field("steps as a text", json_body!({"prompt": "a", "steps": "20"}), "/steps"),
        field("steps twice", json_body!({"prompt": "a", "steps": 4, "num_inference_steps": 5}), "/steps"),
        field("a list of no sigmas", json_body!({"prompt": "a", "scheduler": "euler", "sigmas": []}), "/sigmas"),
        field("sigmas as a number", json_body!({"prompt": "a", "scheduler": "euler", "sigmas": 14.6}), "/sigmas"),
        field("a sigma in words", json_body!({"prompt": "a", "scheduler": "euler", "sigmas": [2, "one"]}), "/sigmas/1"),
        field("a sigma below 0", json_body!({"prompt": "a", "scheduler": "euler", "sigmas": [2, -1]}), "/sigmas/1"),
        field("rising sigmas", json_body!({"prompt": "a", "scheduler": "euler", "sigmas": [2, 3, 0]}), "/sigmas/1"),
        field("a single sigma", json_body!({"prompt": "a", "scheduler": "euler", "sigmas": [2]}), "/sigmas"),
        field(
            "sigmas that ddim does not take",
            json_body!({"prompt": "a", "scheduler": "ddim", "sigmas": [2, 1]}),
            "/sigmas",
        ),
        field(
            "too many timesteps",
            |r| r.json(&json!({"prompt": "a", "scheduler": "euler", "timesteps": vec![1; 1001]})),
            "/timesteps",
        ),
        field(
            "a timestep with a fraction",
            json_body!({"prompt": "a", "scheduler": "euler", "timesteps": [900, 10.5]}),
            "/timesteps/1",
        ),
        field(
            "a timestep past the model's",
            json_body!({"prompt": "a", "scheduler": "euler", "timesteps": [1000, 10]}),
            "/timesteps",
        ),
        field(
            "timesteps that do not fall",
            json_body!({"prompt": "a", "scheduler": "euler", "timesteps": [900, 900]}),
            "/timesteps/1",
        ),
        field(
            "timesteps beside Karras' levels",
            json_body!({"prompt": "a", "scheduler": "euler_karras", "timesteps": [900, 10]}),
            "/timesteps",
        ),
        field(
            "timesteps beside sigmas",
            json_body!({"prompt": "a", "scheduler": "euler", "timesteps": [900, 10], "sigmas": [2, 0]}),
            "/timesteps",
        ),
        field(
            "other steps than the list has",
            json_body!({"prompt": "a", "scheduler": "euler", "timesteps": [900, 10], "steps": 3}),
            "/steps",
        ),
        field("guidance too large", json_body!({"prompt": "a", "guidance_scale": 31}), "/guidance_scale"),
        field("guidance NaN in a form", |r| r.form(&[("prompt", "a"), ("guidance_scale", "NaN")]), "/guidance_scale"),
        field("guidance 1e999", raw_json!(r#"{"prompt": "a", "guidance_scale": 1e308}"#), "/guidance_scale"),
        field(
            "an interval of one number",
            json_body!({"prompt": "a", "guidance_interval": [0.5]}),
            "/guidance_interval",
        ),
        field("an interval in words", json_body!({"prompt": "a", "guidance_interval": "0-1"}), "/guidance_interval"),
        field("an interval past 1", json_body!({"prompt": "a", "guidance_interval": [0, 1.5]}), "/guidance_interval/1"),
        field(
            "an interval from below 0",
            json_body!({"prompt": "a", "guidance_interval": [-1, 1]}),
            "/guidance_interval/0",
        ),
        field("an empty interval", json_body!({"prompt": "a", "guidance_interval": [0.5, 0.5]}), "/guidance_interval"),
        field("eta below 0", json_body!({"prompt": "a", "eta": -0.1}), "/eta"),
        field("no images", json_body!({"prompt": "a", "n": 0}), "/n"),
        field("too many images", json_body!({"prompt": "a", "n": 11}), "/n"),
        field("negative seed", json_body!({"prompt": "a", "seed": -1}), "/seed"),
        field("seed past 63 bits", raw_json!(r#"{"prompt": "a", "seed": 18446744073709551616}"#), "/seed"),
        field("unknown scheduler", json_body!({"prompt": "a", "scheduler": "magic"}), "/scheduler"),
        field("scheduler of a wrong type", json_body!({"prompt": "a", "scheduler": 3}), "/scheduler"),
        field("scheduler without the option", json_body!({"prompt": "a", "scheduler": "ddim_karras"}), "/scheduler"),
        field(
            "scheduler key out of its values",
            json_body!({"prompt": "a", "scheduler": {"timestep_spacing": "wide"}}),
            "/scheduler/timestep_spacing",
        ),
        field("unknown scheduler key", json_body!({"prompt": "a", "scheduler": {"magic": 1}}), "/scheduler/magic"),
        field("clip_skip too deep", json_body!({"prompt": "a", "clip_skip": 9}), "/clip_skip"),
        field(
            "a cache without an interval",
            json_body!({"prompt": "a", "feature_cache": {"kind": "deepcache"}}),
            "/feature_cache/interval",
        ),
        field(
            "a cache of no kind",
            json_body!({"prompt": "a", "feature_cache": {"interval": 3}}),
            "/feature_cache/kind",
        ),
        field(
            "a cache of another kind",
            json_body!({"prompt": "a", "feature_cache": {"kind": "magic", "interval": 3}}),
            "/feature_cache/kind",
        ),
        field(
            "a cache that keeps nothing",
            json_body!({"prompt": "a", "feature_cache": {"kind": "deepcache", "interval": 1}}),
            "/feature_cache/interval",
        ),
        field(
            "a cache that keeps for ever",
            json_body!({"prompt": "a", "feature_cache": {"kind": "deepcache", "interval": 11}}),
            "/feature_cache/interval",
        ),
        field("a cache as a word", json_body!({"prompt": "a", "feature_cache": "deepcache"}), "/feature_cache"),
        unknown(
            "an unknown field of a cache",
            json_body!({"prompt": "a", "feature_cache": {"kind": "deepcache", "interval": 2, "at": 1}}),
            "/feature_cache/at",
        ),
        field("a decoder of no name", json_body!({"prompt": "a", "decoder": "huge"}), "/decoder"),
        field("a decoder that no model has", json_body!({"prompt": "a", "decoder": "huge"}), "/decoder"),
        field("seed_mode in other words", json_body!({"prompt": "a", "seed_mode": "mixed"}), "/seed_mode"),
        field("too many previews", json_body!({"prompt": "a", "previews": 11}), "/previews"),
        field("unknown output format", json_body!({"prompt": "a", "output": {"format": "bmp"}}), "/output/format"),
        unknown("unknown field of output", json_body!({"prompt": "a", "output": {"dpi": 300}}), "/output/dpi"),
        field("metadata of a wrong type", json_body!({"prompt": "a", "metadata": {"k": 1}}), "/metadata/k"),
        field("a field twice in a form", |r| r.form(&[("prompt", "a"), ("prompt", "b")]), "/prompt"),
        Bad {
            what: "unknown model",
            request: json_body!({"prompt": "a", "model": "../etc"}),
            status: 422,
            code: "unknown_model",
            pointer: Some("/model"),
        },
        whole("an array", raw_json!("[]"), 422, "validation_failed"),
        whole("half a JSON", raw_json!("{\"prompt\": \"a\""), 400, "malformed_json"),
        whole("NaN in JSON", raw_json!("{\"prompt\": \"a\", \"eta\": NaN}"), 400, "malformed_json"),
        whole("bad UTF-8", raw_json!(b"{\"prompt\": \"\xff\xfe\"}".to_vec()), 400, "malformed_json"),
        whole(
            "too deep",
            |r| r.header(header::CONTENT_TYPE, "application/json").body("[".repeat(100_000)),
            400,
            "malformed_json",
        ),
        whole(
            "a huge body",
            |r| r.header(header::CONTENT_TYPE, "application/json").body(vec![b' '; 33 << 20]),
            413,
            "body_too_large",
        ),
        whole(
            "another content type",
            |r| r.header(header::CONTENT_TYPE, "text/plain").body("a fox"),
            415,
            "unsupported_media_type",
        ),
        whole(
            "another Accept",
            |r| r.header(header::ACCEPT, "video/mp4").json(&json!({"prompt": "a"})),
            406,
            "not_acceptable",
        ),
        whole(
            "two images as one PNG",
            |r| r.header(header::ACCEPT, "image/png").json(&json!({"prompt": "a", "n": 2})),
            406,
            "multiple_images",
        ),
    ]
}

#[tokio::test]
async fn each_kind_of_bad_input_is_refused_by_name() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;
    for bad in cases() {
        let response = (bad.request)(server.client.post(server.url("/v1/images"))).send().await.unwrap();
        let status = response.status().as_u16();
        let content_type = response.headers().get(header::CONTENT_TYPE).cloned();
        let text = response.text().await.unwrap();
        assert_eq!(status, bad.status, "{}: {text}", bad.what);
        assert_eq!(content_type.unwrap(), "application/problem+json", "{}", bad.what);
        let problem: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(problem["code"], bad.code, "{}: {text}", bad.what);
        assert_eq!(problem["status"], bad.status, "{}", bad.what);
        if let Some(pointer) = bad.pointer {
            let errors = problem["errors"].as_array().unwrap_or_else(|| panic!("{}: {text}", bad.what));
            assert!(errors.iter().any(|error| error["pointer"] == pointer), "{}: {text}", bad.what);
        }
    }
    assert_eq!(server.json("/v1/images").await["data"], json!([]), "an invalid request was accepted");
    assert_eq!(server.get("/health").await.status(), 200);
}

#[tokio::test]
async fn all_errors_are_in_one_answer() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;
    let response = server.post(&json!({"width": 65, "steps": 0, "seed": "x", "color": 1})).await;
    let problem: Value = response.json().await.unwrap();
    let mut pointers: Vec<&str> =
        problem["errors"].as_array().unwrap().iter().map(|e| e["pointer"].as_str().unwrap()).collect();
    pointers.sort_unstable();
    assert_eq!(pointers, ["/color", "/prompt", "/seed", "/steps", "/width"]);
}

#[tokio::test]
async fn unknown_paths_and_ids_get_problem_documents() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;
    for (path, status) in [
        ("/v1/nothing", 404),
        ("/v1/images/img_00000000000000000000000000", 404),
        ("/v1/images/not-an-id", 404),
        ("/v1/images/img_00000000000000000000000000/content/0", 404),
        ("/v1/images/img_00000000000000000000000000/events", 404),
        ("/v1/images?limit=0", 422),
        ("/v1/images?limit=x", 422),
        ("/v1/images?after=x", 422),
        ("/v1/images?status=done", 422),
        ("/v1/models/none", 404),
    ] {
        let response = server.get(path).await;
        assert_eq!(response.status().as_u16(), status, "{path}");
        let problem: Value = response.json().await.unwrap();
        assert_eq!(problem["status"], status, "{path}");
        assert!(problem["code"].is_string() && problem["detail"].is_string(), "{path}: {problem}");
    }
    let wrong_method = server.client.patch(server.url("/v1/images")).send().await.unwrap();
    assert_eq!(wrong_method.status(), 405);
    assert!(wrong_method.headers().contains_key(header::ALLOW));
}
