//! Tests of films from a prompt and a picture over HTTP: answers and errors.

use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    answer::{ask, get, with},
    http::{file, made, picture, unzipped},
    server::{Launch, Server},
    wan_films::TIMES,
    wan_pictures::{self, SEEING},
};

async fn server(data: &std::path::Path) -> Server {
    let models = data.join("models");
    wan_pictures::put_models(&models);
    Server::start_ready(&Launch::on(data).set("LATENTD_MODELS__DIR", models.display())).await
}

fn request(model: &str) -> Value {
    json!({
        "model": model, "prompt": "a red fox", "frames": 5, "steps": 2, "seed": 5,
        "image": STANDARD.encode(picture()), "output": {"format": "zip", "provenance": false},
    })
}

#[tokio::test]
async fn a_film_is_made_from_a_prompt_and_a_picture() {
    let data = tempfile::tempdir().unwrap();
    let server = server(data.path()).await;
    for (model, tasks, length) in [
        (SEEING, json!(["image-to-video"]), Value::Null),
        (TIMES, json!(["text-to-video", "image-to-video"]), json!(512)),
    ] {
        let ended = made(&server, &request(model)).await;
        assert_eq!(ended["params"]["max_sequence_length"], length, "{model}");
        let (frames, note) = unzipped(&file(&server, &ended).await);
        assert_eq!(frames.len(), 5, "{model}");
        // The note has everything but the picture.
        let again = with(&note.unwrap(), &json!({"image": STANDARD.encode(picture())}));
        let again = with(&again, &json!({"output": {"format": "zip", "provenance": false}}));
        assert!(unzipped(&file(&server, &made(&server, &again).await).await).0 == frames, "{model}");
        let models = get(&server, "/v1/models").await.json();
        let listed = models["data"].as_array().unwrap().iter().find(|listed| listed["id"] == model).unwrap().clone();
        assert_eq!(listed["capabilities"]["tasks"], tasks, "{model}");
    }
    let without = made(&server, &with(&request(TIMES), &json!({"image": null}))).await;
    assert_eq!(without["params"]["image"], Value::Null);
}

#[tokio::test]
async fn a_request_for_a_film_with_a_picture_is_refused_with_the_field() {
    let data = tempfile::tempdir().unwrap();
    let server = server(data.path()).await;
    for (more, pointer, code) in [
        (json!({"image": null}), "/image", "required"),
        (json!({"max_sequence_length": 20}), "/max_sequence_length", "unsupported_for_model"),
    ] {
        let body = with(&request(SEEING), &more);
        let refused = ask(&server, Method::POST, "/v1/videos", |post| post.json(&body)).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{more}: {refused:?}");
        let errors = refused.json()["errors"].clone();
        assert_eq!((&errors[0]["pointer"], &errors[0]["code"]), (&json!(pointer), &json!(code)), "{errors}");
    }
}
