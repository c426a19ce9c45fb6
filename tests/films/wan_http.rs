//! Tests of films from a prompt over HTTP: answers, errors, a kill, and comparisons with diffusers.

use std::{fs, os::unix::fs::symlink, path::Path};

use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::{Method, StatusCode};
use serde_json::{Map, Value, json};

use crate::{
    answer::{ask, get, with},
    case::{self, FilmCase},
    http::{assert_same_after_kill, file, launch, made, output, picture, server, unzipped},
    server::{Launch, Server},
    wan_films::{TIMES, TWO},
};

fn request(model: &str) -> Value {
    json!({
        "model": model, "prompt": "a red fox", "frames": 5, "steps": 3, "seed": 5, "max_sequence_length": 20,
        "output": {"format": "zip", "provenance": false},
    })
}

#[tokio::test]
async fn a_film_is_made_from_a_prompt() {
    let data = tempfile::tempdir().unwrap();
    let server = server(data.path()).await;
    for (model, size, fps) in [(TWO, (32, 16), 16), (TIMES, (64, 32), 24)] {
        let ended = made(&server, &request(model)).await;
        let film = &ended["artifacts"][0];
        assert_eq!((&film["frames"], &film["fps"], &film["seed"]), (&json!(5), &json!(fps), &json!(5)), "{model}");
        let params = &ended["params"];
        assert_eq!((&params["prompt"], &params["negative_prompt"]), (&json!("a red fox"), &json!("")));
        assert_eq!((&params["guidance_scale"], &params["max_sequence_length"]), (&json!(5.0), &json!(20)));
        let second = if model == TWO { json!(5.0) } else { Value::Null };
        assert_eq!((&params["guidance_scale_2"], &params["motion_bucket_id"]), (&second, &Value::Null));
        let archive = file(&server, &ended).await;
        let (frames, note) = unzipped(&archive);
        assert!(frames.len() == 5 && frames.iter().all(|frame| (frame.width, frame.height) == size), "{model}");
        assert!(frames[0] != frames[4]);
        let again = with(&note.unwrap(), &output("zip"));
        assert!(archive == file(&server, &made(&server, &again).await).await, "the note makes the same film");
    }
    let mp4 = with(&request(TWO), &output("mp4"));
    assert_eq!(&file(&server, &made(&server, &mp4).await).await[4..8], b"ftyp");

    #[cfg(feature = "provenance")]
    {
        let signed = made(&server, &with(&request(TWO), &json!({"output": {"format": "mp4"}}))).await;
        let signed = file(&server, &signed).await;
        let verified = ask(&server, Method::POST, "/v1/verify?recompute=true", |post| {
            post.header("Content-Type", "video/mp4").body(signed.clone())
        });
        let verified = verified.await.json();
        assert_eq!((&verified["verdict"], &verified["recomputed"]["result"]), (&json!("intact"), &json!("same")));
        let again = verified["recomputed"]["generation"].as_str().unwrap();
        assert_eq!(get(&server, &format!("/v1/videos/{again}")).await.status, StatusCode::OK);
    }

    let long = with(&request(TWO), &json!({"prompt": "a fox ".repeat(9)}));
    let warnings = made(&server, &long).await["warnings"].clone();
    assert_eq!(
        (&warnings[0]["code"], &warnings[0]["pointer"]),
        (&json!("prompt_cut"), &json!("/prompt")),
        "{warnings}"
    );

    let models = get(&server, "/v1/models").await.json();
    let model = |id: &str| models["data"].as_array().unwrap().iter().find(|model| model["id"] == id).unwrap().clone();
    let capabilities = &model(TWO)["capabilities"];
    assert_eq!(capabilities["tasks"], json!(["text-to-video"]));
    assert_eq!(capabilities["film"], json!({"default_frames": 81, "frames_multiple": 4, "default_fps": 16}));
    let schema = get(&server, &format!("/v1/models/{TWO}/schema")).await.json();
    assert_eq!(schema["properties"]["max_sequence_length"]["maximum"], 512);
    assert!(schema["properties"].get("image").is_none() && schema["properties"].get("guidance_scale_2").is_some());
}

