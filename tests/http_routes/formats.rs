//! Tests of choosing the file format of a picture by the field `output`, by `Accept` or by the path.

use axum::{body::Body, http::Request};
use serde_json::{Value, json};

use crate::api::{Answer, TestApi, post};

fn form(path: &str, body: &str, headers: &[(&str, &str)]) -> Request<Body> {
    let request = Request::post(path).header("content-type", "application/x-www-form-urlencoded");
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    request.body(Body::from(body.to_owned())).unwrap()
}

/// `params.output` of the generation to which the answer's `Location` points. No worker draws the generation.
async fn output(api: &TestApi, answer: &Answer) -> Value {
    let location = answer.header("location");
    assert!(!location.is_empty(), "{answer:?}");
    api.get(location).await.json()["params"]["output"].clone()
}

fn jpeg(quality: u8) -> Value {
    json!({"format": "jpeg", "quality": quality, "metadata": "full"})
}

#[tokio::test]
async fn the_field_the_accept_header_or_the_path_chooses_the_format() {
    let api = TestApi::open(&[]).await;
    let at_once = ("prefer", "wait=0");
    let fox = json!({"prompt": "a"});
    let (png, webp) = (json!({"format": "png", "metadata": "full"}), json!({"format": "webp", "metadata": "full"}));
    for (request, expected) in [
        (post(&fox, &[]), &png),
        (post(&json!({"prompt": "a", "output": {"format": "jpeg"}}), &[]), &jpeg(90)),
        (post(&json!({"prompt": "a", "output": {"format": "jpeg", "quality": 1}}), &[]), &jpeg(1)),
        (post(&json!({"prompt": "a", "output": {"format": "webp", "quality": null}}), &[]), &webp),
        (form("/v1/images", "prompt=a&output.format=jpeg&output.quality=100", &[]), &jpeg(100)),
        (form("/v1/images", "prompt=a&output.format=webp", &[]), &webp),
        (post(&fox, &[("accept", "image/jpeg"), at_once]), &jpeg(90)),
        (post(&fox, &[("accept", "image/jpeg;q=0.4, image/webp;q=0.5"), at_once]), &webp),
        (post(&fox, &[("accept", "image/*"), at_once]), &png),
        (post(&json!({"prompt": "a", "output": {"quality": 80}}), &[("accept", "image/jpeg"), at_once]), &jpeg(80)),
        (post(&json!({"prompt": "a", "output": {"format": "webp"}}), &[("accept", "image/*"), at_once]), &webp),
        (form("/v1/images.png", "prompt=a", &[at_once]), &png),
        (form("/v1/images.jpg", "prompt=a", &[at_once]), &jpeg(90)),
        (form("/v1/images.jpg", "prompt=a&output.quality=95&output.format=jpeg", &[at_once]), &jpeg(95)),
        (form("/v1/images.webp", "prompt=a", &[at_once, ("accept", "image/png")]), &webp),
    ] {
        let shown = format!("{request:?}");
        let answer = api.ask(request).await;
        assert!([202, 504].contains(&answer.status), "{shown}: {answer:?}");
        assert_eq!(output(&api, &answer).await, *expected, "{shown}");
    }
    // `Accept` chooses the format and leaves `metadata` as requested.
    let none = post(&json!({"prompt": "a", "output": {"metadata": "none"}}), &[("accept", "image/webp"), at_once]);
    let answer = api.ask(none).await;
    assert_eq!(output(&api, &answer).await, json!({"format": "webp", "metadata": "none"}));
}

