//! Tests of films by models of pictures with motion adapters over HTTP and on the command line.

use std::{fs, path::Path, process::Command};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    answer::{ask, get, with},
    http::{assert_previews, assert_same_after_kill, file, made, output, unzipped},
    motion_adapters::{for_emoji, put_adapter},
    server::{Launch, Server},
};

/// The only adapter that fits the embedded model.
const WIGGLE: &str = "wiggle";

fn launch(data: &Path) -> Launch {
    let adapters = data.join("controlnets");
    if !adapters.exists() {
        put_adapter(&adapters.join(WIGGLE), &for_emoji());
        let mut wide = for_emoji();
        wide["block_out_channels"] = json!([32, 64]);
        put_adapter(&adapters.join("wide"), &wide);
    }
    Launch::on(data).set("LATENTD_CONTROLNETS__DIR", adapters.display())
}

fn request() -> Value {
    json!({
        "model": "emoji", "prompt": "a red fox", "frames": 3, "steps": 2, "seed": 5, "width": 64, "height": 64,
        "output": {"format": "zip", "provenance": false},
    })
}

#[tokio::test]
async fn the_embedded_model_makes_films_and_pictures() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_ready(&launch(data.path())).await;
    let ended = made(&server, &request()).await;
    let film = &ended["artifacts"][0];
    assert_eq!((&film["frames"], &film["fps"], &film["seed"]), (&json!(3), &json!(8), &json!(5)), "{ended:#}");
    let params = &ended["params"];
    assert_eq!((&params["motion_adapter"], &params["guidance_scale"]), (&json!(WIGGLE), &json!(3.0)));
    let archive = file(&server, &ended).await;
    let (frames, note) = unzipped(&archive);
    assert!(frames.len() == 3 && frames[0] != frames[2]);
    let named = with(&request(), &json!({"motion_adapter": WIGGLE}));
    assert!(archive == file(&server, &made(&server, &named).await).await, "it is the default");
    let again = with(&note.unwrap(), &output("zip"));
    assert!(archive == file(&server, &made(&server, &again).await).await, "the note makes the same film");
    let lora = with(&request(), &json!({"loras": [{"name": "emoji-pixel"}]}));
    let with_lora = made(&server, &lora).await;
    assert_eq!(with_lora["params"]["loras"], json!([{"name": "emoji-pixel", "scale": 1.0}]));
    assert!(archive != file(&server, &with_lora).await);
    let mp4 = with(&request(), &output("mp4"));
    assert_eq!(&file(&server, &made(&server, &mp4).await).await[4..8], b"ftyp");

    let picture = json!({"prompt": "a red fox", "steps": 1, "width": 64, "height": 64});
    let drawn = ask(&server, Method::POST, "/v1/images", |post| post.header("Prefer", "wait=100").json(&picture)).await;
    assert_eq!(drawn.json()["status"], "succeeded", "{drawn:?}");

    let model = get(&server, "/v1/models/emoji").await.json();
    let capabilities = &model["capabilities"];
    assert_eq!(capabilities["tasks"], json!(["text-to-image", "image-to-image", "inpaint", "text-to-video"]));
    assert_eq!(capabilities["film"], json!({"default_frames": 16, "frames_multiple": 1, "default_fps": 8}));
    assert_eq!(capabilities["motion_adapters"], json!([{"name": WIGGLE, "max_frames": 16}]));
    assert_eq!(capabilities["default_motion_adapter"], WIGGLE);
    let listed = get(&server, "/v1/controlnets").await.json();
    let of = |name: &str| listed["data"].as_array().unwrap().iter().find(|net| net["name"] == name).unwrap().clone();
    assert_eq!((&of(WIGGLE)["kind"], &of(WIGGLE)["models"]), (&json!("motion_adapter"), &json!(["emoji"])));
    assert_eq!((&of("wide")["state"], &of("emoji-canny")["kind"]), (&json!("failed"), &json!("controlnet")));
    let schema = get(&server, "/v1/models/emoji/schema?kind=video").await.json();
    assert_eq!(schema["properties"]["frames"]["maximum"], 16);
    assert_eq!(schema["properties"]["motion_adapter"]["default"], WIGGLE);
    assert!(schema["properties"].get("image").is_none());
    assert!(get(&server, "/v1/models/emoji/schema").await.json()["properties"].get("frames").is_none());
    assert_eq!(get(&server, "/v1/models/emoji/schema?kind=audio").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_running_film_has_previews() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_ready(&launch(data.path())).await;
    assert_previews(&server, &request()).await;
}

