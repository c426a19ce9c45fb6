//! Tests of requests with input pictures and masks.

use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::{Server, decode, request, with};

/// A PNG file of one color.
fn png(width: u32, height: u32, color: [u8; 3]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(png::ColorType::Rgb);
    let pixels: Vec<u8> = color.into_iter().cycle().take(3 * (width * height) as usize).collect();
    encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
    file
}

/// A PNG file of a mask whose left half is white.
fn left_half(width: u32, height: u32) -> Vec<u8> {
    let mut file = Vec::new();
    let encoder = png::Encoder::new(&mut file, width, height);
    let pixels: Vec<u8> = (0..width * height).map(|i| if i % width < width / 2 { 255 } else { 0 }).collect();
    encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
    file
}

fn b64(file: &[u8]) -> Value {
    json!({"b64": STANDARD.encode(file)})
}

/// A multipart body of these parts (name, file name, value).
fn multipart(parts: &[(&str, Option<&str>, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, file, value) in parts {
        let file = file.map_or(String::new(), |file| format!("; filename=\"{file}\""));
        body.extend(format!("--frontier\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n").bytes());
        body.extend(*value);
        body.extend(b"\r\n");
    }
    body.extend(b"--frontier--\r\n");
    body
}

#[tokio::test]
async fn a_picture_is_accepted_in_every_encoding_and_kept_for_later_requests() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;
    let file = png(96, 64, [250, 10, 10]);
    let body = with(request("a red fox", 7), &json!({"steps": 6, "strength": 0.5}));
    let id = server.accept(&with(body.clone(), &json!({"image": b64(&file)}))).await;
    let ended = server.ended(&id).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    let params = &ended["params"];
    assert_eq!((&params["width"], &params["height"]), (&json!(96), &json!(64)), "the picture's own size");
    let picture = server.picture(&id, 0).await;

    let multipart = multipart(&[
        ("prompt", None, b"a red fox"),
        ("seed", None, b"7"),
        ("steps", None, b"6"),
        ("strength", None, b"0.5"),
        ("metadata", None, br#"{"from": "a form"}"#),
        ("image", Some("photo.png"), &file),
    ]);
    let posted = server.client.post(server.url("/v1/images.png")).body(multipart);
    let posted = posted.header("Content-Type", "multipart/form-data; boundary=frontier").send().await.unwrap();
    assert_eq!(posted.status(), StatusCode::OK);
    assert_eq!(decode(&posted.bytes().await.unwrap()), decode(&picture));

    // The params of the first generation name the picture by its digest, which is valid while any generation keeps it.
    let again = server.accept(params).await;
    assert_eq!(server.ended(&again).await["status"], "succeeded");
    assert_eq!(server.picture(&again, 0).await, picture);
    let all = server.json("/v1/images").await;
    for generation in all["data"].as_array().unwrap() {
        let url = server.url(&format!("/v1/images/{}", generation["id"].as_str().unwrap()));
        assert_eq!(server.client.delete(url).send().await.unwrap().status(), StatusCode::NO_CONTENT);
    }
    let refused = server.post(params).await;
    assert_eq!(refused.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let problem: Value = refused.json().await.unwrap();
    assert_eq!(problem["errors"][0]["pointer"], "/image", "{problem}");
    let left: Vec<_> = std::fs::read_dir(data.path().join("blobs/img")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn a_star_keeps_a_picture_and_the_picture_that_it_was_made_from() {
    let data = tempfile::tempdir().unwrap();
    let settings = [("LATENTD_RETENTION__FINISHED_S", "5"), ("LATENTD_RETENTION__SWEEP_INTERVAL_S", "0.2")];
    let server = Server::start(data.path(), &settings).await;
    let body = with(request("a red fox", 7), &json!({"steps": 2, "image": b64(&png(64, 64, [250, 10, 10]))}));
    let kept = server.accept(&body).await;
    let params = server.ended(&kept).await["params"].clone();
    let star = server.client.put(server.url(&format!("/v1/images/{kept}/star"))).send().await.unwrap();
    assert_eq!(star.status(), StatusCode::OK);
    let picture = server.picture(&kept, 0).await;

    let other = server.accept(&request("a panda", 1)).await;
    server.ended(&other).await;
    let is_gone =
        async |server: &Server| server.get(&format!("/v1/images/{other}")).await.status() == StatusCode::NOT_FOUND;
    server.until("the one without a star is erased", is_gone).await;
    assert_eq!(server.picture(&kept, 0).await, picture);
    let again = server.accept(&params).await;
    assert_eq!(server.ended(&again).await["status"], "succeeded");
    assert_eq!(server.picture(&again, 0).await, picture);
}

#[tokio::test]
async fn pixels_under_the_mask_are_drawn_and_others_stay_unchanged() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;
    let (image, mask) = (png(128, 128, [20, 140, 60]), left_half(128, 128));
    let body = with(request("a red fox", 3), &json!({"image": b64(&image), "mask": b64(&mask), "steps": 8}));
    let crop = json!({"padding_mask_crop": 4, "mask_invert": true});
    for (more, kept, drawn) in [(json!({}), 64..128, 0..64), (crop, 0..64, 64..128)] {
        let id = server.accept(&with(body.clone(), &more)).await;
        let ended = server.ended(&id).await;
        assert_eq!(ended["status"], "succeeded", "{ended}");
        let (width, _, pixels) = decode(&server.picture(&id, 0).await);
        let pixel = |x: u32, y: u32| &pixels[3 * (y * width + x) as usize..][..3];
        assert!(kept.into_iter().all(|x| (0..128).all(|y| pixel(x, y) == [20, 140, 60])), "{more}");
        assert!(drawn.into_iter().any(|x| (0..128).any(|y| pixel(x, y) != [20, 140, 60])), "{more}");
    }
}

#[tokio::test]
async fn tasks_share_batches_and_do_not_change_each_other() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;
    let (image, mask) = (b64(&png(128, 128, [20, 140, 60])), b64(&left_half(128, 128)));
    let bodies = [
        request("a red fox", 1),
        with(request("a red fox", 2), &json!({"image": image, "strength": 0.7, "scheduler": "euler_a"})),
        with(request("a cat", 3), &json!({"image": image, "mask": mask, "scheduler": "heun"})),
        with(request("a dog", 4), &json!({"image": image, "mask": mask, "strength": 0.6, "n": 2})),
    ];
    let together = futures::future::join_all(bodies.iter().map(|body| server.accept(body))).await;
    for (body, id) in bodies.iter().zip(&together) {
        assert_eq!(server.ended(id).await["status"], "succeeded");
        let alone = server.accept(body).await;
        server.ended(&alone).await;
        assert_eq!(server.picture(&alone, 0).await, server.picture(id, 0).await, "{}", body["prompt"]);
    }
}

#[tokio::test]
async fn unusable_pictures_are_refused_before_anything_is_stored() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;
    let image = b64(&png(64, 64, [0; 3]));
    for (fields, pointer) in [
        (json!({"image": {"b64": "bm8gcGljdHVyZQ=="}}), "/image"),
        (json!({"image": {"b64": "*"}}), "/image"),
        (json!({"image": {"url": "http://127.0.0.1:9/"}}), "/image"),
        (json!({"image": {"upload": "0".repeat(64)}}), "/image"),
        (json!({"image": 7}), "/image"),
        (json!({"mask": image}), "/mask"),
        (json!({"strength": 0.5}), "/strength"),
        (json!({"image": image, "strength": 0}), "/strength"),
        (json!({"image": image, "strength": 0.01}), "/strength"),
        (json!({"image": image, "mask_blur": 3}), "/mask_blur"),
        (json!({"image": image, "image_guidance_scale": 2}), "/image_guidance_scale"),
        (json!({"image": image, "mask": image, "mask_blur": 65}), "/mask_blur"),
        (json!({"image": image, "steps": 0}), "/steps"),
    ] {
        let refused = server.post(&with(request("a", 1), &fields)).await;
        assert_eq!(refused.status(), StatusCode::UNPROCESSABLE_ENTITY, "{fields}");
        let problem: Value = refused.json().await.unwrap();
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
    }
    assert!(!data.path().join("blobs/img").exists(), "a refused request left files");
}
