//! Tests of reading generations, their files and their events, and of cancelling and deleting generations.

use axum::{
    body::Body,
    http::{Method, Request},
};
use futures::StreamExt;
use latentd::{
    generation::{Format, Phase},
    service::{Preview, Progress},
};
use serde_json::{Value, json};

use crate::{PNG, api::TestApi, conforms::events};

pub fn progress(step: u32) -> Progress {
    Progress { phase: Phase::Denoising, step, steps: 20, percent: 5.0 * step as f32, eta_s: Some(1.0) }
}

#[tokio::test]
async fn a_generation_is_read_in_its_current_state() {
    let api = TestApi::open(&[]).await;
    let id = api.create(json!({"prompt": "a red fox", "metadata": {"album": "animals"}})).await;
    let path = format!("/v1/images/{id}");
    let queued = api.get(&path).await;
    assert_eq!(
        (queued.json()["status"].as_str(), queued.json()["metadata"]["album"].as_str()),
        (Some("queued"), Some("animals"))
    );
    assert_eq!(queued.header("cache-control"), "no-store");
    let unchanged = api.get_with(&path, "if-none-match", queued.header("etag")).await;
    assert_eq!((unchanged.status, unchanged.header("etag")), (304, queued.header("etag")));

    let lease = api.begin().await;
    api.live.progress(id, progress(3));
    let running = api.get_with(&path, "if-none-match", queued.header("etag")).await;
    assert_eq!((running.status, running.json()["progress"]["step"].as_u64()), (200, Some(3)));
    api.live.progress(id, progress(4));
    let further = api.get_with(&path, "if-none-match", running.header("etag")).await;
    assert_eq!((further.status, further.json()["progress"]["step"].as_u64()), (200, Some(4)), "progress is a change");

    let waiting = api.get_with(&path, "prefer", "wait=20");
    let (ended, ()) = tokio::join!(waiting, api.succeed(lease, PNG));
    assert_eq!((ended.status, ended.header("preference-applied")), (200, "wait=20"));
    assert_eq!(ended.json()["status"], "succeeded");
    assert_eq!(ended.json()["images"][0]["url"], format!("{path}/content/0"));
    assert!(ended.json()["expires_at"].is_string());
}

#[tokio::test]
async fn a_picture_is_served_with_ranges_and_conditional_requests() {
    let api = TestApi::open(&[]).await;
    let id = api.create(json!({"prompt": "a red fox"})).await;
    let path = format!("/v1/images/{id}/content/0");
    assert_eq!(api.get(&path).await.status, 404, "no picture exists yet");
    api.succeed(api.begin().await, PNG).await;

    let whole = api.get(&path).await;
    assert_eq!((whole.status, whole.body.as_slice()), (200, PNG));
    assert_eq!(whole.header("cache-control"), "private, max-age=31536000, immutable");
    assert_eq!(whole.header("x-content-type-options"), "nosniff");
    assert_eq!(api.get(&format!("{path}.png")).await.body, PNG);
    let again = api.get_with(&path, "if-none-match", whole.header("etag")).await;
    assert_eq!((again.status, again.body.len(), again.header("etag")), (304, 0, whole.header("etag")));

    let part = api.get_with(&path, "range", "bytes=0-7").await;
    assert_eq!((part.status, part.body.as_slice()), (206, &PNG[..8]));
    assert_eq!(part.header("content-range"), format!("bytes 0-7/{}", PNG.len()));
    let past = api.get_with(&path, "range", "bytes=9999-").await;
    assert_eq!((past.status, past.header("content-range")), (416, &*format!("bytes */{}", PNG.len())));

    for other in ["1", "00", "x", "0.jpg", "-1"] {
        assert_eq!(api.get(&format!("/v1/images/{id}/content/{other}")).await.status, 404, "{other}");
    }
    let head = api.send(Request::head(&path).body(Body::empty()).unwrap()).await;
    assert_eq!(head.headers()["content-length"], PNG.len().to_string());
}

#[tokio::test]
async fn a_preview_is_served_while_the_generation_runs() {
    let api = TestApi::open(&[]).await;
    let id = api.create(json!({"prompt": "a red fox"})).await;
    let path = format!("/v1/images/{id}/preview");
    assert_eq!(api.get(&path).await.status, 204);
    let _lease = api.begin().await;
    api.live.preview(id, preview(1));
    let seen = api.get(&path).await;
    assert_eq!((seen.status, seen.header("content-type"), seen.body.as_slice()), (200, "image/png", PNG));
    assert_eq!(seen.header("cache-control"), "no-store");
}

