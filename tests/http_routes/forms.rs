//! Tests of multipart forms as various clients write them.

use axum::{body::Body, http::Request};
use serde_json::{Value, json};

use crate::api::{Answer, TestApi};

/// The headers and the content of a part.
type Part<'a> = (&'a str, &'a [u8]);

async fn send(api: &TestApi, parts: &[Part<'_>]) -> Answer {
    send_with(api, "frontier", parts).await
}

async fn send_with(api: &TestApi, boundary: &str, parts: &[Part<'_>]) -> Answer {
    let mut body = Vec::new();
    for (head, content) in parts {
        body.extend(format!("--{boundary}\r\n{head}\r\n\r\n").bytes());
        body.extend(*content);
        body.extend(b"\r\n");
    }
    body.extend(format!("--{boundary}--\r\n").bytes());
    let kind = format!("multipart/form-data; boundary={boundary}");
    let request = Request::post("/v1/images").header("content-type", kind);
    api.ask(request.body(Body::from(body)).unwrap()).await
}

fn picture() -> Vec<u8> {
    let mut file = Vec::new();
    let encoder = png::Encoder::new(&mut file, 64, 64);
    encoder.write_header().unwrap().write_image_data(&[0x80; 64 * 64]).unwrap();
    file
}

const PROMPT: Part<'static> = ("Content-Disposition: form-data; name=\"prompt\"", b"a red fox");

fn errors(answer: &Answer) -> Vec<(String, String)> {
    assert_eq!(answer.status, 422, "{}", answer.text());
    let text = |error: &Value, key: &str| error[key].as_str().unwrap().to_owned();
    let errors = answer.json()["errors"].as_array().unwrap().clone();
    errors.iter().map(|error| (text(error, "pointer"), text(error, "detail"))).collect()
}

#[tokio::test]
async fn a_picture_is_accepted_with_every_form_of_its_part_headers() {
    let api = TestApi::open(&[]).await;
    let file = picture();
    for head in [
        "Content-Disposition: form-data; name=\"image\"; filename=\"a.png\"\r\nContent-Type: image/png",
        "content-disposition: FORM-DATA; NAME=\"image\"; FILENAME=\"a.png\"",
        "Content-Disposition: form-data; name*=UTF-8''image; filename*=UTF-8''b%C3%A4r.png",
        "Content-Disposition: form-data; filename*=utf-8''a.png; name=image",
        // Parts without a file name.
        "Content-Disposition: form-data; name=\"image\"",
        "Content-Disposition: form-data; name=\"image\"\r\nContent-Type: application/octet-stream",
        "Content-Disposition: form-data; name=\"image\"\r\nContent-Type: image/png",
    ] {
        let answer = send(&api, &[PROMPT, (head, &file)]).await;
        assert_eq!(answer.status, 202, "{head}: {}", answer.text());
        assert_eq!(answer.json()["params"]["image"]["width"], 64, "{head}");
    }
}

#[tokio::test]
async fn a_boundary_within_a_file_ends_nothing() {
    let api = TestApi::open(&[]).await;
    let mut file = picture();
    // Data after the end of the picture, which contain the boundary but no end of a head for a long time.
    file.extend(b"--x--x--x");
    file.extend([b'.'; 20_000]);
    let head = "Content-Disposition: form-data; name=\"image\"; filename=\"a.png\"";
    let answer = send_with(&api, "x", &[PROMPT, (head, &file)]).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
}

#[tokio::test]
async fn too_many_parts_are_an_error() {
    let api = TestApi::open(&[]).await;
    for count in [101, 5000] {
        let answer = send(&api, &vec![PROMPT; count]).await;
        assert_eq!((answer.status, answer.json()["code"].as_str()), (400, Some("malformed_form")));
        assert!(answer.text().contains("more than 100 parts"), "{}", answer.text());
    }
}

#[tokio::test]
async fn a_file_input_without_a_chosen_file_is_no_picture() {
    let api = TestApi::open(&[]).await;
    let head =
        "Content-Disposition: form-data; name=\"image\"; filename=\"\"\r\nContent-Type: application/octet-stream";
    let answer = send(&api, &[PROMPT, (head, b"")]).await;
    assert_eq!((answer.status, &answer.json()["params"]["image"]), (202, &Value::Null), "{}", answer.text());
    let named = "Content-Disposition: form-data; name=\"image\"; filename=\"a.png\"";
    let answer = send(&api, &[PROMPT, (named, b"")]).await;
    assert_eq!(
        errors(&answer),
        [("/image".to_owned(), "image is empty; it must be a PNG, JPEG or WebP picture".to_owned())]
    );
}

#[tokio::test]
async fn a_text_sent_as_a_file_is_one_error() {
    let api = TestApi::open(&[]).await;
    let head = "Content-Disposition: form-data; name=\"prompt\"; filename=\"prompt.txt\"";
    let said = "prompt must be a text, not a file: send the part without a filename";
    assert_eq!(errors(&send(&api, &[(head, b"a red fox")]).await), [("/prompt".to_owned(), said.to_owned())]);
}

#[tokio::test]
async fn a_control_can_name_its_picture_as_text_or_as_an_object() {
    let api = TestApi::open(&[]).await;
    let file = picture();
    let part = "Content-Disposition: form-data; name=\"edges\"; filename=\"edges.png\"";
    let controls = "Content-Disposition: form-data; name=\"controls\"";
    for image in [json!("edges"), json!({"file": "edges"})] {
        let value = json!([{"model": "emoji-canny", "image": image}]).to_string();
        let answer = send(&api, &[PROMPT, (controls, value.as_bytes()), (part, &file)]).await;
        assert_eq!(answer.status, 202, "{image}: {}", answer.text());
    }
    let value = json!([{"model": "emoji-canny", "image": "depth"}]).to_string();
    let answer = send(&api, &[PROMPT, (controls, value.as_bytes())]).await;
    let said = "controls.0.image is neither base64 nor the name of a file of the body: \"depth\"";
    assert_eq!(errors(&answer), [("/controls/0/image".to_owned(), said.to_owned())]);
}

#[tokio::test]
async fn the_error_names_what_a_part_lacks() {
    let api = TestApi::open(&[]).await;
    for (head, content, said) in [
        ("Content-Disposition: form-data", &b"a"[..], "a part has no name: Content-Disposition must read"),
        ("Content-Type: image/png", b"a", "a part has no name: Content-Disposition must read"),
        ("Content-Disposition: form-data; name=\"edges\"", b"\xff\xd8", "a file needs a filename"),
        ("Content-Disposition: form-data; name=\"prompt\"", b"\xff", "the value of prompt is not UTF-8"),
    ] {
        let answer = send(&api, &[(head, content)]).await;
        assert_eq!((answer.status, &answer.json()["code"]), (400, &json!("malformed_form")), "{head}");
        assert!(answer.text().contains(said), "{head}: {}", answer.text());
    }
}

#[tokio::test]
async fn the_error_of_an_unknown_digest_suggests_sending_the_picture() {
    let api = TestApi::open(&[]).await;
    let body = json!({"prompt": "a", "image": {"upload": "0".repeat(64)}});
    let errors = errors(&api.ask(crate::api::post(&body, &[])).await);
    let said = format!(
        "image names no stored picture: {} was never stored or is erased; send the picture itself",
        "0".repeat(64)
    );
    assert_eq!(errors, [("/image".to_owned(), said)]);
}
