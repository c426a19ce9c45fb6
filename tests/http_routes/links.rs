//! Tests of links: as paths, and absolute behind a proxy; and of the names of picture files.

use axum::{body::Body, http::Request};
use serde_json::{Value, json};

use crate::{
    PNG,
    api::{Answer, TestApi, post},
};

async fn get(api: &TestApi, path: &str, headers: &[(&str, &str)]) -> Answer {
    let request = headers.iter().fold(Request::get(path), |request, (name, value)| request.header(*name, *value));
    api.ask(request.body(Body::empty()).unwrap()).await
}

/// All links of a generation, its picture and its `Location`.
fn links(answer: &Answer) -> Vec<String> {
    let object: Value = answer.json();
    let links = object["links"]
        .as_object()
        .unwrap()
        .iter()
        .filter(|(name, _)| !name.ends_with("_expires_at"))
        .map(|(_, link)| link)
        .chain(object["images"].as_array().unwrap().iter().map(|image| &image["url"]));
    let links = links.map(|link| link.as_str().unwrap().to_owned());
    let location = Some(answer.header("location").to_owned()).filter(|location| !location.is_empty());
    links.chain(location).collect()
}

async fn all_begin_with(api: &TestApi, headers: &[(&str, &str)], base: &str) {
    let created = api.ask(post(&json!({"prompt": "a red fox"}), headers)).await;
    let id = created.json()["id"].as_str().unwrap().to_owned();
    let own = format!("{base}/v1/images/{id}");
    assert_eq!((created.status, links(&created).len()), (202, 5));
    api.succeed(api.begin().await, PNG).await;
    let read = get(api, &format!("/v1/images/{id}"), headers).await;
    assert_eq!(links(&read).len(), 5);
    for link in links(&created).iter().chain(&links(&read)) {
        assert!(link == &own || link.starts_with(&format!("{own}/")), "{link} begins with {own}");
    }
    let listed = get(api, "/v1/images?limit=1", headers).await;
    assert!(listed.json()["data"][0]["links"]["self"] == own, "{}", listed.text());
    assert_eq!(listed.json()["links"], json!({"events": format!("{base}/v1/events"), "events_expires_at": null}));
    let page = listed.header("link");
    assert!(page.is_empty() || page.starts_with(&format!("<{base}/v1/images?")), "{page}");
    let events = get(api, &format!("/v1/images/{id}/events"), headers).await;
    assert!(events.text().contains(&format!("\"self\":\"{own}\"")), "{}", events.text());
}

#[tokio::test]
async fn links_are_paths_without_a_proxy() {
    let api = TestApi::open(&[]).await;
    all_begin_with(&api, &[("host", "localhost:8080")], "").await;
}

#[tokio::test]
async fn links_begin_with_the_address_that_a_proxy_tells() {
    let api = TestApi::open(&[]).await;
    let old =
        [("x-forwarded-host", "images.example.com"), ("x-forwarded-proto", "https"), ("x-forwarded-prefix", "/ai")];
    all_begin_with(&api, &old, "https://images.example.com/ai").await;
    let standard = [("forwarded", "for=192.0.2.1;proto=https;host=\"images.example.com:8443\"")];
    all_begin_with(&api, &standard, "https://images.example.com:8443").await;
    let untrusting = TestApi::open(&[("http.trust_forwarded", "false")]).await;
    all_begin_with(&untrusting, &old, "").await;
}

#[tokio::test]
async fn links_begin_with_the_address_in_the_settings() {
    let api = TestApi::open(&[("http.public_url", "https://images.example.com/")]).await;
    all_begin_with(&api, &[("host", "localhost"), ("x-forwarded-host", "other.example")], "https://images.example.com")
        .await;
    // The operator's listener has another port, so its links lead to the public listener.
    let operator = api.operate(axum::http::Method::GET, "/admin/generations", Value::Null).await.json();
    let link = operator["data"][0]["links"]["self"].as_str().unwrap();
    assert!(link.starts_with("https://images.example.com/v1/images/"), "{link}");
    // Errors have the address too.
    let id = api.create(json!({"prompt": "a red fox"})).await;
    let headers = [("accept", "image/png"), ("prefer", "wait=1")];
    let late = api.ask(post(&json!({"prompt": "a red fox"}), &headers)).await;
    assert_eq!(late.status, 504, "{}", late.text());
    assert!(late.header("location").starts_with("https://images.example.com/v1/images/img_"), "{id}");
}

#[tokio::test]
async fn pictures_have_names() {
    let api = TestApi::open(&[]).await;
    for (body, expected) in [
        (json!({"prompt": "a red fox, \"quoted\""}), "inline; filename=\"a-red-fox-quoted-7.png\""),
        (json!({"prompt": "Bär 狐"}), "inline; filename=\"B_r-_-7.png\"; filename*=UTF-8''B%C3%A4r-%E7%8B%90-7.png"),
        (json!({"prompt": ""}), "inline; filename=\"picture-7.png\""),
    ] {
        let id = api.create(body).await;
        api.succeed(api.begin().await, PNG).await;
        let answer = api.get(&format!("/v1/images/{id}/content/0")).await;
        assert_eq!(answer.header("content-disposition"), expected);
        let part = api.get_with(&format!("/v1/images/{id}/content/0"), "range", "bytes=0-7").await;
        assert_eq!((part.status, part.header("content-disposition")), (206, expected));
    }
    // The prompt is not in the file, so it is not in the name either.
    let id = api.create(json!({"prompt": "a secret", "output": {"metadata": "none"}})).await;
    api.succeed(api.begin().await, PNG).await;
    let answer = api.get(&format!("/v1/images/{id}/content/0")).await;
    assert_eq!(answer.header("content-disposition"), format!("inline; filename=\"{id}-7.png\""));
}