pub fn preview(step: u32) -> Preview {
    Preview { index: 0, step, preview_index: 0, media_type: Format::Png.into(), bytes: PNG.into() }
}

/// Media type, file name and `ETag` belong to the artifact.
#[tokio::test]
async fn each_artifact_is_served_with_its_own_media_type() {
    let api = TestApi::open(&[]).await;
    let id = api.create(json!({"prompt": "a red fox", "n": 2})).await;
    const JPEG: &[u8] = b"\xff\xd8\xff\xe0 not really";
    api.succeed_with_files(api.begin().await, &[("image/png", "png", PNG), ("image/jpeg", "jpg", JPEG)]).await;
    let path = |file: &str| format!("/v1/images/{id}/content/{file}");
    for (number, extension, media_type, bytes) in [(0, "png", "image/png", PNG), (1, "jpg", "image/jpeg", JPEG)] {
        let plain = api.get(&path(&number.to_string())).await;
        assert_eq!((plain.status, plain.header("content-type"), &plain.body[..]), (200, media_type, bytes));
        let named = api.get(&path(&format!("{number}.{extension}"))).await;
        assert_eq!((named.status, named.header("content-type"), &named.body[..]), (200, media_type, bytes));
        assert_eq!(named.header("etag"), plain.header("etag"));
        let part = api.get_with(&path(&number.to_string()), "range", "bytes=0-11").await;
        assert_eq!((part.status, part.header("content-type")), (206, media_type));
    }
    for other in ["0.jpg", "1.png", "1.jpeg", "1.", "1.jpg.jpg"] {
        assert_eq!(api.get(&path(other)).await.status, 404, "{other}");
    }
    let images = api.get(&format!("/v1/images/{id}")).await.json()["images"].clone();
    let told: Vec<_> = images.as_array().unwrap().iter().map(|image| image["content_type"].clone()).collect();
    assert_eq!(told, ["image/png", "image/jpeg"]);
}

#[tokio::test]
async fn pages_of_the_list_are_linked() {
    let api = TestApi::open(&[]).await;
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(api.create(json!({"prompt": "a red fox", "seed": n})).await.to_string());
    }
    ids.reverse();
    let mut path = "/v1/images?limit=2&status=queued".to_owned();
    let mut seen = Vec::new();
    loop {
        let page = api.get(&path).await;
        let list = page.json();
        let data: Vec<_> =
            list["data"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect();
        assert_eq!(
            (list["first_id"].as_str(), list["last_id"].as_str()),
            (data.first().map(|id| &**id), data.last().map(|id| &**id))
        );
        seen.extend(data);
        let Some(next) = page.header("link").strip_prefix('<').and_then(|link| link.split_once(">; rel=\"next\""))
        else {
            assert_eq!(list["has_more"], false);
            break;
        };
        path = next.0.to_owned();
    }
    assert_eq!(seen, ids);
    let newer = api.get(&format!("/v1/images?before={}", ids[2])).await.json();
    assert_eq!(newer["data"].as_array().unwrap().len(), 2);
    assert_eq!(api.get("/v1/images?status=running").await.json()["data"], json!([]));
}

#[tokio::test]
async fn cancelling_and_deleting_depend_on_the_state() {
    let api = TestApi::open(&[]).await;
    let queued = api.create(json!({"prompt": "a red fox"})).await;
    let refused = api.act(Method::DELETE, &format!("/v1/images/{queued}")).await;
    assert_eq!((refused.status, refused.header("x-should-retry")), (409, "false"));
    let canceled = api.act(Method::POST, &format!("/v1/images/{queued}/cancel")).await;
    assert_eq!((canceled.status, canceled.json()["status"].as_str()), (200, Some("canceled")));

    let running = api.create(json!({"prompt": "a red fox"})).await;
    let lease = api.begin().await;
    let asked = api.act(Method::POST, &format!("/v1/images/{running}/cancel")).await;
    assert_eq!((asked.status, asked.json()["status"].as_str()), (202, Some("running")));
    api.end(lease, latentd::ledger::Outcome::Canceled).await;
    let again = api.act(Method::POST, &format!("/v1/images/{running}/cancel")).await;
    assert_eq!((again.status, again.json()["status"].as_str()), (200, Some("canceled")));

    for id in [queued, running] {
        let path = format!("/v1/images/{id}");
        assert_eq!(api.act(Method::DELETE, &path).await.status, 204);
        assert_eq!(api.act(Method::DELETE, &path).await.status, 404);
        assert_eq!(api.get(&path).await.status, 404);
        assert_eq!(api.act(Method::POST, &format!("{path}/cancel")).await.status, 404);
        assert_eq!(api.get(&format!("{path}/events")).await.status, 404);
        assert_eq!(api.get(&format!("{path}/preview")).await.status, 404);
    }
}

