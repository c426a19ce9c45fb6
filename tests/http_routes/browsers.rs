//! Tests against hostile web pages: requests that a foreign page makes a browser send (CSRF), and reads under a foreign
//! host name (DNS rebinding).

use axum::{
    body::Body,
    http::{Method, Request},
};
use base64::Engine;
use latentd::http::{Route, operator_routes, public_routes};
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

/// Every operation of a listener that may change something, with an id in the place of each parameter.
fn changes(routes: Vec<Route>, id: &str) -> Vec<(Method, String)> {
    let is_change = |route: &Route| !matches!(route.method, Method::GET | Method::HEAD);
    let path = |route: &Route| {
        let part = |part: &str| if part.starts_with('{') { id.to_owned() } else { part.to_owned() };
        route.path.split('/').map(part).collect::<Vec<_>>().join("/")
    };
    routes.iter().filter(|route| is_change(route)).map(|route| (route.method.clone(), path(route))).collect()
}

#[tokio::test]
async fn every_change_of_both_listeners_is_refused_to_foreign_pages() {
    let api = TestApi::open(&[]).await;
    let id = api.create(json!({"prompt": "a red fox"})).await.to_string();
    let listeners = [(&api.public, changes(public_routes(), &id)), (&api.operator, changes(operator_routes(), &id))];
    for (router, changes) in listeners {
        assert!(changes.len() >= 5, "{changes:?}");
        for (method, path) in changes {
            for kind in [FORM, JSON, ("content-type", "text/plain")] {
                let headers = [LOCAL, ("origin", "https://evil.example"), kind];
                let answer = send(router, method.clone(), &path, &headers, "prompt=x").await;
                assert_eq!(answer.status, 403, "{method} {path}: {}", answer.text());
                assert!(answer.text().contains("foreign_origin") || answer.text().contains("evil.example"), "{path}");
            }
        }
    }
    assert_eq!(api.store.counts().await.unwrap().queued, 1);
}

const APP: (&str, &str) = ("origin", "https://app.example");
const LISTED: (&str, &str) = ("LATENTD_HTTP__CORS_ORIGINS", "https://app.example,http://localhost:3000");
const CROSS: (&str, &str) = ("sec-fetch-site", "cross-site");

#[tokio::test]
async fn pages_of_listed_origins_use_the_api_and_read_its_answers() {
    let api = TestApi::open(&[LISTED]).await;
    let answer = send(&api.public, Method::POST, "/v1/images", &[LOCAL, APP, CROSS, JSON], r#"{"prompt": "x"}"#).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    assert_eq!(answer.header("access-control-allow-origin"), APP.1);
    assert_eq!(answer.header("access-control-allow-credentials"), "true");
    let vary: Vec<_> = answer.headers.get_all("vary").iter().map(|value| value.to_str().unwrap()).collect();
    assert!(vary.join(",").contains("Origin") && vary.join(",").contains("Accept"), "{vary:?}");
    let exposed = answer.header("access-control-expose-headers").to_ascii_lowercase();
    for name in
        ["location", "retry-after", "etag", "latentd-generation-id", "latentd-seed", "latentd-warnings", "x-request-id"]
    {
        assert!(exposed.split(", ").any(|exposed| exposed == name), "{name} of {exposed}");
    }
    // Errors can be read, too.
    let answer = send(&api.public, Method::POST, "/v1/images", &[LOCAL, APP, CROSS, JSON], "{").await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (400, APP.1));

    for origin in ["https://evil.example", "https://app.example.evil.example", "http://app.example", "null"] {
        let answer =
            send(&api.public, Method::POST, "/v1/images", &[LOCAL, ("origin", origin), FORM], "prompt=x").await;
        refused(&answer, 403, "foreign_origin");
        let read = send(&api.public, Method::GET, "/v1/images", &[LOCAL, ("origin", origin)], "").await;
        assert_eq!((read.status, read.header("access-control-allow-origin")), (200, ""), "{origin}");
    }
    // The list concerns only the public listener, and only the origin: the host name is checked as before.
    let operator = send(&api.operator, Method::POST, "/admin/keys", &[LOCAL, APP, JSON], "{}").await;
    refused(&operator, 403, "foreign_origin");
    let rebound = send(&api.public, Method::GET, "/v1/images", &[("host", "evil.example"), APP], "").await;
    refused(&rebound, 421, "host_not_allowed");
}

#[tokio::test]
async fn preflights_of_listed_origins_are_answered() {
    let api = TestApi::open(&[LISTED]).await;
    let asks =
        [("access-control-request-method", "PUT"), ("access-control-request-headers", "authorization,x-stainless-os")];
    let preflight = async |origin: &str, host: &str| {
        let headers = [&[("host", host), ("origin", origin), CROSS], &asks[..]].concat();
        send(&api.public, Method::OPTIONS, "/v1/images/x", &headers, "").await
    };
    let answer = preflight("http://localhost:3000", "localhost:8080").await;
    assert_eq!(answer.status, 204);
    assert_eq!(answer.header("access-control-allow-origin"), "http://localhost:3000");
    assert_eq!(answer.header("access-control-allow-headers"), "authorization,x-stainless-os");
    assert!(answer.header("access-control-allow-methods").contains("PUT"));
    assert!(answer.header("access-control-max-age").parse::<u32>().unwrap() > 0);
    assert_eq!(preflight("https://evil.example", "localhost:8080").await.header("access-control-allow-methods"), "");
    refused(&preflight("http://localhost:3000", "evil.example").await, 421, "host_not_allowed");
}

#[tokio::test]
async fn a_star_admits_every_origin_but_no_stored_credentials() {
    let api = TestApi::open(&[("LATENTD_HTTP__CORS_ORIGINS", "*")]).await;
    let key = api.key("studio", 8).await;
    let basic =
        format!("Basic {}", base64::prelude::BASE64_STANDARD.encode(format!("user:{}", &key["Bearer ".len()..])));
    for (key, status) in [(key.as_str(), 202), (&basic, 403)] {
        let headers = [LOCAL, APP, CROSS, JSON, ("authorization", key)];
        let answer = send(&api.public, Method::POST, "/v1/images", &headers, r#"{"prompt": "x"}"#).await;
        assert_eq!(answer.status, status, "{}", answer.text());
        assert_eq!(answer.header("access-control-allow-origin"), "*");
        assert_eq!(answer.header("access-control-allow-credentials"), "");
    }
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
