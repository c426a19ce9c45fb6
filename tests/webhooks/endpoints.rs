//! Tests of the routes of webhook endpoints with the real server. Every answer is checked against the contract.

use serde_json::{Value, json};

use crate::{conforms::assert_conforms, harness::Server};

async fn server(data: &std::path::Path, more: &[(&str, &str)]) -> Server {
    let mut settings = vec![("LATENTD_WEBHOOKS__ALLOW_HOSTS", "10.0.0.0/8")];
    settings.extend_from_slice(more);
    Server::start(data, &settings).await
}

async fn call(server: &Server, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
    let request = server.client.request(method.parse().unwrap(), server.url(path));
    let request = match &body {
        Some(body) => request.json(body),
        None => request,
    };
    let answer = request.send().await.unwrap();
    let location = answer.headers().get("location").map(|place| place.to_str().unwrap().to_owned());
    let (status, bytes) = (answer.status().as_u16(), answer.bytes().await.unwrap());
    assert_conforms(method, path, status, &bytes);
    let value: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    if status == 201 {
        assert_eq!(location.unwrap(), format!("{path}/{}", value["id"].as_str().unwrap()));
    }
    (status, value)
}

#[tokio::test]
async fn an_endpoint_is_registered_read_replaced_and_deleted() {
    let data = tempfile::tempdir().unwrap();
    let server = server(data.path(), &[]).await;
    let all = "/v1/webhook_endpoints";
    let (status, created) = call(&server, "POST", all, Some(json!({"url": "https://10.0.0.1/a"}))).await;
    assert_eq!(status, 201);
    assert!(created["secret"].as_str().unwrap().starts_with("whsec_"));
    assert_eq!((&created["status"], &created["events"]), (&json!("enabled"), &json!(["completed"])));
    let one = format!("{all}/{}", created["id"].as_str().unwrap());

    let (status, read) = call(&server, "GET", &one, None).await;
    assert_eq!(status, 200);
    assert!(read.get("secret").is_none(), "a secret is shown once");
    assert_eq!(read["url"], "https://10.0.0.1/a");
    let (_, list) = call(&server, "GET", all, None).await;
    assert_eq!(list["data"], json!([read]));

    let terms = json!({"url": "https://10.0.0.2:8443/b", "events": ["completed", "started"], "description": "mine",
        "enabled": false});
    let (status, replaced) = call(&server, "PUT", &one, Some(terms)).await;
    assert_eq!(status, 200);
    assert_eq!((&replaced["status"], &replaced["description"]), (&json!("disabled"), &json!("mine")));
    assert_eq!(replaced["events"], json!(["started", "completed"]));
    assert!(replaced.get("secret").is_none());
    // Omitted fields get their defaults.
    let (_, replaced) = call(&server, "PUT", &one, Some(json!({"url": "https://10.0.0.2/"}))).await;
    assert_eq!((&replaced["status"], &replaced["description"]), (&json!("enabled"), &json!("")));

    assert_eq!(call(&server, "DELETE", &one, None).await.0, 204);
    for (method, path, body) in [
        ("GET", one.clone(), None),
        ("DELETE", one.clone(), None),
        ("PUT", one.clone(), Some(json!({"url": "https://10.0.0.2/"}))),
        ("POST", format!("{one}/rotate"), None),
        ("GET", format!("{one}/deliveries"), None),
        ("GET", format!("{all}/whe_x"), None),
        ("POST", format!("{one}/deliveries/msg_x/retry"), None),
        ("POST", format!("{one}/deliveries/{}/retry", latentd::generation::DeliveryId::new()), None),
    ] {
        assert_eq!(call(&server, method, &path, body).await.0, 404, "{method} {path}");
    }
    let refused = json!({"prompt": "x", "webhook": {"endpoint": created["id"]}});
    let (status, problem) = call(&server, "POST", "/v1/images", Some(refused)).await;
    assert_eq!((status, &problem["errors"][0]["pointer"]), (422, &json!("/webhook/endpoint")));
}

#[tokio::test]
async fn every_bad_field_is_named_with_its_bound() {
    let data = tempfile::tempdir().unwrap();
    let server = server(data.path(), &[("LATENTD_WEBHOOKS__MAX_ENDPOINTS", "2")]).await;
    let all = "/v1/webhook_endpoints";
    let bad = json!({"url": "http://10.0.0.1/", "events": ["ended"], "description": "x".repeat(300), "enabled": 1,
        "color": "red"});
    let (status, problem) = call(&server, "POST", all, Some(bad)).await;
    assert_eq!(status, 422);
    let mut named: Vec<&str> =
        problem["errors"].as_array().unwrap().iter().map(|error| error["pointer"].as_str().unwrap()).collect();
    named.sort_unstable();
    assert_eq!(named, ["/color", "/description", "/enabled", "/events/0", "/url"]);
    assert_eq!(call(&server, "POST", all, Some(json!({}))).await.1["errors"][0]["pointer"], "/url");

    for _ in 0..2 {
        assert_eq!(call(&server, "POST", all, Some(json!({"url": "https://10.0.0.1/"}))).await.0, 201);
    }
    let (status, problem) = call(&server, "POST", all, Some(json!({"url": "https://10.0.0.1/"}))).await;
    assert_eq!((status, &problem["code"]), (409, &json!("webhook_endpoints_full")));
    assert!(problem["detail"].as_str().unwrap().contains("at most 2"), "{problem}");

    // Without `webhooks.secret` in the settings, a request cannot name an address.
    let own = json!({"prompt": "x", "steps": 0, "webhook": {"url": "https://10.0.0.1/"}});
    let (status, problem) = call(&server, "POST", "/v1/images", Some(own)).await;
    assert_eq!(status, 422);
    let errors = problem["errors"].as_array().unwrap();
    let about = |pointer: &str| errors.iter().find(|error| error["pointer"] == pointer).expect(pointer);
    assert!(about("/webhook/url")["detail"].as_str().unwrap().contains("webhooks.secret"), "{problem}");
    about("/steps");
    let (status, problem) =
        call(&server, "GET", &format!("{all}/{}/deliveries?limit=0", latentd::generation::EndpointId::new()), None)
            .await;
    assert_eq!((status, &problem["errors"][0]["pointer"]), (422, &json!("/limit")));
}
