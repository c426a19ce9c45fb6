//! Tests against hostile web pages: requests that a foreign page makes a browser send (CSRF), and reads under a foreign
//! host name (DNS rebinding).

use axum::{
    body::Body,
    http::{Method, Request},
};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::{
    api::{Answer, TestApi, read},
    conforms::assert_valid,
};

/// Sends a request to the router of a listener, without a check against the contract.
async fn send(router: &axum::Router, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let request = Request::builder().method(method).uri(path);
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    read(router.clone().oneshot(request.body(Body::from(body.to_owned())).unwrap()).await.unwrap()).await
}

fn refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status, answer.json()["code"].as_str()), (status, Some(code)), "{answer:?}");
    assert_valid(&json!({"$ref": "#/components/schemas/Problem"}), &answer.json(), "any", "any", status);
}

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
const JSON: (&str, &str) = ("content-type", "application/json");
const LOCAL: (&str, &str) = ("host", "localhost:8080");

#[tokio::test]
async fn requests_from_other_origins_change_nothing() {
    let api = TestApi::open(&[]).await;
    let id = api.create(json!({"prompt": "a red fox"})).await;
    let foreign = [
        &[LOCAL, ("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")][..],
        &[LOCAL, ("sec-fetch-site", "same-site"), ("origin", "http://localhost:3000")],
        &[LOCAL, ("origin", "https://evil.example")],
        &[LOCAL, ("origin", "null")],
        &[LOCAL, ("sec-fetch-site", "cross-site")],
    ];
    let image = format!("/v1/images/{id}");
    let changes = [
        (Method::POST, "/v1/images".to_owned(), FORM, "prompt=x"),
        (Method::POST, "/v1/images.png".to_owned(), FORM, "prompt=x"),
        (Method::POST, format!("{image}/cancel"), FORM, ""),
        (Method::POST, "/v1/webhook_endpoints".to_owned(), FORM, "url=https://evil.example"),
        (Method::PUT, image.clone(), JSON, "{}"),
        (Method::DELETE, image.clone(), FORM, ""),
    ];
    for headers in foreign {
        for (method, path, kind, body) in &changes {
            let answer = send(&api.public, method.clone(), path, &[headers, &[*kind]].concat(), body).await;
            refused(&answer, 403, "foreign_origin");
        }
        let operator = send(&api.operator, Method::POST, "/admin/keys", &[headers, &[JSON]].concat(), "{}").await;
        refused(&operator, 403, "foreign_origin");
    }
    assert_eq!(api.store.counts().await.unwrap().queued, 1, "no request canceled or created a generation");
    assert!(!api.store.has_keys().await.unwrap());
}

#[tokio::test]
async fn requests_of_the_servers_own_page_and_of_programs_are_accepted() {
    let api = TestApi::open(&[]).await;
    let own = [
        &[LOCAL][..],
        &[],
        &[LOCAL, ("sec-fetch-site", "same-origin"), ("origin", "http://localhost:8080")],
        &[LOCAL, ("origin", "http://localhost:8080")],
        // A proxy replaced the host name of the page with its own.
        &[("host", "127.0.0.1:8080"), ("sec-fetch-site", "same-origin"), ("origin", "https://images.example.com")],
        &[("host", "127.0.0.1:8080"), ("origin", "https://a.example"), ("x-forwarded-host", "a.example")],
    ];
    for headers in own {
        let headers = [headers, &[FORM]].concat();
        let answer = send(&api.public, Method::POST, "/v1/images", &headers, "prompt=x").await;
        assert_eq!(answer.status, 202, "{headers:?}: {}", answer.text());
    }
}

#[tokio::test]
async fn requests_with_a_foreign_host_are_refused() {
    let api = TestApi::open(&[("operator.bind", "0.0.0.0:9090")]).await;
    for host in ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example:8080"] {
        let headers = [("host", host)];
        for path in ["/", "/v1/images", "/v1/models", "/openapi.yaml", "/v1/nothing"] {
            let answer = send(&api.public, Method::GET, path, &headers, "").await;
            refused(&answer, 421, "host_not_allowed");
            assert!(answer.json()["detail"].as_str().unwrap().contains("http.allowed_hosts"), "{answer:?}");
        }
        for path in ["/admin/generations", "/admin/workers"] {
            let answer = send(&api.operator, Method::GET, path, &headers, "").await;
            refused(&answer, 421, "host_not_allowed");
            assert!(answer.json()["detail"].as_str().unwrap().contains("operator.allowed_hosts"), "{answer:?}");
        }
        for path in ["/health", "/healthz"] {
            assert_eq!(send(&api.public, Method::GET, path, &headers, "").await.status, 200, "{path}");
        }
        for (path, status) in [("/livez", 200), ("/readyz", 503), ("/startupz", 503), ("/metrics", 200)] {
            assert_eq!(send(&api.operator, Method::GET, path, &headers, "").await.status, status, "{path}");
        }
    }
    for host in ["localhost", "127.0.0.1:8080", "192.168.1.7", "[::1]:8080"] {
        assert_eq!(send(&api.public, Method::GET, "/v1/images", &[("host", host)], "").await.status, 200, "{host}");
    }
    for host in
        ["evil.example@127.0.0.1", "localhost:abc", "localhost:", "[127.0.0.1]", "localhost/x", "127.0.0.1:80:80"]
    {
        for open in ["127.0.0.1:8080", "0.0.0.0:8080"] {
            let api = TestApi::open(&[("http.bind", open)]).await;
            let answer = send(&api.public, Method::GET, "/v1/images", &[("host", host)], "").await;
            refused(&answer, 400, "bad_header");
            let detail = answer.json()["detail"].as_str().unwrap().to_owned();
            assert!(detail.contains("Host must be HOST or HOST:PORT") && detail.contains(host), "{detail}");
        }
    }
    // HTTP/2 has the host name in the URI.
    let answer = send(&api.public, Method::GET, "http://evil.example/v1/images", &[], "").await;
    refused(&answer, 421, "host_not_allowed");
}

#[tokio::test]
async fn a_server_that_listens_on_all_addresses_accepts_any_host_except_for_the_operator() {
    let named = TestApi::open(&[("http.bind", "0.0.0.0:8080")]).await;
    let host = [("host", "images.example.com")];
    assert_eq!(send(&named.public, Method::GET, "/v1/images", &host, "").await.status, 200);
    assert_eq!(send(&named.operator, Method::GET, "/admin/workers", &host, "").await.status, 421);
}

#[tokio::test]
async fn operator_routes_refuse_the_media_types_of_html_forms() {
    let api = TestApi::open(&[]).await;
    let id = api.create(json!({"prompt": "a red fox"})).await;
    let kill = format!("/admin/generations/{id}/kill");
    for kind in ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain", ""] {
        for path in ["/admin/keys", "/admin/workers/one/drain", "/admin/workers/one/undrain", &kill] {
            let answer = send(&api.operator, Method::POST, path, &[LOCAL, ("content-type", kind)], "tenant=evil").await;
            refused(&answer, 415, "unsupported_media_type");
        }
    }
    assert!(!api.store.has_keys().await.unwrap());
    let made = api.operate(Method::POST, "/admin/keys", json!({"tenant": "studio"})).await;
    assert_eq!(made.status, 201);
    assert_eq!(api.operate(Method::POST, &kill, Value::Null).await.status, 200);
}