#[tokio::test]
async fn a_request_beyond_its_bounds_is_refused_with_the_field_and_the_bound() {
    let data = tempfile::tempdir().unwrap();
    let server = server(data.path()).await;
    for (model, more, pointer, code, said) in [
        (TWO, json!({"prompt": null}), "/prompt", "required", "required"),
        (
            TWO,
            json!({"frames": 18}),
            "/frames",
            "out_of_range",
            "1 more than a multiple of 4, such as 17 or 21, not 18",
        ),
        (TWO, json!({"frames": 3}), "/frames", "out_of_range", "such as 1 or 5, not 3"),
        (TWO, json!({"frames": 0}), "/frames", "out_of_range", "must be between 1 and 121, not 0"),
        (TWO, json!({"width": 40}), "/width", "out_of_range", "16"),
        (TWO, json!({"max_sequence_length": 513}), "/max_sequence_length", "out_of_range", "between 1 and 512"),
        (TWO, json!({"guidance_scale_2": 31}), "/guidance_scale_2", "out_of_range", "between 0 and 30"),
        (TWO, json!({"motion_bucket_id": 9}), "/motion_bucket_id", "unsupported_for_model", "follows from the prompt"),
        (TWO, json!({"min_guidance_scale": 2}), "/min_guidance_scale", "unsupported_for_model", "one guidance scale"),
        (TWO, json!({"noise_aug_strength": 1}), "/noise_aug_strength", "unsupported_for_model", "adds no noise"),
        (TWO, json!({"decode_chunk_size": 2}), "/decode_chunk_size", "unsupported_for_model", "needs no choice"),
        (TWO, json!({"image": STANDARD.encode(picture())}), "/image", "unsupported_for_model", "from a prompt alone"),
        (TIMES, json!({"guidance_scale_2": 3}), "/guidance_scale_2", "unsupported_for_model", "one denoiser"),
        (TIMES, json!({"height": 48}), "/height", "out_of_range", "32"),
    ] {
        let body = with(&request(model), &more);
        let refused = ask(&server, Method::POST, "/v1/videos", |post| post.json(&body)).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{more}: {refused:?}");
        let errors = refused.json()["errors"].as_array().unwrap().clone();
        let error = &errors[0];
        assert_eq!((&error["pointer"], &error["code"], errors.len()), (&json!(pointer), &json!(code), 1), "{errors:?}");
        assert!(error["detail"].as_str().unwrap().contains(said), "{error}");
    }
    assert_eq!(get(&server, "/v1/videos").await.json()["data"], json!([]));
}

/// Without `frames`, a film has the largest number of frames that the model can make and the server allows.
#[tokio::test]
async fn the_default_number_of_frames_follows_from_the_limit() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_ready(&launch(data.path()).set("LATENTD_LIMITS__MAX_FRAMES", 12)).await;
    let ended = made(&server, &with(&request(TWO), &json!({"frames": null}))).await;
    assert_eq!(ended["params"]["frames"], 9, "{ended}");
}

#[tokio::test]
async fn a_killed_generation_continues_with_the_same_bytes() {
    assert_same_after_kill(launch, &with(&request(TWO), &json!({"steps": 300, "n": 2})), 100.0).await;
}

#[tokio::test]
async fn films_over_http_equal_diffusers() {
    let Some(root) = case::complete() else { return };
    let (data, models) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let cases: Vec<(&str, FilmCase)> = ["wan-t2v", "wan-i2v", "wan22-a14b", "wan22-ti2v"]
        .into_iter()
        .flat_map(|pipeline| FilmCase::all(&root, pipeline).into_iter().map(move |case| (pipeline, case)))
        .collect();
    for (pipeline, case) in &cases {
        let (pipeline, folder) = (root.join("pipelines").join(pipeline), models.path().join(model(case)));
        match case.index() {
            Some(keys) => put_folder(&pipeline, keys, &folder),
            None => symlink(pipeline, folder).unwrap(),
        }
    }
    let server =
        Server::start_ready(&Launch::on(data.path()).set("LATENTD_MODELS__DIR", models.path().display())).await;
    for (pipeline, case) in &cases {
        let mut body = with(&case.body(&model(case)), &json!({"output": {"format": "zip"}}));
        if *pipeline == "wan-i2v" {
            // The model has no choice: it reads 512 tokens, as the cases do.
            assert_eq!(body.as_object_mut().unwrap().remove("max_sequence_length"), Some(json!(512)));
        }
        let (frames, _) = unzipped(&file(&server, &made(&server, &body).await).await);
        println!("{}: {} levels", case.name, case.compare(&frames));
    }
    assert!(cases.len() >= 14, "only {} cases", cases.len());
}

/// The name of a model for the case alone.
fn model(case: &FilmCase) -> String {
    case.name.replace('/', "-")
}

/// A copy of a folder, with other keys in `model_index.json`.
fn put_folder(from: &Path, keys: &Map<String, Value>, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            put_folder(&entry.path(), keys, &to);
        } else if entry.file_name() == "model_index.json" {
            let mut index: Value = serde_json::from_slice(&fs::read(entry.path()).unwrap()).unwrap();
            index.as_object_mut().unwrap().extend(keys.clone());
            fs::write(to, index.to_string()).unwrap();
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}
