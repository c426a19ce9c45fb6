//! Tests of the first requests of a new user.

use reqwest::{StatusCode, header};
use serde_json::{Value, json};

use crate::harness::{Server, decode, request, unsigned, with};

#[tokio::test]
async fn the_three_one_line_requests_are_answered() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;

    let form = server.client.post(server.url("/v1/images.png")).form(&[("prompt", "a red fox"), ("seed", "7")]);
    let response = form.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()[header::CONTENT_TYPE], "image/png");
    assert_eq!(response.headers()["latentd-seed"], "7");
    let by_form = response.bytes().await.unwrap();
    assert_eq!(&decode(&by_form).0, &128);

    let json =
        server.client.post(server.url("/v1/images")).header("Accept", "image/png").json(&request("a red fox", 7));
    let by_json = json.send().await.unwrap().bytes().await.unwrap();
    assert_eq!(unsigned(&by_form), unsigned(&by_json), "a picture is a function of its request");

    let stream = server.client.post(server.url("/v1/images")).header("Accept", "text/event-stream");
    let events = stream.form(&[("prompt", "a red fox")]).send().await.unwrap().text().await.unwrap();
    for event in ["generation.queued", "generation.started", "generation.progress", "generation.succeeded"] {
        assert!(events.contains(&format!("event: {event}")), "{event} is missing in {events}");
    }
}

#[tokio::test]
async fn a_generation_can_be_followed_fetched_repeated_and_deleted() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;
    let body = json!({"prompt": "a red apple", "n": 2, "steps": 6, "width": 96, "height": 64, "scheduler": "euler_a",
        "metadata": {"customer": "7"}, "previews": 3});
    let id = server.accept(&body).await;
    let ended = server.ended(&id).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    assert_eq!(ended["params"]["steps"], 6);
    assert_eq!(ended["metadata"]["customer"], "7");
    assert_eq!(ended["attempt"], 1);
    let images = ended["images"].as_array().unwrap();
    assert_eq!(images.len(), 2);
    let seed = images[1]["seed"].as_u64().unwrap();
    assert_eq!(seed, ended["params"]["seed"].as_u64().unwrap() + 1);

    let second = server.picture(&id, 1).await;
    assert_eq!(decode(&second).0, 96);
    assert_eq!(images[1]["bytes"], server.file(&id, 1).await.len());
    let alone = with(body.clone(), &json!({"n": 1, "seed": seed, "previews": 0}));
    let again = server.accept(&alone).await;
    server.ended(&again).await;
    assert_eq!(decode(&server.picture(&again, 0).await), decode(&second), "image i is the picture of seed + i");

    let etag = server.get(&format!("/v1/images/{id}/content/1")).await.headers()[header::ETAG].clone();
    let content = server.client.get(server.url(&format!("/v1/images/{id}/content/1.png")));
    let unchanged = content.header(header::IF_NONE_MATCH, etag).send().await.unwrap();
    assert_eq!(unchanged.status(), StatusCode::NOT_MODIFIED);

    let listed = server.json("/v1/images?limit=1&status=succeeded").await;
    assert_eq!(listed["data"][0]["id"], again.as_str());
    assert_eq!(listed["has_more"], true);

    let erased = server.client.delete(server.url(&format!("/v1/images/{id}"))).send().await.unwrap();
    assert_eq!(erased.status(), StatusCode::NO_CONTENT);
    assert_eq!(server.get(&format!("/v1/images/{id}")).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(server.get(&format!("/v1/images/{id}/content/1")).await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_picture_file_contains_the_request_that_draws_it_again() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;
    let id = server.accept(&json!({"prompt": "ein grüner Frosch", "steps": 4, "guidance_scale": 3.5})).await;
    server.ended(&id).await;
    let file = server.picture(&id, 0).await;
    let reader = png::Decoder::new(std::io::Cursor::new(&file)).read_info().unwrap();
    let texts = &reader.info().utf8_text;
    let text = |keyword: &str| texts.iter().find(|text| text.keyword == keyword).unwrap().get_text().unwrap();
    assert!(text("parameters").starts_with("ein grüner Frosch\n"), "{}", text("parameters"));
    let params: Value = serde_json::from_str(&text("latentd")).unwrap();
    let again = server.accept(&params).await;
    server.ended(&again).await;
    assert_eq!(server.picture(&again, 0).await, file);
}

#[tokio::test]
async fn the_catalogues_the_page_and_the_contract_are_served() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;
    let models = server.json("/v1/models").await;
    assert_eq!(models["data"][0]["id"], "emoji");
    let schedulers = server.json("/v1/schedulers").await.to_string();
    for name in ["pndm", "ddim", "ddpm", "euler", "euler_a", "heun", "dpmpp_2m", "dpmpp_2m_karras"] {
        assert!(schedulers.contains(&format!("\"{name}\"")), "{name}");
    }
    for path in ["/", "/openapi.yaml", "/openapi.json", "/health", "/v1/queue"] {
        let response = server.get(path).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        assert!(response.headers().contains_key("x-request-id"), "{path}");
    }
    assert!(server.get("/").await.text().await.unwrap().contains("<html"));
    assert_eq!(server.get_operator("/livez").await.status(), StatusCode::OK);
    assert!(server.get_operator("/metrics").await.text().await.unwrap().contains("latentd_batch_rows"));
}
