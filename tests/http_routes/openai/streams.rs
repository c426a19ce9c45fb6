//! Tests of streams of events.

use futures::StreamExt;
use latentd::{generation::Format, service::Preview};

use super::*;
use crate::conforms::events;

fn preview(preview_index: u32) -> Preview {
    let media_type = Format::Png.into();
    Preview { index: 0, step: 1 + preview_index, preview_index, media_type, bytes: PNG.into() }
}

#[tokio::test]
async fn a_stream_has_partial_pictures_and_the_finished_one() {
    let api = TestApi::open(&[("http.ping_interval_s", "0.01")]).await;
    // OpenAI's SDKs ask for JSON also with a stream.
    let request = sdk(GENERATIONS, &json!({"prompt": "a", "stream": true, "partial_images": 2}), &[]);
    let response = api.send(request).await;
    assert_eq!(response.status().as_u16(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut chunks = response.into_body().into_data_stream();
    let mut text = String::new();
    let lease = api.begin().await;
    let job = api.store.get(lease.id()).await.unwrap().unwrap().job;
    assert_eq!(job.previews, 2);
    for number in 0..2 {
        api.live.preview(lease.id(), preview(number));
        while text.matches("partial_image_index").count() <= number as usize {
            text += std::str::from_utf8(&chunks.next().await.unwrap().unwrap()).unwrap();
        }
    }
    while !text.contains(": ping\n\n") {
        text += std::str::from_utf8(&chunks.next().await.unwrap().unwrap()).unwrap();
    }
    api.succeed(lease, PNG).await;
    while let Some(chunk) = chunks.next().await {
        text += std::str::from_utf8(&chunk.unwrap()).unwrap();
    }
    crate::conforms::assert_conforms("POST", GENERATIONS, 200, text.as_bytes());
    assert!(text.lines().all(|line| !line.starts_with("id:") && !line.starts_with("retry:") && line != "data: "));
    let events = events(&text);
    let kinds: Vec<_> = events.iter().map(|event| event["data"]["type"].as_str().unwrap()).collect();
    assert_eq!(
        kinds,
        ["image_generation.partial_image", "image_generation.partial_image", "image_generation.completed"]
    );
    for (index, event) in events.iter().enumerate() {
        assert_eq!(event["event"], event["data"]["type"]);
        assert_eq!(event["data"]["b64_json"], BASE64_STANDARD.encode(PNG));
        assert_eq!(event["data"]["partial_image_index"].as_u64(), (index < 2).then_some(index as u64));
    }
    assert_eq!(events[2]["data"]["usage"]["output_tokens"], 16);
}

#[tokio::test]
async fn every_picture_of_a_stream_is_an_event() {
    let api = TestApi::open(&[]).await;
    let body = json!({"prompt": "a", "n": 2, "stream": true, "response_format": "b64_json"});
    let files = [("image/png", "png", PNG), ("image/png", "png", PNG)];
    let worker = async { api.succeed_with_files(api.begin_next().await, &files).await };
    let (answer, ()) = tokio::join!(api.ask(sdk(GENERATIONS, &body, &[])), worker);
    let events = events(answer.text());
    let indices: Vec<_> = events.iter().map(|event| event["data"]["image_index"].as_u64().unwrap()).collect();
    assert_eq!(indices, [0, 1]);
    let input: Vec<_> = events.iter().map(|event| event["data"]["usage"]["input_tokens"].as_u64().unwrap()).collect();
    assert_eq!(input, [1, 0], "the request counts once");
}

#[tokio::test]
async fn the_finished_picture_of_a_stream_has_the_warnings() {
    let api = TestApi::open(&[]).await;
    for (size, expected) in [("128x128", Value::Null), ("192x128", json!("size_not_native"))] {
        let body = json!({"prompt": "a fox", "size": size, "stream": true});
        let worker = async { api.succeed(api.begin_next().await, PNG).await };
        let (answer, ()) = tokio::join!(api.ask(sdk(GENERATIONS, &body, &[])), worker);
        let events = events(answer.text());
        let last = events.last().unwrap();
        assert_eq!(
            (&last["event"], &last["data"]["warnings"][0]["code"]),
            (&json!("image_generation.completed"), &expected)
        );
    }
}

#[tokio::test]
async fn an_error_ends_the_stream() {
    let api = TestApi::open(&[]).await;
    let request = || sdk(GENERATIONS, &json!({"prompt": "a", "stream": true}), &[]);
    let fail = async { api.fail(api.begin_next().await, "out_of_memory").await };
    let (answer, ()) = tokio::join!(api.ask(request()), fail);
    let failed = events(answer.text());
    assert_eq!((answer.status, failed.len(), &failed[0]["event"]), (200, 1, &json!("error")));
    assert_eq!(failed[0]["data"]["error"]["code"], "out_of_memory");
    assert_eq!(failed[0]["data"]["error"]["message"], "as tested");
    let stop = async {
        api.begin_next().await;
        api.draining.cancel();
    };
    let (answer, ()) = tokio::join!(api.ask(request()), stop);
    assert_eq!(events(answer.text())[0]["data"]["error"]["code"], "draining");
    assert!(!api.store.get(active(&api).await).await.unwrap().unwrap().cancel_requested);
}

#[tokio::test]
async fn a_refused_stream_is_an_error_before_it_begins() {
    let api = TestApi::open(&[]).await;
    let answer = ask(&api, json!({"prompt": "a", "stream": true, "steps": 0})).await;
    assert_eq!(error(&answer), (400, "steps".to_owned(), "out_of_range".to_owned()));
    assert_eq!(answer.header("content-type"), "application/json");
}

#[tokio::test]
async fn a_client_that_leaves_its_stream_cancels_its_generation() {
    let api = TestApi::open(&[("http.ping_interval_s", "0.01")]).await;
    let request = sdk(GENERATIONS, &json!({"prompt": "a", "stream": true}), &[]);
    let mut stream = api.send(request).await.into_body().into_data_stream();
    stream.next().await.unwrap().unwrap();
    api.begin_next().await;
    drop(stream);
    api.afterwork.close();
    api.afterwork.wait().await;
    assert!(api.store.get(active(&api).await).await.unwrap().unwrap().cancel_requested);
}
