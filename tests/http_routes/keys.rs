//! Tests of API keys: what each may do and how much, and how the operator manages them.

use std::time::Duration;

use axum::{
    body::Body,
    http::{Method, Request},
};
use futures::StreamExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::{
    PNG,
    api::{Answer, TestApi, post, read},
    conforms::assert_conforms,
    read::preview,
};

const GET: Method = Method::GET;
const POST: Method = Method::POST;

fn fox() -> Value {
    json!({"prompt": "a red fox"})
}

/// Creates a key of the tenant `studio` with these terms; returns its id and the value of `Authorization`.
async fn create(api: &TestApi, terms: Value) -> (String, String) {
    let mut fields = terms;
    fields["tenant"] = "studio".into();
    let made = api.operate(POST, "/admin/keys", fields).await;
    assert_eq!(made.status, 201, "{}", made.text());
    (made.json()["id"].as_str().unwrap().to_owned(), bearer(&made))
}

fn bearer(made: &Answer) -> String {
    format!("Bearer {}", made.json()["key"].as_str().unwrap())
}

async fn ask(api: &TestApi, method: Method, path: &str, key: &str) -> Answer {
    let request = Request::builder().method(method).uri(path).header("authorization", key);
    api.ask(request.body(Body::empty()).unwrap()).await
}

async fn draw(api: &TestApi, body: &Value, key: &str) -> Answer {
    api.ask(post(body, &[("authorization", key)])).await
}

fn refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status, answer.json()["code"].as_str()), (status, Some(code)), "{}", answer.text());
}

#[tokio::test]
async fn a_key_is_listed_without_its_secret_until_it_is_revoked_and_afterwards() {
    let api = TestApi::open(&[]).await;
    let terms = json!({"name": "web shop", "scopes": ["read"], "models": ["emoji"], "max_priority": "low",
                       "rate_limit": 9, "max_cost_per_day": 7, "expires_in_s": 60});
    let (id, key) = create(&api, terms).await;
    let (other, _) = create(&api, json!({})).await;
    let list = api.operate(GET, "/admin/keys", Value::Null).await;
    assert!(!list.text().contains(key.split('_').nth(2).unwrap()));
    let listed = |list: &Answer, id: &str| {
        let list = list.json();
        list["data"].as_array().unwrap().iter().find(|key| key["id"] == id).unwrap().clone()
    };
    let seen = listed(&list, &id);
    assert_eq!(
        (&seen["name"], &seen["scopes"], &seen["models"]),
        (&json!("web shop"), &json!(["read"]), &json!(["emoji"]))
    );
    assert_eq!(
        (&seen["rate_limit"], &seen["rate_window_s"], &seen["max_cost_per_day"]),
        (&json!(9), &json!(60), &json!(7))
    );
    assert_eq!((&seen["max_priority"], &seen["last_used_at"]), (&json!("low"), &json!(null)));
    assert!(seen["expires_at"].as_str() > seen["created_at"].as_str() && seen["revoked_at"].is_null());
    assert_eq!(listed(&list, &other)["scopes"], json!(["generate", "read"]));

    assert_eq!(ask(&api, GET, "/v1/images", &key).await.status, 200);
    api.afterwork.close();
    api.afterwork.wait().await;
    api.afterwork.reopen();
    let list = api.operate(GET, "/admin/keys?tenant=studio", Value::Null).await;
    assert!(listed(&list, &id)["last_used_at"].is_string());

    let revoked = api.operate(POST, &format!("/admin/keys/{id}/revoke"), Value::Null).await;
    assert_eq!(revoked.status, 200);
    refused(&ask(&api, GET, "/v1/images", &key).await, 401, "invalid_key");
    let list = api.operate(GET, "/admin/keys", Value::Null).await;
    assert_eq!(listed(&list, &id)["revoked_at"], revoked.json()["revoked_at"]);
    refused(&api.operate(POST, &format!("/admin/keys/{id}/rotate"), json!({})).await, 409, "key_revoked");
    for unknown in ["none", "%00", "a%20b", "a%2Fb"] {
        for (action, body) in [("revoke", Value::Null), ("rotate", json!({}))] {
            refused(&api.operate(POST, &format!("/admin/keys/{unknown}/{action}"), body).await, 404, "not_found");
        }
    }
}

