//! Tests of the list of errors of an invalid request: each mistake is listed once, and the list is bounded.

use axum::{body::Body, http::Request};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use crate::api::{TestApi, post};

/// The pointers and codes of the errors of a refused request, sorted.
async fn errors(api: &TestApi, body: &Value) -> Vec<(String, String)> {
    let refused = api.ask(post(body, &[])).await;
    assert_eq!(refused.status, 422, "{body}: {}", refused.text());
    listed(&refused.json())
}

fn listed(problem: &Value) -> Vec<(String, String)> {
    let text = |error: &Value, key: &str| error[key].as_str().unwrap().to_owned();
    let errors = problem["errors"].as_array().unwrap();
    let mut listed: Vec<_> = errors.iter().map(|error| (text(error, "pointer"), text(error, "code"))).collect();
    listed.sort();
    listed
}

fn picture() -> Value {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, 64, 64);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.write_header().unwrap().write_image_data(&[0; 64 * 64]).unwrap();
    STANDARD.encode(file).into()
}

#[tokio::test]
async fn every_mistake_is_exactly_one_error() {
    let api = TestApi::open(&[]).await;
    let picture = picture();
    let broken = json!("bm8gcGljdHVyZQ==");
    let canny = |more: Value| {
        let mut control = json!({"model": "emoji-canny", "image": picture});
        control.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"controls": [control]})
    };
    let cases: Vec<(Value, &[(&str, &str)])> = vec![
        (json!({"image": broken, "strength": 0.5}), &[("/image", "image_undecodable")]),
        (json!({"image": 7, "strength": 0.5, "mask": picture, "mask_blur": 3}), &[("/image", "wrong_type")]),
        (json!({"image": picture, "mask": broken, "mask_blur": 3}), &[("/mask", "image_undecodable")]),
        (json!({"image": broken, "strength": 2}), &[("/image", "image_undecodable"), ("/strength", "out_of_range")]),
        (json!({"image": picture, "steps": 0, "strength": 0.01}), &[("/steps", "out_of_range")]),
        (json!({"image": picture, "steps": 1, "strength": 7}), &[("/strength", "out_of_range")]),
        (json!({"mask": picture}), &[("/mask", "conflict")]),
        (canny(json!({"image": broken})), &[("/controls/0/image", "image_undecodable")]),
        (canny(json!({"image": null})), &[("/controls/0/image", "required")]),
        (canny(json!({"model": 7})), &[("/controls/0/model", "wrong_type")]),
        (canny(json!({"start": 2, "end": 0.5})), &[("/controls/0/start", "out_of_range")]),
        (canny(json!({"start": 0.5, "end": -1})), &[("/controls/0/end", "out_of_range")]),
        (json!({"controls": vec![json!({"model": 7, "image": broken}); 5]}), &[("/controls", "out_of_range")]),
        (json!({"loras": [{"name": 7}]}), &[("/loras/0/name", "wrong_type")]),
        (json!({"loras": [{"scale": 1}]}), &[("/loras/0/name", "required")]),
        (json!({"refiner": {"model": 7}}), &[("/refiner/model", "wrong_type")]),
        (json!({"refiner": {}}), &[("/refiner/model", "required")]),
        (json!({"model": 7, "width": 2048, "clip_skip": 4}), &[("/model", "wrong_type")]),
        (json!({"model": 7, "clip_skip": 99}), &[("/clip_skip", "out_of_range"), ("/model", "wrong_type")]),
        (json!({"width": 4096, "height": 2048}), &[("/width", "out_of_range")]),
        (json!({"scheduler": "x".repeat(200)}), &[("/scheduler", "out_of_range")]),
        (json!({"scheduler": {"time_shift_type": "x".repeat(200)}}), &[("/scheduler/time_shift_type", "out_of_range")]),
        (
            json!({"metadata": (0..17).map(|n| (n.to_string(), json!(n))).collect::<Map<_, _>>()}),
            &[("/metadata", "out_of_range")],
        ),
        (json!({"prompt": "<lora:none> <lora:none:0.5> <lora:none>"}), &[("/prompt", "unknown_lora")]),
    ];
    for (more, expected) in cases {
        let mut body = json!({"prompt": "a"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let expected: Vec<_> =
            expected.iter().map(|(pointer, code)| ((*pointer).to_owned(), (*code).to_owned())).collect();
        let shown: String = more.to_string().chars().take(120).collect();
        assert_eq!(errors(&api, &body).await, expected, "{shown}");
    }
}

#[tokio::test]
async fn a_list_of_errors_names_at_most_a_hundred() {
    let api = TestApi::open(&[]).await;
    let names: Map<String, Value> = (0..5_000).map(|n| (format!("{n:04}{}", "x".repeat(300)), json!(n))).collect();
    let refused = api.ask(post(&Value::Object(names), &[])).await;
    let problem = refused.json();
    let errors = problem["errors"].as_array().unwrap();
    assert_eq!((refused.status, errors.len()), (422, 101));
    assert_eq!((&errors[100]["code"], &errors[100]["pointer"]), (&json!("more_errors"), &json!("")));
    assert_eq!(errors[100]["detail"], "and 4901 more errors");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.starts_with(errors[0]["detail"].as_str().unwrap()), "{detail}");
    assert!(detail.ends_with(" (more than 99 more in errors)"), "{detail}");
    assert!(errors.iter().all(|error| error["pointer"].as_str().unwrap().len() < 80), "{problem}");
    assert!(refused.body.len() < 50_000, "{} bytes", refused.body.len());

    let unknown: Map<String, Value> =
        (0..200).map(|n| (n.to_string(), json!(n))).chain([("prompt".into(), json!("a"))]).collect();
    assert_eq!(api.ask(post(&Value::Object(unknown), &[])).await.json()["code"], "unknown_field");
}

