//! Pictures that requests bring along: looked at before anything is decoded, and left alone when their client leaves.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::desk::{Desk, post};

/// A PNG of noise, so that two are different files.
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

/// The same picture whose last pixels are missing.
fn cut(file: &[u8]) -> &[u8] {
    &file[..file.len() / 2]
}

#[tokio::test]
async fn a_picture_that_ends_too_soon_leaves_nothing_of_the_others() {
    let desk = Desk::open(&[]).await;
    let (whole, broken) = (b64(&picture(1)), b64(cut(&picture(2))));
    let refused = desk.ask(post(&json!({"prompt": "a", "image": whole, "mask": broken}), &[])).await;
    assert_eq!(refused.status, 422, "{}", refused.text());
    let errors = refused.json()["errors"].clone();
    assert_eq!((errors[0]["pointer"].as_str(), errors[0]["code"].as_str()), (Some("/mask"), Some("image_undecodable")));
    desk.afterwork.close();
    desk.afterwork.wait().await;
    assert!(desk.blobs.generations().await.unwrap().is_empty(), "the first picture was stored and is erased");
}

#[tokio::test]
async fn the_same_upload_in_several_places_is_one_file() {
    let desk = Desk::open(&[]).await;
    let first = desk.ask(post(&json!({"prompt": "a", "image": b64(&picture(1))}), &[])).await;
    assert_eq!(first.status, 202, "{}", first.text());
    let image = first.json()["params"]["image"].clone();
    assert_eq!((&image["width"], &image["height"]), (&json!(64), &json!(64)));
    let upload = json!({"upload": image["upload"]});
    let control = json!({"model": "emoji-canny", "image": upload});
    let body = json!({"prompt": "a", "image": upload, "mask": upload, "controls": [control, control]});
    let second = desk.ask(post(&body, &[])).await;
    assert_eq!(second.status, 202, "{}", second.text());
    let params = second.json()["params"].clone();
    for place in ["/image", "/mask", "/controls/0/image", "/controls/1/image"] {
        assert_eq!(params.pointer(place), Some(&image), "{place}");
    }
    assert_eq!(desk.blobs.generations().await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_reading_of_its_pictures() {
    let desk = Desk::open(&[]).await;
    let controls: Vec<Value> =
        (0..4).map(|seed| json!({"model": "emoji-canny", "image": b64(&picture(seed))})).collect();
    let request = post(&json!({"prompt": "a", "controls": controls}), &[("accept", "image/png")]);
    let first_stored = async {
        while desk.blobs.generations().await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    // The answer would need a worker, so that the client leaves first: with some pictures stored or with all of them.
    tokio::select! {
        answer = desk.send(request) => panic!("answered {answer:?}"),
        () = first_stored => {}
    }
    desk.afterwork.close();
    desk.afterwork.wait().await;
    let made = desk.get("/v1/images").await.json()["data"].clone();
    match made.as_array().unwrap().first() {
        None => assert!(desk.blobs.generations().await.unwrap().is_empty(), "what was stored is erased"),
        // On a busy machine it may have been accepted before this test looked.
        Some(generation) => assert_eq!(generation["status"], "canceled"),
    }
}