#[tokio::test]
async fn the_list_of_keys_has_pages() {
    let api = TestApi::open(&[]).await;
    for _ in 0..3 {
        create(&api, json!({})).await;
    }
    let first = api.operate(GET, "/admin/keys?limit=2&tenant=studio", Value::Null).await;
    let next = first.header("link").trim_start_matches('<').split('>').next().unwrap().to_owned();
    let second = api.operate(GET, &next, Value::Null).await;
    let (first, second) = (first.json(), second.json());
    assert_eq!((first["data"].as_array().unwrap().len(), first["has_more"].as_bool()), (2, Some(true)));
    assert_eq!((second["data"].as_array().unwrap().len(), second["has_more"].as_bool()), (1, Some(false)));
    assert!(first["last_id"].as_str() < second["first_id"].as_str());
    let none = api.operate(GET, "/admin/keys?tenant=other", Value::Null).await.json();
    assert_eq!(none["data"], json!([]));
    let bad = api.operate(GET, "/admin/keys?limit=0&color=red", Value::Null).await;
    assert_eq!((bad.status, bad.json()["errors"].as_array().unwrap().len()), (422, 2));
}

#[tokio::test]
async fn a_rotated_key_has_a_new_secret_and_its_old_one_for_the_grace() {
    let api = TestApi::open(&[]).await;
    let (id, first) = create(&api, json!({"rate_limit": 2, "rate_window_s": 3600})).await;
    assert_eq!(draw(&api, &fox(), &first).await.status, 202);
    let rotate = async |body: Value| api.operate(POST, &format!("/admin/keys/{id}/rotate"), body).await;
    let rotated = rotate(json!({"grace_s": 3600})).await;
    assert_eq!((rotated.status, rotated.header("cache-control")), (200, "no-store"));
    assert!(rotated.json()["old_key_expires_at"].is_string());
    let second = bearer(&rotated);
    assert!(second != first && second.contains(&id));
    for key in [&first, &second] {
        assert_eq!(ask(&api, GET, "/v1/images", key).await.status, 200);
    }
    // The old secret and the new one use up the same limit.
    assert_eq!(draw(&api, &fox(), &second).await.status, 202);
    refused(&draw(&api, &fox(), &first).await, 429, "rate_limited");
    let third = bearer(&rotate(json!({})).await);
    for old in [&first, &second] {
        refused(&ask(&api, GET, "/v1/images", old).await, 401, "invalid_key");
    }
    assert_eq!(ask(&api, GET, "/v1/images", &third).await.status, 200);
    let bad = rotate(json!({"grace_s": 2_592_001, "color": "red"})).await;
    assert_eq!((bad.status, bad.json()["errors"].as_array().unwrap().len()), (422, 2));
}