#[tokio::test]
async fn the_command_of_the_page_makes_a_film() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_ready(&launch(data.path())).await;
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/families/animate-diff.md")).unwrap();
    let command = page.lines().find(|line| line.starts_with("curl ")).unwrap();
    let here = command.replace("localhost:8080", server.url("").trim_start_matches("http://"));
    let here = here.replace("model=sd15", "model=emoji").replace("motion_adapter=mm-v15", "motion_adapter=wiggle");
    let mut shell = Command::new("sh");
    shell.args(["-c", &here]).current_dir(data.path());
    let output = tokio::task::spawn_blocking(move || shell.output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{command}\n{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(&fs::read(data.path().join("fox.mp4")).unwrap()[4..8], b"ftyp", "{command}");
}

#[tokio::test]
async fn a_request_beyond_its_bounds_is_refused_with_the_field_and_the_bound() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_ready(&launch(data.path())).await;
    for (more, pointer, code, said) in [
        (json!({"frames": 17}), "/frames", "out_of_range", "between 1 and 16"),
        (json!({"frames": 0}), "/frames", "out_of_range", "between 1 and 16"),
        (json!({"motion_adapter": "gone"}), "/motion_adapter", "unknown_motion_adapter", "not in the catalogue"),
        (json!({"motion_adapter": "wide"}), "/motion_adapter", "unsupported_for_model", "not made for models like"),
        (json!({"motion_adapter": "emoji-canny"}), "/motion_adapter", "unsupported_for_model", "no motion adapter"),
        (json!({"loras": [{"name": "gone"}]}), "/loras/0/name", "unknown_lora", "gone"),
        (json!({"image": crate::http::picture_text()}), "/image", "unsupported_for_model", "from a prompt alone"),
        (json!({"max_sequence_length": 20}), "/max_sequence_length", "unsupported_for_model", ""),
        (json!({"width": 65}), "/width", "out_of_range", "8"),
        (json!({"strength": 0.5}), "/strength", "unknown_field", ""),
    ] {
        let body = with(&request(), &more);
        let refused = ask(&server, Method::POST, "/v1/videos", |post| post.json(&body)).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{more}: {refused:?}");
        let errors = refused.json()["errors"].as_array().unwrap().clone();
        let error = &errors[0];
        assert_eq!((&error["pointer"], &error["code"], errors.len()), (&json!(pointer), &json!(code), 1), "{errors:?}");
        assert!(error["detail"].as_str().unwrap().contains(said), "{error}");
    }
    let control = json!({"prompt": "a", "controls": [{"model": WIGGLE, "image": crate::http::picture_text()}]});
    let refused = ask(&server, Method::POST, "/v1/images", |post| post.json(&control)).await;
    assert!(refused.json()["errors"][0]["detail"].as_str().unwrap().contains("is a motion adapter"), "{refused:?}");
}

#[tokio::test]
async fn a_killed_generation_continues_with_the_same_bytes() {
    assert_same_after_kill(launch, &with(&request(), &json!({"steps": 40, "n": 2})), 10.0).await;
}

#[test]
fn the_command_line_makes_films() {
    let data = tempfile::tempdir().unwrap();
    let adapters = data.path().join("controlnets");
    put_adapter(&adapters.join(WIGGLE), &for_emoji());
    for (name, begins) in [("fox.mp4", &b"ftyp"[..]), ("fox.gif", b"89a")] {
        let file = data.path().join(name);
        let made = Command::new(env!("CARGO_BIN_EXE_latentd"))
            .args(["generate", "a red fox", "--frames", "3", "--steps", "1", "--width", "64", "--height", "64", "-o"])
            .arg(&file)
            .env("LATENTD_CONTROLNETS__DIR", &adapters)
            .current_dir(data.path())
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        assert!(fs::read(&file).unwrap()[..12].windows(begins.len()).any(|part| part == begins), "{name}");
    }
}