fn ids(events: &[Value]) -> Vec<i64> {
    events.iter().filter_map(|event| event["id"].as_i64()).collect()
}

#[tokio::test]
async fn events_are_replayed_from_the_last_event_id() {
    let api = TestApi::open(&[]).await;
    let id = api.create(json!({"prompt": "a red fox"})).await;
    api.succeed(api.begin().await, PNG).await;
    let path = format!("/v1/images/{id}/events");
    let whole = api.get(&path).await;
    assert_eq!(
        (whole.status, whole.header("content-type"), whole.header("x-accel-buffering")),
        (200, "text/event-stream", "no")
    );
    let all = events(whole.text());
    assert_eq!(ids(&all), [0, 1, 2, 3]);
    assert_eq!(all[1]["data"]["generation"]["status"], "queued", "the status at the time of the event");
    assert_eq!(all[2]["data"]["id"], id.to_string());
    assert_eq!(all[3]["data"]["generation"], api.get(&format!("/v1/images/{id}")).await.json());

    assert_eq!(ids(&events(api.get_with(&path, "last-event-id", "2").await.text())), [2, 3]);
    assert_eq!(ids(&events(api.get(&format!("{path}?after=1")).await.text())), [1, 2, 3]);
    assert_eq!(ids(&events(api.get_with(&path, "last-event-id", "of another server").await.text())), [0, 1, 2, 3]);
    assert_eq!(api.get_with(&path, "last-event-id", "3").await.status, 204);
    assert_eq!(api.get(&format!("{path}?after=3")).await.status, 204);
    assert_eq!(api.get(&format!("{path}?after=x")).await.status, 422);
    let plain = api.get_with(&path, "accept-encoding", "gzip").await;
    assert_eq!((plain.header("content-encoding"), &plain.body), ("", &whole.body));
}

#[tokio::test]
async fn progress_and_previews_are_events_without_an_id() {
    let api = TestApi::open(&[("http.ping_interval_s", "0.05")]).await;
    let id = api.create(json!({"prompt": "a red fox"})).await;
    let response = api.send(Request::get(format!("/v1/images/{id}/events")).body(Body::empty()).unwrap()).await;
    let mut stream = response.into_body().into_data_stream();
    let mut read = String::new();
    let mut until = async |name: &str| {
        let found = async {
            while !read.contains(&format!("event: {name}\n")) {
                read += std::str::from_utf8(&stream.next().await.expect("the stream has not ended").unwrap()).unwrap();
            }
            std::mem::take(&mut read)
        };
        let read = tokio::time::timeout(std::time::Duration::from_secs(20), found).await;
        let read = read.unwrap_or_else(|_| panic!("{name} does not come"));
        conforms(&id.to_string(), &read);
        events(&read)
    };
    until("generation.queued").await;
    until("ping").await;
    let lease = api.begin().await;
    until("generation.started").await;
    api.live.progress(id, progress(1));
    let told = until("generation.progress").await;
    let told = told.last().unwrap();
    assert_eq!((told.get("id"), &told["data"]["step"]), (None, &json!(1)));
    // The pause between two progress events spans several pings. A slow machine may hide some pings but not all.
    let mut pings = Vec::new();
    for step in 2..=5 {
        api.live.progress(id, progress(step));
        let told = until("generation.progress").await;
        assert_eq!(told.last().unwrap()["data"]["step"], step);
        pings.push(told.iter().filter(|event| event["event"] == "ping").count());
    }
    assert!(pings.iter().any(|pings| *pings >= 2), "{pings:?}");
    // Only the last progress within the pause is sent.
    for step in 6..=9 {
        api.live.progress(id, progress(step));
    }
    assert_eq!(until("generation.progress").await.last().unwrap()["data"]["step"], 9);
    api.live.preview(id, preview(9));
    assert_eq!(until("generation.preview").await.last().unwrap()["data"]["step"], 9);
    api.succeed(lease, PNG).await;
    until("generation.succeeded").await;
    assert!(stream.next().await.is_none(), "the stream closes after the end");
}

