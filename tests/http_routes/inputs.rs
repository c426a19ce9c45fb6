//! Tests of uploaded pictures: broken files, repeated uploads, and clients that disconnect during an upload.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::api::{TestApi, post};

/// A PNG file of noise; each seed makes a different file.
fn picture(seed: u8) -> Vec<u8> {
    let mut file = Vec::new();
    let encoder = png::Encoder::new(&mut file, 64, 64);
    let pixels: Vec<u8> = (0..64 * 64u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8 ^ seed).collect();
    encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
    file
}

fn b64(file: &[u8]) -> Value {
    STANDARD.encode(file).into()
}

/// The first half of a file.
fn first_half(file: &[u8]) -> &[u8] {
    &file[..file.len() / 2]
}

#[tokio::test]
async fn a_truncated_picture_leaves_no_stored_uploads() {
    let api = TestApi::open(&[]).await;
    let (whole, broken) = (b64(&picture(1)), b64(first_half(&picture(2))));
    let refused = api.ask(post(&json!({"prompt": "a", "image": whole, "mask": broken}), &[])).await;
    assert_eq!(refused.status, 422, "{}", refused.text());
    let errors = refused.json()["errors"].clone();
    assert_eq!((errors[0]["pointer"].as_str(), errors[0]["code"].as_str()), (Some("/mask"), Some("image_undecodable")));
    api.afterwork.close();
    api.afterwork.wait().await;
    assert!(api.blobs.generations().await.unwrap().is_empty(), "the first picture was stored and is erased");
}

#[tokio::test]
async fn an_upload_in_several_fields_is_one_file() {
    let api = TestApi::open(&[]).await;
    let first = api.ask(post(&json!({"prompt": "a", "image": b64(&picture(1))}), &[])).await;
    assert_eq!(first.status, 202, "{}", first.text());
    let image = first.json()["params"]["image"].clone();
    assert_eq!((&image["width"], &image["height"]), (&json!(64), &json!(64)));
    let upload = json!({"upload": image["upload"]});
    let control = json!({"model": "emoji-canny", "image": upload});
    let body = json!({"prompt": "a", "image": upload, "mask": upload, "controls": [control, control]});
    let second = api.ask(post(&body, &[])).await;
    assert_eq!(second.status, 202, "{}", second.text());
    let params = second.json()["params"].clone();
    for place in ["/image", "/mask", "/controls/0/image", "/controls/1/image"] {
        assert_eq!(params.pointer(place), Some(&image), "{place}");
    }
    assert_eq!(api.blobs.generations().await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_list_of_pictures_is_refused_by_models_that_take_one() {
    let api = TestApi::open(&[]).await;
    let errors = async |image: Value| {
        let refused = api.ask(post(&json!({"prompt": "a", "image": image}), &[])).await;
        assert_eq!(refused.status, 422, "{}", refused.text());
        let errors = refused.json()["errors"].clone();
        let error = |error: &Value| (error["pointer"].as_str().unwrap().to_owned(), error["detail"].to_string());
        errors.as_array().unwrap().iter().map(error).collect::<Vec<_>>()
    };
    let one = b64(&picture(1));
    for list in [json!([one, one]), json!([])] {
        let found = errors(list).await;
        assert!(found.len() == 1 && found[0].0 == "/image" && found[0].1.contains("a list with one"), "{found:?}");
    }
    let many = json!([one, one, one, one, one]);
    assert_eq!(errors(many).await[0].0, "/image");
    for broken in [Value::Null, json!(7), json!({"url": "https://example.org/"})] {
        let found = errors(json!([one, broken])).await;
        assert!(found.iter().any(|(pointer, _)| pointer == "/image/1"), "{found:?}");
    }
    // A list of one picture is that picture.
    let alone = api.ask(post(&json!({"prompt": "a", "image": [one]}), &[])).await;
    assert_eq!(alone.status, 202, "{}", alone.text());
    assert_eq!(alone.json()["params"]["image"]["width"], 64);
}

#[tokio::test]
async fn a_disconnect_ends_the_reading_of_uploads() {
    let api = TestApi::open(&[]).await;
    let controls: Vec<Value> =
        (0..4).map(|seed| json!({"model": "emoji-canny", "image": b64(&picture(seed))})).collect();
    let request = post(&json!({"prompt": "a", "controls": controls}), &[("accept", "image/png")]);
    let first_stored = async {
        while api.blobs.generations().await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    // Without a worker no answer comes, so the client disconnects first, after some or all pictures have been stored.
    tokio::select! {
        answer = api.send(request) => panic!("answered {answer:?}"),
        () = first_stored => {}
    }
    api.afterwork.close();
    api.afterwork.wait().await;
    let made = api.get("/v1/images").await.json()["data"].clone();
    match made.as_array().unwrap().first() {
        None => assert!(api.blobs.generations().await.unwrap().is_empty(), "the stored files are erased"),
        // On a busy machine, the request may have been accepted before the test disconnected.
        Some(generation) => assert_eq!(generation["status"], "canceled"),
    }
}