#[tokio::test]
async fn a_key_that_has_expired_is_refused() {
    let api = TestApi::open(&[]).await;
    let (_, key) = create(&api, json!({"expires_in_s": 1})).await;
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while ask(&api, GET, "/v1/images", &key).await.status == 200 {
        assert!(std::time::Instant::now() < deadline, "the key does not expire");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    refused(&ask(&api, GET, "/v1/images", &key).await, 401, "key_expired");
    refused(&draw(&api, &fox(), &key).await, 401, "key_expired");
}

#[tokio::test]
async fn scopes_decide_which_methods_a_key_may_use() {
    let api = TestApi::open(&[]).await;
    let (_, reads) = create(&api, json!({"scopes": ["read"]})).await;
    let (_, draws) = create(&api, json!({"scopes": ["generate"]})).await;
    let created = draw(&api, &fox(), &draws).await;
    assert_eq!(created.status, 202);
    let path = format!("/v1/images/{}", created.json()["id"].as_str().unwrap());
    for path in [&*path, "/v1/images", "/v1/models", "/v1/usage", "/v1/queue", "/v1/webhook_endpoints"] {
        assert_eq!(ask(&api, GET, path, &reads).await.status, 200, "{path}");
        refused(&ask(&api, GET, path, &draws).await, 403, "scope_missing");
    }
    refused(&draw(&api, &fox(), &reads).await, 403, "scope_missing");
    for (method, path) in [(POST, format!("{path}/cancel")), (Method::DELETE, path.clone())] {
        refused(&ask(&api, method, &path, &reads).await, 403, "scope_missing");
    }
    for path in ["/v1/images/generations", "/sdapi/v1/txt2img"] {
        let request = Request::post(path).header("authorization", &reads).header("content-type", "application/json");
        let answer = api.ask(request.body(Body::from(fox().to_string())).unwrap()).await;
        assert_eq!(answer.status, 403, "{}", answer.text());
        assert!(answer.text().contains("scope_missing"), "{}", answer.text());
    }
    assert_eq!(ask(&api, POST, &format!("{path}/cancel"), &draws).await.status, 200);
}

#[tokio::test]
async fn a_key_uses_only_its_models_and_priorities() {
    let api = TestApi::open(&[]).await;
    let (_, other) = create(&api, json!({"models": ["large", "org/huge"]})).await;
    for body in [fox(), json!({"prompt": "a red fox", "model": "emoji"})] {
        let answer = draw(&api, &body, &other).await;
        refused(&answer, 403, "model_forbidden");
        assert!(answer.json()["detail"].as_str().unwrap().contains("large, org/huge"), "{}", answer.text());
    }
    for (path, list) in [("/v1/models", "/data"), ("/sdapi/v1/sd-models", ""), ("/api/tags", "/models")] {
        let models = ask(&api, GET, path, &other).await.json();
        assert_eq!(models.pointer(list).unwrap(), &json!([]), "{path}: emoji is not among the key's models");
    }
    let (_, low) = create(&api, json!({"models": ["emoji"], "max_priority": "low"})).await;
    let (_, normal) = create(&api, json!({"max_priority": "normal"})).await;
    for (key, asked, got) in
        [(&low, "high", "low"), (&low, "low", "low"), (&normal, "high", "normal"), (&normal, "low", "low")]
    {
        let created = draw(&api, &json!({"prompt": "a red fox", "priority": asked}), key).await;
        assert_eq!((created.status, created.json()["priority"].as_str()), (202, Some(got)));
    }
    assert_eq!(draw(&api, &fox(), &low).await.json()["priority"], "low", "also without a wish");
}

/// The numbers `r` of a policy in `RateLimit`.
fn left(answer: &Answer, policy: &str) -> Option<u64> {
    let item =
        answer.header("ratelimit").split(", ").find_map(|item| item.strip_prefix(&format!("\"{policy}\";r=")))?;
    item.split(';').next().unwrap().parse().ok()
}

#[tokio::test]
async fn answers_say_what_is_left_of_a_rate_limit() {
    let api = TestApi::open(&[]).await;
    let (_, key) = create(&api, json!({"rate_limit": 4, "rate_window_s": 3600})).await;
    assert_eq!(ask(&api, GET, "/v1/models", &key).await.header("ratelimit-policy"), "", "reading is free");
    let first = api.ask(post(&fox(), &[("authorization", &key), ("idempotency-key", "first")])).await;
    assert_eq!(first.header("ratelimit-policy"), "\"rate\";q=4;w=3600");
    assert_eq!(first.header("ratelimit"), "\"rate\";r=3;t=3600");
    let again = api.ask(post(&fox(), &[("authorization", &key), ("idempotency-key", "first")])).await;
    assert_eq!((again.status, left(&again, "rate")), (202, None), "a repeated request is free");
    let invalid = draw(&api, &json!({"prompt": "a red fox", "steps": 0}), &key).await;
    assert_eq!(invalid.status, 422);
    let second = draw(&api, &fox(), &key).await;
    assert_eq!(left(&second, "rate"), Some(2), "an invalid request was free");

    // Other protocols use up the same limit and say so too. Their answers wait for the pictures.
    for _ in 0..2 {
        api.succeed(api.begin().await, PNG).await;
    }
    for (path, remaining) in [("/v1/images/generations", 1), ("/sdapi/v1/txt2img", 0)] {
        let request = Request::post(path).header("authorization", &key).header("content-type", "application/json");
        let asking = api.ask(request.body(Body::from(fox().to_string())).unwrap());
        let (answer, ()) = tokio::join!(asking, async { api.succeed(api.begin_next().await, PNG).await });
        assert_eq!((answer.status, left(&answer, "rate")), (200, Some(remaining)), "{path}");
    }
    let limited = draw(&api, &fox(), &key).await;
    refused(&limited, 429, "rate_limited");
    let problem = limited.json();
    assert_eq!(problem["type"], "https://iana.org/assignments/http-problem-types#quota-exceeded");
    assert_eq!((&problem["violated-policies"], left(&limited, "rate")), (&json!(["rate"]), Some(0)));
    let after: u64 = limited.header("retry-after").parse().unwrap();
    let reset: u64 = limited.header("ratelimit").rsplit_once("t=").unwrap().1.parse().unwrap();
    assert!(after >= reset && after <= 3600 && after > 3000, "{after} {reset}");
}

#[tokio::test]
async fn a_quota_bounds_the_work_of_a_day() {
    let api = TestApi::open(&[]).await;
    let (_, free) = create(&api, json!({})).await;
    draw(&api, &fox(), &free).await;
    let usage = ask(&api, GET, "/v1/usage", &free).await.json();
    let cost = usage["data"][0]["key"]["cost"].as_f64().unwrap();
    assert!(cost > 1.0, "{usage}");

    let (id, key) = create(&api, json!({"max_cost_per_day": (2.5 * cost) as u64})).await;
    for remaining in [1.5, 0.5] {
        let created = draw(&api, &fox(), &key).await;
        let left = left(&created, "day").unwrap() as f64;
        assert!((left - remaining * cost).abs() <= 2.0, "{left} of {cost}");
    }
    let refused_one = draw(&api, &fox(), &key).await;
    refused(&refused_one, 429, "quota_exceeded");
    assert_eq!(refused_one.json()["violated-policies"], json!(["day"]));
    let after: u64 = refused_one.header("retry-after").parse().unwrap();
    assert!((1..=86_400).contains(&after));
    // A cheaper generation still fits.
    assert_eq!(draw(&api, &json!({"prompt": "a red fox", "steps": 1}), &key).await.status, 202);
    let usage = ask(&api, GET, "/v1/usage?days=2", &key).await.json();
    assert_eq!((usage["key"].as_str(), usage["tenant"].as_str()), (Some(&*id), Some("studio")));
    assert_eq!(usage["limits"][0]["unit"], "gigamultiplications");
    let day = &usage["data"][0];
    assert_eq!((&day["key"]["generations"], &day["tenant"]["generations"]), (&json!(3), &json!(4)));

    let request = Request::post("/v1/images/generations").header("authorization", &key);
    let request = request.header("content-type", "application/json").body(Body::from(fox().to_string()));
    let openai = api.ask(request.unwrap()).await;
    assert_eq!((openai.status, &openai.json()["error"]["code"]), (429, &json!("insufficient_quota")));
    assert_eq!(openai.header("x-should-retry"), "false");
}

#[tokio::test]
async fn usage_is_that_of_the_own_tenant() {
    let api = TestApi::open(&[]).await;
    let (_, key) = create(&api, json!({})).await;
    let bob = api.key("bob", 9).await;
    draw(&api, &json!({"prompt": "a red fox", "n": 3}), &key).await;
    draw(&api, &fox(), &bob).await;
    api.create(json!({"prompt": "a red fox", "n": 2})).await;
    let own = ask(&api, GET, "/v1/usage", &key).await.json();
    let day = &own["data"][0];
    assert_eq!((&day["tenant"]["images"], &day["key"]["images"]), (&json!(3), &json!(3)));
    assert_eq!((&day["tenant"]["generations"], &own["limits"]), (&json!(1), &json!([])));
    for nothing in ["films", "film_seconds", "sounds", "sound_seconds"] {
        assert_eq!(day["key"][nothing].as_f64(), Some(0.0), "{nothing}");
    }
    let anonymous = api.get("/v1/usage").await.json();
    let day = &anonymous["data"][0];
    assert_eq!((&anonymous["tenant"], &anonymous["key"], &day["key"]), (&json!("default"), &json!(null), &json!(null)));
    assert_eq!(day["tenant"]["images"], 2);
    for bad in ["days=0", "days=401", "color=red"] {
        assert_eq!(api.get(&format!("/v1/usage?{bad}")).await.status, 422, "{bad}");
    }
}

async fn operate(api: &TestApi, method: Method, path: &str, authorization: Option<&str>) -> Answer {
    let request = Request::builder().method(&method).uri(path).header("content-type", "application/json");
    let request = authorization.into_iter().fold(request, |request, value| request.header("authorization", value));
    let answer = read(api.operator.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()).await;
    assert_conforms(method.as_str(), path, answer.status, &answer.body);
    answer
}

#[tokio::test]
async fn the_operators_routes_require_the_token_and_probes_do_not() {
    let token = "correct horse battery staple";
    let api = TestApi::open(&[("operator.token", token)]).await;
    for path in ["/livez", "/metrics"] {
        assert_eq!(operate(&api, GET, path, None).await.status, 200, "{path}");
    }
    for (method, path) in [(GET, "/admin/keys"), (GET, "/admin/workers"), (POST, "/admin/reload")] {
        let missing = operate(&api, method.clone(), path, None).await;
        refused(&missing, 401, "missing_token");
        assert!(missing.header("www-authenticate").starts_with("Bearer"));
        for wrong in ["Bearer correct horse battery stapl", "Bearer ", "Bearer ltd_x", "Basic eDp5", "x"] {
            refused(&operate(&api, method.clone(), path, Some(wrong)).await, 401, "invalid_token");
        }
        assert_eq!(operate(&api, method, path, Some(&format!("Bearer {token}"))).await.status, 200, "{path}");
    }
    // The answer for a path without a route reveals nothing either.
    let nothing = Request::get("/admin/nothing").body(Body::empty()).unwrap();
    assert_eq!(api.operator.clone().oneshot(nothing).await.unwrap().status(), 401);
}

#[tokio::test]
async fn a_key_with_the_scope_admin_is_as_good_as_the_token() {
    let api = TestApi::open(&[("operator.token", "correct horse battery staple")]).await;
    let key = async |scopes: Value| {
        let body = json!({"tenant": "operators", "scopes": scopes}).to_string();
        let request = Request::post("/admin/keys").header("content-type", "application/json");
        let request = request.header("authorization", "Bearer correct horse battery staple");
        let made = read(api.operator.clone().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap()).await;
        (made.json()["id"].as_str().unwrap().to_owned(), bearer(&made))
    };
    let (id, admin) = key(json!(["admin"])).await;
    let (_, client) = key(json!(["generate", "read"])).await;
    assert_eq!(operate(&api, GET, "/admin/keys", Some(&admin)).await.status, 200);
    refused(&operate(&api, GET, "/admin/keys", Some(&client)).await, 403, "scope_missing");
    refused(&ask(&api, GET, "/v1/images", &admin).await, 403, "scope_missing");
    assert_eq!(operate(&api, POST, &format!("/admin/keys/{id}/revoke"), Some(&admin)).await.status, 200);
    refused(&operate(&api, GET, "/admin/keys", Some(&admin)).await, 401, "invalid_token");
}

#[tokio::test]
async fn a_signed_url_of_events_needs_no_key() {
    let flags = [("auth.required", "true"), ("http.url_secret", "correct horse battery staple")];
    let api = TestApi::open(&flags).await;
    let (_, key) = create(&api, json!({})).await;
    let created = draw(&api, &fox(), &key).await.json();
    let url = created["links"]["events"].as_str().unwrap().to_owned();
    assert!(created["links"]["events_expires_at"].is_string() && url.contains("?exp="), "{url}");
    let (path, query) = url.split_once('?').unwrap();
    assert_eq!(api.get(path).await.status, 401);
    refused(&api.get(&url.replace("exp=", "exp=1")).await, 403, "signature_invalid");
    let id = created["id"].as_str().unwrap();
    for other in [format!("/v1/images/{id}/content/0?{query}"), format!("{path}?after=1&sig=x")] {
        refused(&api.get(&other).await, 403, "signature_invalid");
    }
    let (events, ()) = tokio::join!(api.get(&url), async { api.succeed(api.begin().await, PNG).await });
    assert!(events.text().contains("generation.succeeded"), "{}", events.text());
    let resumed = api.get_with(&url, "last-event-id", "2").await;
    assert!(!resumed.text().contains("generation.started") && resumed.text().contains("generation.succeeded"));
    assert_eq!(api.get(&format!("{url}&after=3")).await.status, 204);

    let signer = latentd::http::signed::Signer::new(&crate::api::config(&flags).http);
    refused(&api.get(&signer.sign(path, 1_700_000_000)).await, 410, "url_expired");
    // Whoever has only this URL gets no URL that is valid for longer.
    let expiry = latentd::http::signed::now() + 100;
    let events = api.get(&signer.sign(path, expiry)).await.text().to_owned();
    let signed: Vec<&str> = events.match_indices("?exp=").map(|(at, _)| &events[at..]).collect();
    assert!(signed.len() >= 3, "{events}");
    assert!(signed.iter().all(|url| url.starts_with(&format!("?exp={expiry}&"))), "{events}");
    // Without a secret, the link is the plain path.
    let plain = TestApi::open(&[]).await;
    let id = plain.create(fox()).await;
    let links = plain.get(&format!("/v1/images/{id}")).await.json()["links"].clone();
    assert_eq!(
        (&links["events"], &links["events_expires_at"]),
        (&json!(format!("/v1/images/{id}/events")), &json!(null))
    );
}

/// The URL of the events of all own generations, as the list of the holder of a key has it.
async fn signed_stream(api: &TestApi, key: &str) -> String {
    let list = ask(api, GET, "/v1/images", key).await.json();
    assert!(list["links"]["events_expires_at"].is_string(), "{list}");
    list["links"]["events"].as_str().unwrap().to_owned()
}

/// Reads an endless stream until its text `holds`, then closes it.
async fn read_until(api: &TestApi, path: &str, holds: impl Fn(&str) -> bool) -> String {
    let response = api.send(Request::get(path).body(Body::empty()).unwrap()).await;
    assert_eq!(response.status().as_u16(), 200);
    let (mut stream, mut text) = (response.into_body().into_data_stream(), String::new());
    let reading = async {
        while !holds(&text) {
            text += std::str::from_utf8(&stream.next().await.expect("it goes on").unwrap()).unwrap();
        }
        text
    };
    tokio::time::timeout(Duration::from_secs(30), reading).await.expect("it does not come")
}

#[tokio::test]
async fn a_signed_url_of_all_own_events_needs_no_key() {
    let flags = [("auth.required", "true"), ("http.url_secret", "correct horse battery staple")];
    let api = TestApi::open(&flags).await;
    let (_, key) = create(&api, json!({})).await;
    let stranger = api.key("stranger", 9).await;
    let url = signed_stream(&api, &key).await;
    let theirs = draw(&api, &json!({"prompt": "a frog"}), &stranger).await.json();
    let own = draw(&api, &fox(), &key).await.json();
    let all = read_until(&api, &format!("{url}&after=0"), |text| text.contains("generation.queued")).await;
    assert!(all.contains(own["id"].as_str().unwrap()) && !all.contains(theirs["id"].as_str().unwrap()), "{all}");
    // Whoever has only this URL gets no URL that is valid for longer.
    let expiry = url.split_once("exp=").unwrap().1.split('&').next().unwrap();
    let signed: Vec<&str> = all.match_indices("?exp=").map(|(at, _)| &all[at..]).collect();
    assert!(signed.len() >= 2 && signed.iter().all(|url| url.starts_with(&format!("?exp={expiry}&"))), "{all}");

    // Every part of the URL counts, and another URL's signature does not.
    let (path, query) = url.split_once('?').unwrap();
    assert_eq!(path, "/v1/events");
    let of_one = own["links"]["events"].as_str().unwrap().split_once('?').unwrap().1;
    let other = signed_stream(&api, &stranger).await;
    let other_key = other.split_once("key=").unwrap().1.split('&').next().unwrap();
    let own_key = url.split_once("key=").unwrap().1.split('&').next().unwrap();
    for bad in [
        format!("{path}?key={own_key}"),
        format!("{path}?{of_one}"),
        format!("{path}?key={own_key}&{of_one}"),
        format!("{path}?{}", query.replace("exp=", "exp=1")),
        format!("{path}?{}", query.replace(own_key, other_key)),
        format!("{path}?{}", query.replace(own_key, "%00")),
        format!("{path}?{}", query.replace(own_key, "nobody")),
        format!("{path}?{query}&key={own_key}"),
        format!("{}?{query}", own["links"]["events"].as_str().unwrap().split_once('?').unwrap().0),
    ] {
        refused(&api.get(&bad).await, 403, "signature_invalid");
    }
    assert_eq!(api.get(path).await.status, 401);
    assert_eq!(api.get(&format!("{url}&color=red")).await.status, 422);

    // If the server has another secret, or no secret, the URL is not valid.
    for secret in ["another secret of ours", ""] {
        let api = TestApi::open(&[("http.url_secret", secret)]).await;
        refused(&api.get(&url).await, 403, "signature_invalid");
        let list = api.get("/v1/images").await.json();
        let plain = json!({"events": "/v1/events", "events_expires_at": null});
        assert_eq!(list["links"], plain, "without a key, the stream needs no signature");
    }
}

#[tokio::test]
async fn a_signed_url_of_all_own_events_expires() {
    let flags = [
        ("http.url_secret", "correct horse battery staple"),
        ("http.url_expiry_s", "5"),
        ("http.ping_interval_s", "1"),
    ];
    let api = TestApi::open(&flags).await;
    let (_, key) = create(&api, json!({})).await;
    let url = signed_stream(&api, &key).await;
    // The stream ends by itself.
    let stream = tokio::time::timeout(Duration::from_secs(30), api.get(&url)).await.expect("the stream ends");
    assert!(stream.status == 200 && stream.text().contains("event: ping"), "{}", stream.text());
    refused(&api.get(&url).await, 410, "url_expired");
}

#[tokio::test]
async fn a_signed_url_of_all_own_events_ends_with_its_key() {
    let flags = [("http.url_secret", "correct horse battery staple"), ("http.ping_interval_s", "1")];
    let api = TestApi::open(&flags).await;
    for change in ["revoke", "rotate"] {
        let (id, key) = create(&api, json!({})).await;
        let url = signed_stream(&api, &key).await;
        let changed = async {
            tokio::time::sleep(Duration::from_millis(1500)).await;
            let answer = api.operate(POST, &format!("/admin/keys/{id}/{change}"), json!({})).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
        };
        let ended = async { tokio::join!(api.get(&url), changed) };
        let (stream, ()) = tokio::time::timeout(Duration::from_secs(30), ended).await.expect("the stream ends");
        assert!(stream.status == 200 && stream.text().contains("event: ping"), "{}", stream.text());
        refused(&api.get(&url).await, 403, "signature_invalid");
    }
    // While the old secret is valid, so is its URL.
    let (id, key) = create(&api, json!({})).await;
    let url = signed_stream(&api, &key).await;
    api.operate(POST, &format!("/admin/keys/{id}/rotate"), json!({"grace_s": 600})).await;
    read_until(&api, &url, |text| text.contains("event: ping")).await;
}

#[tokio::test]
async fn a_signed_url_of_a_preview_needs_no_key() {
    let flags = [("auth.required", "true"), ("http.url_secret", "correct horse battery staple")];
    let api = TestApi::open(&flags).await;
    let (_, key) = create(&api, json!({})).await;
    let created = draw(&api, &fox(), &key).await.json();
    let url = created["links"]["preview"].as_str().unwrap().to_owned();
    let (path, query) = url.split_once('?').unwrap();
    assert!(created["links"]["preview_expires_at"].is_string(), "{created}");
    assert_eq!((api.get(path).await.status, api.get(&url).await.status), (401, 204));
    let lease = api.begin().await;
    api.live.preview(lease.id(), preview(7));
    let seen = api.get(&url).await;
    assert_eq!((seen.status, seen.header("content-type")), (200, "image/png"));
    refused(&api.get(&url.replace("exp=", "exp=1")).await, 403, "signature_invalid");
    refused(&api.get(&format!("{}?{query}", path.replace("/preview", "/events"))).await, 403, "signature_invalid");
    let signer = latentd::http::signed::Signer::new(&crate::api::config(&flags).http);
    refused(&api.get(&signer.sign(path, 1_700_000_000)).await, 410, "image_expired");
}

#[tokio::test]
async fn the_webhook_of_a_request_is_shown_to_its_tenant_alone() {
    let flags = [
        ("auth.required", "true"),
        ("http.url_secret", "correct horse battery staple"),
        ("LATENTD_WEBHOOKS__ALLOW_HOSTS", "127.0.0.1"),
    ];
    let api = TestApi::open(&flags).await;
    let (_, key) = create(&api, json!({})).await;
    let body = json!({"url": "https://127.0.0.1/hook", "events": ["completed"]}).to_string();
    let request = Request::post("/v1/webhook_endpoints").header("authorization", &key);
    let request = request.header("content-type", "application/json").body(Body::from(body)).unwrap();
    let endpoint = api.ask(request).await;
    assert_eq!(endpoint.status, 201, "{}", endpoint.text());
    let webhook = json!({"endpoint": endpoint.json()["id"]});
    let created = draw(&api, &json!({"prompt": "a fox", "webhook": webhook}), &key).await.json();
    assert_eq!(created["webhook"], webhook);
    assert!(draw(&api, &fox(), &key).await.json().get("webhook").is_none());
    let path = format!("/v1/images/{}", created["id"].as_str().unwrap());
    assert_eq!(ask(&api, GET, &path, &key).await.json()["webhook"], webhook);
    // The holder of a signed URL gets the generation without it.
    api.succeed(api.begin().await, PNG).await;
    let own = ask(&api, GET, &format!("{path}/events"), &key).await;
    let held = api.get(created["links"]["events"].as_str().unwrap()).await;
    assert!(own.text().contains("\"webhook\"") && !held.text().contains("\"webhook\""), "{}", held.text());
    assert!(held.text().contains("generation.succeeded"));
}

#[tokio::test]
async fn open_streams_end_when_their_key_is_revoked_or_rotated() {
    let api = TestApi::open(&[("auth.required", "true"), ("http.ping_interval_s", "1")]).await;
    for change in ["revoke", "rotate"] {
        let (id, key) = create(&api, json!({})).await;
        let (_, other) = create(&api, json!({})).await;
        let created = draw(&api, &fox(), &key).await.json();
        let own = created["links"]["events"].as_str().unwrap().to_owned();
        let changed = async {
            tokio::time::sleep(Duration::from_millis(1500)).await;
            let answer = api.operate(POST, &format!("/admin/keys/{id}/{change}"), json!({})).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
        };
        let ended = async { tokio::join!(ask(&api, GET, "/v1/events", &key), ask(&api, GET, &own, &key), changed) };
        let (all, one, ()) = tokio::time::timeout(Duration::from_secs(30), ended).await.expect("the streams end");
        for stream in [all, one] {
            assert!(stream.status == 200 && stream.text().contains("event: ping"), "{}", stream.text());
        }
        let goes_on = tokio::time::timeout(Duration::from_millis(2500), ask(&api, GET, "/v1/events", &other));
        assert!(goes_on.await.is_err(), "the stream of a valid key does not end");
    }
}

/// Claims in the order of the queue, as one worker does that is never idle.
#[tokio::test]
async fn tenants_with_weights_1_and_3_get_1_and_3_shares_of_the_work() {
    let api = TestApi::open(&[]).await;
    let key = async |tenant: &str, weight: u32| {
        bearer(&api.operate(POST, "/admin/keys", json!({"tenant": tenant, "weight": weight})).await)
    };
    let (light, heavy) = (key("light", 1).await, key("heavy", 3).await);
    // The work of each body, by what a generation of it adds to the usage of a tenant.
    let bodies = [2, 3, 4].map(|steps| json!({"prompt": "a red fox", "steps": steps}));
    let mut costs = std::collections::HashMap::new();
    let mut before = std::collections::HashMap::new();
    // The light tenant sends all of its requests first, and the tenants send different ones.
    for (tenant, key, offset) in [("light", &light, 0), ("heavy", &heavy, 1)] {
        for at in 0..100 {
            let created = draw(&api, &bodies[(at * (offset + 1) + offset) % 3], key).await;
            assert_eq!(created.status, 202, "{}", created.text());
            let usage = ask(&api, GET, "/v1/usage", key).await.json();
            let total: f64 =
                usage["data"].as_array().unwrap().iter().map(|day| day["key"]["cost"].as_f64().unwrap()).sum();
            let cost = total - before.insert(tenant, total).unwrap_or(0.0);
            costs.insert(created.json()["id"].as_str().unwrap().to_owned(), cost);
        }
    }
    let mut shares = std::collections::HashMap::from([("light".to_owned(), 0.0), ("heavy".to_owned(), 0.0)]);
    // Until then, both tenants have queued generations.
    for _ in 0..120 {
        let lease = api.begin().await;
        let record = api.store.get(lease.id()).await.unwrap().unwrap();
        *shares.get_mut(&record.tenant).unwrap() += costs[&record.id.to_string()];
        api.succeed(lease, PNG).await;
    }
    let ratio = shares["heavy"] / shares["light"];
    assert!((ratio / 3.0 - 1.0).abs() < 0.1, "{shares:?}");
}
