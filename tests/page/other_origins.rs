//! Tests of pages on other origins, in a browser: blind forms change nothing, listed origins use the API, and a foreign
//! host name reads nothing.

use axum::{Router, http::Method, response::Html, routing::get};
use latentd::http::{Route, operator_routes, public_routes};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::AbortHandle};

use crate::{browser::Browser, server::Server};

/// A site that only serves an empty page, on a port of its own; it stops when it is dropped.
struct Site {
    port: u16,
    serving: AbortHandle,
}

impl Site {
    async fn start() -> Site {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let page = Html("<!doctype html><title>Another site</title><iframe name=sink></iframe>");
        let router = Router::new().route("/", get(move || async move { page }));
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() }).abort_handle();
        Site { port, serving }
    }

    fn origin(&self, host: &str) -> String {
        format!("http://{host}:{}", self.port)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// The URLs to which forms can post, with an id in the place of each parameter.
fn targets(routes: Vec<Route>, listener: &str, id: &str) -> Vec<String> {
    let path = |route: &Route| {
        let part = |part: &str| if part.starts_with('{') { id.to_owned() } else { part.to_owned() };
        route.path.split('/').map(part).collect::<Vec<_>>().join("/")
    };
    let posts = routes.iter().filter(|route| route.method == Method::POST);
    posts.map(|route| format!("{listener}{}", path(route))).collect()
}

/// Everything that the forms could change.
async fn state(server: &Server) -> Vec<Value> {
    let urls = [
        server.url("/v1/images?limit=100"),
        server.url("/v1/webhook_endpoints"),
        server.url("/sdapi/v1/options"),
        format!("{}/admin/generations", server.operator),
    ];
    let mut seen = Vec::new();
    for url in urls {
        seen.push(server.client.get(url).send().await.unwrap().json().await.unwrap());
    }
    let workers = server.client.get(format!("{}/admin/workers", server.operator)).send().await.unwrap();
    let workers: Value = workers.json().await.unwrap();
    seen.extend(workers["data"].as_array().unwrap().iter().map(|worker| worker["draining"].clone()));
    seen
}

/// Posts a form of each media type to every URL, and sends the same by `fetch` without CORS.
const ATTACK: &str = r"(async urls => {
    const sink = document.querySelector('iframe');
    for (const url of urls) {
        for (const enctype of ['application/x-www-form-urlencoded', 'multipart/form-data', 'text/plain']) {
            const form = document.createElement('form');
            Object.assign(form, { method: 'post', action: url, enctype, target: 'sink' });
            for (const [name, value] of [['prompt', 'a fox'], ['tenant', 'evil'], ['url', 'https://evil.example']]) {
                const field = document.createElement('input');
                Object.assign(field, { name, value });
                form.append(field);
            }
            document.body.append(form);
            const loaded = new Promise(resolve => sink.addEventListener('load', resolve, { once: true }));
            form.submit();
            await loaded;
            form.remove();
        }
        for (const body of ['{}', new URLSearchParams({ prompt: 'a fox' })]) {
            await fetch(url, { method: 'POST', mode: 'no-cors', body });
        }
    }
    return urls.length;
})";

#[tokio::test(flavor = "multi_thread")]
async fn blind_forms_of_another_site_change_nothing() {
    let Some(browser) = Browser::start() else { return };
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;
    let created = server.client.post(server.url("/v1/images")).header("prefer", "wait=100");
    let created = created.json(&json!({"prompt": "a red fox", "steps": 1})).send().await.unwrap();
    assert_eq!(created.status(), 200);
    let id = created.json::<Value>().await.unwrap()["id"].as_str().unwrap().to_owned();
    let before = state(&server).await;

    let site = Site::start().await;
    browser.open(&site.origin("127.0.0.1"));
    let public = targets(public_routes(), &server.public, &id);
    let operator = targets(operator_routes(), &server.operator, &id);
    assert!(public.len() >= 10 && operator.len() >= 5, "{public:?} {operator:?}");
    let urls = [public, operator].concat();
    assert_eq!(browser.value(&format!("{ATTACK}({})", json!(urls))), urls.len());
    assert_eq!(state(&server).await, before);
}

/// Creates a generation, follows its events, reads its picture. Returns what a page can see.
const DRAW: &str = r"(async server => {
    const created = await fetch(server + '/v1/images', {
        method: 'POST',
        headers: { 'Content-Type': 'application/json', 'Idempotency-Key': 'other-site' },
        body: JSON.stringify({ prompt: 'a red fox', steps: 1 }),
    });
    const id = created.headers.get('Latentd-Generation-Id');
    const events = new EventSource(`${server}/v1/images/${id}/events`);
    const last = await new Promise((resolve, reject) => {
        events.addEventListener('generation.succeeded', event => resolve(JSON.parse(event.data)));
        setTimeout(() => reject(new Error('no event')), 100_000);
    });
    events.close();
    const picture = await fetch(new URL(last.generation.images[0].url, server));
    const bytes = (await picture.arrayBuffer()).byteLength;
    return [created.status, created.headers.get('Location') !== null, id === last.generation.id,
        picture.headers.get('ETag') !== null, bytes === last.generation.images[0].bytes];
})";

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_a_listed_origin_draws_and_follows_events_and_others_read_nothing() {
    let Some(browser) = Browser::start() else { return };
    let site = Site::start().await;
    let data = tempfile::tempdir().unwrap();
    let origin = site.origin("localhost");
    let server = Server::start(data.path(), &[("LATENTD_HTTP__CORS_ORIGINS", origin.as_str())]).await;
    browser.open(&origin);
    let seen = browser.value(&format!("{DRAW}({})", json!(server.public)));
    assert_eq!(seen, json!([202, true, true, true, true]));

    // The same site under another name is another origin.
    browser.open(&site.origin("127.0.0.1"));
    for path in ["/v1/images", "/v1/models"] {
        let url = json!(server.url(path));
        assert_eq!(browser.value(&format!("fetch({url}).then(() => 'read', () => 'refused')")), "refused", "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_name_that_points_at_the_server_reads_nothing() {
    let Some(browser) = Browser::start_with(&["--host-resolver-rules=MAP evil.example 127.0.0.1"]) else { return };
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[("LATENTD_HTTP__CORS_ORIGINS", "*")]).await;
    for listener in [&server.public, &server.operator] {
        let rebound = listener.replace("127.0.0.1", "evil.example");
        assert_ne!(&rebound, listener);
        for path in ["/", "/v1/images", "/admin/workers"] {
            browser.call("Page.navigate", json!({"url": format!("{rebound}{path}")}));
            browser.until("it is refused", "document.body?.innerText.includes('host_not_allowed')");
        }
    }
}