#[tokio::test]
async fn impossible_formats_are_refused() {
    let api = TestApi::open(&[]).await;
    let with = |output: Value| post(&json!({"prompt": "a", "output": output}), &[]);
    for (request, pointer, detail) in [
        (with(json!({"format": "jpg"})), "/output/format", "must be one of png, jpeg, webp, not \"jpg\""),
        (with(json!({"format": 5})), "/output/format", "must be one of png, jpeg, webp, not 5"),
        (with(json!({"format": "gif", "quality": 5})), "/output/format", "must be one of png, jpeg, webp"),
        (with(json!({"format": "jpeg", "quality": 0})), "/output/quality", "must be between 1 and 100, not 0"),
        (with(json!({"format": "jpeg", "quality": 101})), "/output/quality", "must be between 1 and 100, not 101"),
        (with(json!({"format": "jpeg", "quality": "high"})), "/output/quality", "must be an integer"),
        (with(json!({"format": "webp", "quality": 80})), "/output/quality", "only for the format jpeg: webp is"),
        (with(json!({"format": "png", "quality": 80})), "/output/quality", "only for the format jpeg: png is"),
        (with(json!({"quality": 80})), "/output/quality", "only for the format jpeg: png is"),
        (form("/v1/images.webp", "prompt=a&output.quality=80", &[]), "/output/quality", "webp is written lossless"),
        (form("/v1/images.jpg", "prompt=a&output.format=png", &[]), "/output/format", "must be jpeg or absent"),
        (form("/v1/images.png", "prompt=a&output.format=jpeg", &[]), "/output/format", "the path ends in .png"),
        (form("/v1/images", "prompt=a&output.color=red", &[]), "/output/color", "is not a field"),
        (form("/v1/images", "prompt=a&output.format=png&output.format=png", &[]), "/output/format", "more than once"),
    ] {
        let shown = format!("{request:?}");
        let answer = api.ask(request).await;
        assert_eq!(answer.status, 422, "{shown}");
        let errors = answer.json()["errors"].clone();
        assert_eq!(errors.as_array().map(Vec::len), Some(1), "{errors}");
        assert_eq!(errors[0]["pointer"], pointer, "{shown}");
        assert!(errors[0]["detail"].as_str().unwrap().contains(detail), "{errors}");
    }
    let (two, jpeg) = (json!({"prompt": "a", "n": 2}), json!({"prompt": "a", "output": {"format": "jpeg"}}));
    for (request, code, detail) in [
        (post(&two, &[("accept", "image/jpeg")]), "multiple_images", "image/jpeg"),
        (form("/v1/images.webp", "prompt=a&n=2", &[]), "multiple_images", "image/webp"),
        (post(&jpeg, &[("accept", "image/png")]), "not_acceptable", "application/json, image/jpeg, text/event-stream"),
        (post(&jpeg, &[("accept", "image/jpeg;q=0, image/*")]), "not_acceptable", "image/jpeg"),
        (post(&two, &[("accept", "image/avif")]), "not_acceptable", "image/png, image/jpeg, image/webp"),
    ] {
        let answer = api.ask(request).await;
        assert_eq!((answer.status, answer.json()["code"].as_str()), (406, Some(code)), "{answer:?}");
        assert!(answer.json()["detail"].as_str().unwrap().contains(detail), "{}", answer.text());
    }
    assert_eq!(api.store.counts().await.unwrap().queued, 0);
}

/// The fingerprint of a request does not include `Accept`, so the first request decides the format.
#[tokio::test]
async fn a_repeated_request_gets_the_format_of_the_first() {
    let api = TestApi::open(&[]).await;
    let fox = json!({"prompt": "a"});
    let key = ("idempotency-key", "k");
    let ask = async |path: &str, headers: &[(&str, &str)]| {
        let headers: Vec<_> = headers.iter().copied().chain([key, ("prefer", "wait=0")]).collect();
        api.ask(form(path, "prompt=a", &headers)).await
    };
    let first = ask("/v1/images.jpg", &[]).await;
    assert_eq!(first.status, 504, "{first:?}");
    for accept in ["image/jpeg", "image/*", "image/webp;q=0.5, image/jpeg;q=0.4"] {
        let again = ask("/v1/images", &[("accept", accept)]).await;
        assert_eq!((again.status, again.header("idempotency-replayed")), (504, "true"), "{accept}: {again:?}");
    }
    for (path, accept) in [("/v1/images", "image/png"), ("/v1/images.png", "*/*"), ("/v1/images.webp", "*/*")] {
        let other = ask(path, &[("accept", accept)]).await;
        assert_eq!((other.status, other.json()["code"].as_str()), (406, Some("not_acceptable")), "{path} {accept}");
        assert!(other.json()["detail"].as_str().unwrap().ends_with("image/jpeg"), "{}", other.text());
    }
    let object = api.ask(post(&fox, &[key])).await;
    assert_eq!((object.status, object.header("idempotency-replayed")), (202, "true"));
    assert_eq!(object.json()["params"]["output"], jpeg(90));
    assert_eq!(object.json()["status"], "queued", "the refusals did not cancel the generation");
    // A format in the body is part of the fingerprint.
    let named = json!({"prompt": "a", "output": {"format": "jpeg"}});
    let reused = api.ask(post(&named, &[key])).await;
    assert_eq!((reused.status, reused.json()["code"].as_str()), (422, Some("idempotency_key_reused")));
}
