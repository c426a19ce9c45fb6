//! Tests of the file formats of pictures, drawn by the server and by the command line.

use std::{io::Cursor, process::Command};

use base64::{Engine, engine::general_purpose::STANDARD};
use image::{ImageDecoder, ImageFormat, ImageReader};
use reqwest::{Response, header};
use serde_json::{Value, json};

use crate::harness::{Server, decode, unsigned};

const FORMATS: [(&str, &str, ImageFormat); 3] =
    [("png", "png", ImageFormat::Png), ("jpeg", "jpg", ImageFormat::Jpeg), ("webp", "webp", ImageFormat::WebP)];

fn fox() -> Value {
    json!({"prompt": "a red fox", "seed": 7, "steps": 4})
}

/// The picture file in an answer, and the path of its generation.
async fn picture(answer: Response, format: &str) -> (Vec<u8>, String) {
    assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
    assert_eq!(answer.headers()[header::CONTENT_TYPE], format!("image/{format}"));
    let location = answer.headers()[header::LOCATION].to_str().unwrap().to_owned();
    (answer.bytes().await.unwrap().to_vec(), location)
}

#[tokio::test]
async fn each_way_to_choose_a_format_gives_the_same_file() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;
    let mut pixels = Vec::new();
    for (format, extension, kind) in FORMATS {
        let fields = [("prompt", "a red fox"), ("seed", "7"), ("steps", "4"), ("output.format", format)];
        let by_path = server.client.post(server.url(&format!("/v1/images.{extension}"))).form(&fields[..3]);
        let by_accept = server.client.post(server.url("/v1/images")).header("accept", format!("image/{format}"));
        let by_field = server.client.post(server.url("/v1/images")).header("accept", "image/*").form(&fields);
        let (file, location) = picture(by_path.send().await.unwrap(), format).await;
        assert_eq!(image::guess_format(&file).unwrap(), kind);
        let drawn = unsigned(&file);
        assert_eq!(unsigned(&picture(by_accept.json(&fox()).send().await.unwrap(), format).await.0), drawn);
        assert_eq!(unsigned(&picture(by_field.send().await.unwrap(), format).await.0), drawn);

        let object = server.json(&location).await;
        assert_eq!(object["params"]["output"]["format"], format);
        assert_eq!(object["images"][0]["content_type"], format!("image/{format}"));
        assert_eq!(object["images"][0]["bytes"], file.len());
        let content = server.get(&format!("{location}/content/0")).await;
        assert_eq!(content.headers()[header::CONTENT_TYPE], format!("image/{format}"));
        assert_eq!(content.bytes().await.unwrap(), file);
        pixels.push(decode(&file).2);
    }
    assert!(pixels[0] == pixels[2], "WebP is lossless");
    let squares = pixels[0].iter().zip(&pixels[1]).map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2)).sum::<f64>();
    let decibels = 10.0 * (255.0_f64.powi(2) * pixels[0].len() as f64 / squares).log10();
    assert!(decibels > 36.0, "{decibels} dB");
}

#[tokio::test]
async fn every_image_of_a_generation_has_the_format() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;
    let body = json!({"prompt": "a red fox", "steps": 2, "n": 2, "output": {"format": "jpeg", "quality": 50}});
    let id = server.accept(&body).await;
    let ended = server.ended(&id).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    for index in 0..2 {
        assert_eq!(ended["images"][index]["content_type"], "image/jpeg");
        assert_eq!(image::guess_format(&server.picture(&id, index).await).unwrap(), ImageFormat::Jpeg);
    }
}

#[tokio::test]
async fn the_request_in_a_file_draws_the_same_file() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;
    for format in ["jpeg", "webp"] {
        let body = json!({"prompt": "a <red> fox & \"狐\" 🦊", "steps": 2, "output": {"format": format}});
        let id = server.accept(&body).await;
        assert_eq!(server.ended(&id).await["status"], "succeeded");
        let file = server.picture(&id, 0).await;
        let mut decoder = ImageReader::new(Cursor::new(&file)).with_guessed_format().unwrap().into_decoder().unwrap();
        let xmp = String::from_utf8(decoder.xmp_metadata().unwrap().unwrap()).unwrap();
        let (_, rest) = xmp.split_once("<latentd:request>").unwrap();
        let (json, _) = rest.split_once("</latentd:request>").unwrap();
        let json = json.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
        let again = server.accept(&serde_json::from_str(&json).unwrap()).await;
        server.ended(&again).await;
        assert!(server.picture(&again, 0).await == file, "{json}");
        // The file can be an input picture.
        let body = json!({"prompt": "a fox", "steps": 2, "image": {"b64": STANDARD.encode(&file)}});
        let from = server.client.post(server.url("/v1/images.webp")).json(&body).send().await.unwrap();
        picture(from, "webp").await;
    }
}

#[tokio::test]
async fn the_command_line_writes_what_the_server_draws() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(&data.path().join("data"), &[]).await;
    for (name, quality, path) in [("fox.webp", None, "webp"), ("fox.JPEG", Some("60"), "jpg"), ("fox.jpg", None, "jpg")]
    {
        let file = data.path().join(name);
        let mut command = Command::new(env!("CARGO_BIN_EXE_latentd"));
        command
            .env_remove("LATENTD_CONFIG")
            .args(["generate", "a red fox", "--seed", "7", "--steps", "4", "-o"])
            .arg(&file);
        let mut fields = vec![("prompt", "a red fox"), ("seed", "7"), ("steps", "4")];
        if let Some(quality) = quality {
            command.args(["--quality", quality]);
            fields.push(("output.quality", quality));
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let drawn = server.client.post(server.url(&format!("/v1/images.{path}"))).form(&fields).send().await.unwrap();
        let drawn = drawn.bytes().await.unwrap();
        assert!(unsigned(&std::fs::read(&file).unwrap()) == unsigned(&drawn), "{name}");
    }
}