#[tokio::test]
async fn the_number_of_values_and_fields_is_bounded() {
    let api = TestApi::open(&[]).await;
    let refused = api.ask(post(&json!({"prompt": "a", "sigmas": vec![json!([]); 20_000]}), &[])).await;
    assert_eq!((refused.status, refused.json()["code"].as_str()), (422, Some("validation_failed")));
    assert!(refused.json()["errors"][0]["detail"].as_str().unwrap().contains("at most 16384 values"));
    let form = |body: String| {
        let request = Request::post("/v1/images").header("content-type", "application/x-www-form-urlencoded");
        request.body(Body::from(body)).unwrap()
    };
    let refused = api.ask(form("a&".repeat(1_000_000))).await;
    assert_eq!((refused.status, refused.json()["code"].as_str()), (400, Some("malformed_form")));
    assert!(refused.json()["detail"].as_str().unwrap().contains("100 fields"), "{}", refused.text());
    let twice = api.ask(form("prompt=a&x&x&x&x".to_owned())).await.json();
    assert_eq!(
        listed(&twice),
        [("/x".to_owned(), "conflict".to_owned()), ("/x".to_owned(), "unknown_field".to_owned())]
    );
}

#[tokio::test]
async fn deeply_nested_values_are_refused() {
    let api = TestApi::open(&[]).await;
    let nested = |depth: usize| {
        (0..depth).fold(json!(0), |inner, n| if n % 2 == 0 { json!([inner]) } else { json!({"a": inner}) })
    };
    for name in ["x", "scheduler", "metadata", "image", "controls", "prompt", "refiner", "sigmas"] {
        let mut body = json!({"prompt": "a"});
        body[name] = json!({"trained_betas": nested(120)});
        assert_eq!(api.ask(post(&body, &[])).await.status, 422, "{name}");
    }
    let deep = format!("{{\"prompt\":{}", "[".repeat(1_000_000));
    let request =
        Request::post("/v1/images").header("content-type", "application/json").body(Body::from(deep)).unwrap();
    assert_eq!(api.ask(request).await.status, 400);
}

#[tokio::test]
async fn labels_of_a_form_are_kept_as_they_were_sent() {
    let api = TestApi::open(&[]).await;
    let body =
        "prompt=007&metadata[a]=007&metadata[b]=1.0&metadata[c]=true&metadata[d]=&metadata[e]=%20x%20&metadata[f]=null";
    for (kind, body) in [("application/x-www-form-urlencoded", body.to_owned()), multipart(body)] {
        let request = Request::post("/v1/images").header("content-type", kind).body(Body::from(body)).unwrap();
        let accepted = api.ask(request).await;
        assert_eq!(accepted.status, 202, "{}", accepted.text());
        let labels = json!({"a": "007", "b": "1.0", "c": "true", "d": "", "e": " x ", "f": "null"});
        assert_eq!(accepted.json()["metadata"], labels);
        assert_eq!(accepted.json()["params"]["prompt"], "007");
    }
}

fn multipart(form: &str) -> (&'static str, String) {
    let parts = form.split('&').map(|pair| {
        let (name, value) = pair.split_once('=').unwrap();
        let value = value.replace("%20", " ");
        format!("--f\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    });
    ("multipart/form-data; boundary=f", parts.collect::<String>() + "--f--\r\n")
}
