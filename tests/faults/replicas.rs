//! Fault tests that several replicas behave like one server.

use std::sync::atomic::Ordering::Relaxed;

use latentd::generation::GenerationId;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    figures::Figures,
    load::{Load, request},
    server::{PATIENCE, Server, with},
    site::Site,
    stream,
};

/// T9: directly after a 202, every endpoint of every other replica knows the generation.
#[tokio::test(flavor = "multi_thread")]
async fn every_endpoint_works_on_every_replica() {
    let Some(site) =
        Site::with_bucket("T9 three replicas, two workers, PostgreSQL and S3 behind a round-robin proxy").await
    else {
        return;
    };
    let apis = [site.start("api").await, site.start("api").await, site.start("api").await];
    let workers = [site.start("worker").await, site.start("worker").await];
    site.open(&apis.each_ref());
    let load = Load::through(site.door.url());
    let mut asked = 0;
    let mut ask = async |server: &Server, method: Method, path: String| {
        asked += 1;
        let response = load.client.request(method, server.url(&path)).send().await.unwrap();
        let status = response.status();
        (status, response.bytes().await.unwrap())
    };
    let json = |body: &[u8]| serde_json::from_slice::<Value>(body).unwrap();
    for turn in 0..6 {
        let [a, b, c] = [0, 1, 2].map(|i| &apis[(turn + i) % 3]);
        let body = with(request(turn as u64, 30), &json!({"previews": 2}));
        let id = a.accept(&body).await;
        load.note(&format!("t9-{turn}"), &id);
        // Every replica reads the new generation at once.
        for server in [b, c, a] {
            let (status, body) = ask(server, Method::GET, format!("/v1/images/{id}")).await;
            assert_eq!((status, &json(&body)["id"]), (StatusCode::OK, &id.as_str().into()));
            let (_, body) = ask(server, Method::GET, "/v1/images?limit=100".to_owned()).await;
            assert!(json(&body)["data"].as_array().unwrap().iter().any(|listed| listed["id"] == id.as_str()));
            let (status, _) = ask(server, Method::GET, format!("/v1/images/{id}/preview")).await;
            assert!([StatusCode::OK, StatusCode::NO_CONTENT].contains(&status), "{status}");
        }
        // Readers on every replica get the end of the generation and its pictures.
        let urls = [a, b, c].map(|server| server.url(&format!("/v1/images/{id}/events")));
        let reads = urls.iter().map(|url| stream::read(&load.client, url, 0, PATIENCE));
        for read in futures::future::join_all(reads).await {
            let (status, events) = read.unwrap();
            assert!(status == StatusCode::OK && stream::is_history(&events), "{events:?}");
        }
        let mut pictures = Vec::new();
        for server in [a, b, c] {
            let (status, picture) = ask(server, Method::GET, format!("/v1/images/{id}/content/0")).await;
            assert_eq!(status, StatusCode::OK);
            pictures.push(picture);
        }
        assert!(pictures[0] == pictures[1] && pictures[1] == pictures[2]);
        // An id that the client chooses creates one generation, whichever replicas get the request.
        let own = GenerationId::new().to_string();
        for server in [a, b, c] {
            let answer = load.client.put(server.url(&format!("/v1/images/{own}"))).json(&body).send().await.unwrap();
            let (status, text) = (answer.status(), answer.text().await.unwrap());
            assert!(status.is_success(), "{status} {text}");
            assert_eq!(json(text.as_bytes())["id"], own.as_str());
        }
        load.note(&format!("t9-own-{turn}"), &own);
        // One replica cancels the generation and another deletes it.
        let id = a.accept(&with(body, &json!({"steps": 900}))).await;
        let (status, _) = ask(b, Method::POST, format!("/v1/images/{id}/cancel")).await;
        assert!(status.is_success(), "{status}");
        assert_eq!(c.ended(&id).await["status"], "canceled");
        assert_eq!(ask(c, Method::DELETE, format!("/v1/images/{id}")).await.0, StatusCode::NO_CONTENT);
        for server in [a, b, c] {
            assert_eq!(ask(server, Method::GET, format!("/v1/images/{id}")).await.0, StatusCode::NOT_FOUND);
        }
    }
    for server in &apis {
        for path in [
            "/v1/models",
            "/v1/models/emoji",
            "/v1/loras",
            "/v1/controlnets",
            "/v1/schedulers",
            "/v1/queue",
            "/health",
            "/openapi.yaml",
            "/openapi.json",
            "/",
        ] {
            assert_eq!(ask(server, Method::GET, path.to_owned()).await.0, StatusCode::OK, "{path}");
        }
    }
    let figures = Figures::default().note(format!("{asked} requests to replicas other than the one before, all right"));
    site.verdict(&load, figures).await;
    drop(workers);
}