fn conforms(id: &str, stream: &str) {
    crate::conforms::assert_conforms("GET", &format!("/v1/images/{id}/events"), 200, stream.as_bytes());
}

#[tokio::test]
async fn a_stopping_server_ends_its_streams() {
    let api = TestApi::open(&[]).await;
    let id = api.create(json!({"prompt": "a red fox"})).await;
    let path = format!("/v1/images/{id}/events");
    let (answer, ()) = tokio::join!(api.get(&path), async {
        api.begin_next().await;
        api.draining.cancel();
    });
    assert_eq!(events(answer.text()).last().unwrap()["event"], "server.draining");
}

/// The URLs are valid for ten years, so that none expires or changes during a test.
const SIGNED: [(&str, &str); 2] =
    [("http.url_secret", "correct horse battery staple"), ("http.url_expiry_s", "315360000")];

#[tokio::test]
async fn the_url_of_a_picture_is_signed_if_a_secret_is_set() {
    let api = TestApi::open(&SIGNED).await;
    let id = api.create(json!({"prompt": "a red fox"})).await;
    api.succeed(api.begin().await, PNG).await;
    let path = format!("/v1/images/{id}");
    let generation = api.get(&path).await;
    let image = &generation.json()["images"][0];
    let url = image["url"].as_str().unwrap();
    assert!(url.starts_with(&format!("{path}/content/0?exp=")), "{url}");
    assert!(image["url_expires_at"].is_string(), "{image}");
    assert_eq!(api.get(url).await.body, PNG);
    assert_eq!(api.get(&url.replace("/0?", "/0.png?")).await.body, PNG, "the same picture by its other name");
    assert_eq!(api.get_with(url, "range", "bytes=0-7").await.body, PNG[..8]);

    // A client that gets 304 keeps its URLs; new ones would be the same.
    let unchanged = api.get_with(&path, "if-none-match", generation.header("etag")).await;
    assert_eq!(unchanged.status, 304);
    let listed = api.get("/v1/images").await.json();
    assert_eq!(listed["data"][0]["images"][0]["url"], url, "the list has the same URL");
    let told = events(api.get(&format!("{path}/events?after=2")).await.text());
    assert_eq!(told.last().unwrap()["data"]["generation"]["images"][0]["url"], url);
}

#[tokio::test]
async fn invalid_and_expired_signatures_are_refused() {
    let api = TestApi::open(&SIGNED).await;
    let (id, other) = (api.create(json!({"prompt": "a fox"})).await, api.create(json!({"prompt": "a panda"})).await);
    api.succeed(api.begin().await, PNG).await;
    api.succeed(api.begin().await, PNG).await;
    let path = format!("/v1/images/{id}/content/0");
    let url = api.get(&format!("/v1/images/{id}")).await.json()["images"][0]["url"].as_str().unwrap().to_owned();
    let query = url.split_once('?').unwrap().1;
    let expiry = query.split_once('&').unwrap().0;
    for bad in [
        format!("{path}?{expiry}"),
        format!("{path}?{expiry}&sig=AAAA"),
        format!("/v1/images/{other}/content/0?{query}"),
        format!("/v1/images/{id}/content/1?{query}"),
        url.replace("exp=", "exp=1"),
    ] {
        let refused = api.get(&bad).await;
        assert_eq!((refused.status, refused.json()["code"].as_str()), (403, Some("signature_invalid")), "{bad}");
    }

    // A URL with a valid signature and an expiry in the past.
    let signer = latentd::http::signed::Signer::new(&{
        let flags = SIGNED.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
        latentd::config::Config::load(&latentd::config::Sources { flags, ..Default::default() }).unwrap().http
    });
    let expired = api.get(&signer.sign(&path, 1_700_000_000)).await;
    assert_eq!((expired.status, expired.json()["code"].as_str()), (410, Some("image_expired")));
    assert_eq!(expired.header("cache-control"), "no-store");
    // Without API keys, a picture needs no signature.
    assert_eq!(api.get(&path).await.status, 200);

    let silent = TestApi::open(&[]).await;
    let id = silent.create(json!({"prompt": "a fox"})).await;
    silent.succeed(silent.begin().await, PNG).await;
    let image = silent.get(&format!("/v1/images/{id}")).await.json()["images"][0].clone();
    assert_eq!(
        (image["url"].as_str(), &image["url_expires_at"]),
        (Some(&*format!("/v1/images/{id}/content/0")), &json!(null))
    );
}
