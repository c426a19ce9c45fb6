//! Tests of the catalogues, the page, the health and metrics routes, and unknown paths and methods.

use axum::{
    body::Body,
    http::{Method, Request},
};
use latentd::http::public_routes;
use serde_json::{Value, json};

use crate::api::{TestApi, read};

#[tokio::test]
async fn the_lists_of_models_and_schedulers_and_the_queue_are_served() {
    let api = TestApi::open(&[("limits.max_images", "3")]).await;
    let models = api.get("/v1/models").await.json();
    let emoji = &models["data"][0];
    assert_eq!((emoji["id"].as_str(), emoji["default"].as_bool()), (Some("emoji"), Some(true)));
    assert_eq!(emoji["capabilities"]["max_images"], 3);
    assert_eq!(&api.get("/v1/models/emoji").await.json(), emoji);
    assert_eq!(api.get("/v1/models/none").await.status, 404);
    let schedulers = api.get("/v1/schedulers").await.json();
    let names: Vec<_> = schedulers["data"].as_array().unwrap().iter().map(|one| one["name"].clone()).collect();
    assert_eq!(emoji["capabilities"]["schedulers"], Value::Array(names));
    api.create(json!({"prompt": "a red fox"})).await;
    let queue = api.get("/v1/queue").await.json();
    assert_eq!((queue["queued"].as_u64(), queue["running"].as_u64()), (Some(1), Some(0)));
    assert_eq!(queue["own"], json!({"queued": 1, "running": 0}));
}

#[tokio::test]
async fn the_contract_is_served_as_yaml_and_json() {
    let api = TestApi::open(&[]).await;
    let yaml: Value = serde_yaml_ng::from_str(api.get("/openapi.yaml").await.text()).unwrap();
    assert_eq!(api.get("/openapi.json").await.json(), yaml);
}

#[tokio::test]
async fn the_pages_load_only_their_own_files() {
    let api = TestApi::open(&[]).await;
    for path in ["/", "/docs"] {
        loads_only_its_own_files(&api, path).await;
    }
}

async fn loads_only_its_own_files(api: &TestApi, path: &str) {
    let page = api.get(path).await;
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    let policy = page.header("content-security-policy");
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(page.header("cache-control"), "no-cache");
    assert_eq!(api.get_with(path, "if-none-match", page.header("etag")).await.status, 304);
    for line in page.text().lines() {
        assert!(!line.contains("style=") && !line.contains("<style") && !line.contains(" onclick="), "{line}");
    }
    for part in page.text().split(['"', '\'']).filter(|part| part.ends_with(".js") || part.ends_with(".css")) {
        let path = format!("/{}", part.trim_start_matches(['.', '/']));
        let answer = read(api.send(Request::get(&path).body(Body::empty()).unwrap()).await).await;
        let kind = if path.ends_with("js") { "text/javascript; charset=utf-8" } else { "text/css; charset=utf-8" };
        assert_eq!((answer.status, answer.header("content-type")), (200, kind), "{path}");
    }
}

#[tokio::test]
async fn every_route_allows_exactly_its_methods() {
    let api = TestApi::open(&[]).await;
    // Ends the stream of /v1/events, which has no end of its own.
    api.draining.cancel();
    let table = public_routes();
    for path in table.iter().map(|end| end.path) {
        let concrete = path.replace("{id}", "img_00000000000000000000000000").replace("{n}", "0");
        let known: Vec<_> = table.iter().filter(|end| end.path == path).map(|end| &end.method).collect();
        for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS] {
            let answer = api.act(method.clone(), &concrete).await;
            assert_eq!(answer.status != 405, known.contains(&&method), "{method} {path} → {}", answer.status);
            if answer.status == 405 {
                assert!(known.iter().all(|known| answer.header("allow").contains(known.as_str())), "{method} {path}");
                // Each protocol has its own form of errors.
                assert!(answer.text().contains("method_not_allowed"), "{method} {path} → {}", answer.text());
            }
        }
    }
}

#[tokio::test]
async fn paths_of_other_interfaces_are_not_found_whatever_their_method() {
    let api = TestApi::open(&[]).await;
    for (method, path) in
        [(Method::POST, "/v1/images/x"), (Method::PATCH, "/v1/images/x"), (Method::POST, "/v1/chat/completions")]
    {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        let answer = read(api.send(request).await).await;
        assert_eq!((answer.status, answer.json()["code"].as_str()), (404, Some("not_found")), "{path}");
    }
}

#[tokio::test]
async fn other_paths_are_not_found() {
    let api = TestApi::open(&[]).await;
    for path in [
        "/v1",
        "/v1/",
        "/v1/nothing",
        "/v1/images/",
        "/v1/images/x",
        "/index.html.bak",
        "/../Cargo.toml",
        "/%2e%2e/Cargo.toml",
        "/metrics",
        "/readyz",
        "//",
    ] {
        let answer = read(api.send(Request::get(path).body(Body::empty()).unwrap()).await).await;
        assert_eq!((answer.status, answer.json()["code"].as_str()), (404, Some("not_found")), "{path}");
        assert_eq!(answer.json()["instance"], path);
    }
}

#[tokio::test]
async fn the_operator_listener_serves_liveness_readiness_and_metrics() {
    let api = TestApi::open(&[]).await;
    api.get("/v1/nothing").await;
    api.get("/v1/images/x").await;
    let ask = async |path: &str| api.operate(Method::GET, path, Value::Null).await;
    assert_eq!(ask("/livez").await.status, 200);
    let unready = ask("/readyz").await;
    assert_eq!(unready.status, 503);
    assert_eq!(unready.json()["reasons"], json!(["model emoji: cold"]), "no test has loaded the model");
    let unstarted = ask("/startupz").await;
    assert_eq!((unstarted.status, &unstarted.json()["reasons"]), (503, &json!(["model emoji: cold"])));
    let metrics = ask("/metrics").await;
    assert_eq!(metrics.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    for line in [
        "latentd_http_requests_total{method=\"GET\",route=\"none\",status=\"404\"} 1",
        "latentd_http_requests_total{method=\"GET\",route=\"/v1/images/{id}\",status=\"404\"} 1",
        "latentd_requests_refused_total{code=\"not_found\"} 2",
    ] {
        assert!(metrics.text().contains(line), "{line} is not in {}", metrics.text());
    }
    let public = Request::get("/v1/models").body(Body::empty()).unwrap();
    assert_eq!(read(tower::ServiceExt::oneshot(api.operator.clone(), public).await.unwrap()).await.status, 404);
}