/// T27: the stream of all own generations reports a deletion that another replica has made.
#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_is_told_on_every_replica() {
    let Some(site) = Site::shared("T27 deletions at one replica, the stream at the other, PostgreSQL").await else {
        return;
    };
    let servers = [site.start("all").await, site.start("api").await];
    site.open(&servers.each_ref());
    let load = Load::through(site.door.url());
    let id = servers[0].accept(&request(0, 5)).await;
    load.note("kept", &id);
    for (here, there) in [(0, 1), (1, 0)] {
        let (here, there) = (&servers[here], &servers[there]);
        let mut stream = load.client.get(there.url("/v1/events")).send().await.unwrap();
        assert_eq!(stream.status(), StatusCode::OK);
        let id = here.accept(&request(1, 5)).await;
        here.ended(&id).await;
        let deleted = load.client.delete(here.url(&format!("/v1/images/{id}"))).send().await.unwrap();
        assert_eq!(deleted.status(), StatusCode::NO_CONTENT);
        let told = format!("event: generation.deleted\ndata: {{\"id\":\"{id}\"}}\n\n");
        let mut text = String::new();
        let reading = async {
            while !text.contains(&told) {
                text += std::str::from_utf8(&stream.chunk().await.unwrap().expect("the stream has no end")).unwrap();
            }
        };
        let read = tokio::time::timeout(PATIENCE, reading).await;
        assert!(read.is_ok(), "the deletion is not told: {text}");
    }
    site.verdict(&load, Figures::default().note("told in both directions".to_owned())).await;
}

/// T10.
#[tokio::test(flavor = "multi_thread")]
async fn one_key_creates_one_generation_on_three_replicas() {
    let name = "T10 a hundred requests with one key on three replicas, half of them others";
    let Some(site) = Site::shared(name).await else { return };
    let servers = [site.start("all").await, site.start("api").await, site.start("api").await];
    one_key(site, &servers.each_ref()).await;
}

/// T10 on SQLite.
#[tokio::test(flavor = "multi_thread")]
async fn one_key_creates_one_generation_on_one_process() {
    let site = Site::single("T10 a hundred requests with one key on one process, half of them others").await;
    let server = site.start("all").await;
    one_key(site, &[&server]).await;
}

async fn one_key(site: Site, servers: &[&Server]) {
    site.open(servers);
    let load = Load::through(site.door.url());
    let bodies = [request(1, 5), request(2, 5)];
    let answers = futures::future::join_all((0..100).map(|i| {
        let (load, body) = (&load, &bodies[i % 2]);
        async move {
            let ask = || load.client.post(load.url("/v1/images")).header("Idempotency-Key", "one").json(body);
            (i % 2, load.until_answered(ask).await)
        }
    }))
    .await;
    let accepted: Vec<(usize, String)> = answers
        .iter()
        // 200 if the generation had ended already.
        .filter(|(_, (status, _))| matches!(*status, StatusCode::ACCEPTED | StatusCode::OK))
        .map(|(body, (_, text))| {
            (*body, serde_json::from_str::<Value>(text).unwrap()["id"].as_str().unwrap().to_owned())
        })
        .collect();
    let first = accepted.first().expect("one is accepted");
    assert!(accepted.iter().all(|other| other == first), "one generation, of one body: {accepted:?}");
    assert_eq!(accepted.len(), 50, "every request with the accepted body gets the generation");
    for (body, (status, text)) in answers.iter().filter(|(body, _)| *body != first.0) {
        let code = serde_json::from_str::<Value>(text).unwrap()["code"].clone();
        assert_eq!((*status, code), (StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused".into()), "{body}");
    }
    load.note("one", &first.1);
    let figures = Figures::default()
        .note(format!("{} same and {} others refused", accepted.len(), answers.len() - accepted.len()))
        .note(format!("{} tried again", load.refused.load(Relaxed) + load.broken.load(Relaxed)));
    site.verdict(&load, figures).await;
}
