//! Tests of films over HTTP: answers, files, ids, errors, a kill, and comparisons with diffusers.

use std::{
    fs,
    io::{Cursor, Read},
    path::Path,
    process::Command,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use futures::future::join_all;
use latentd::{
    imaging::{RgbImage, decode, encode_fast},
    watermark::detect,
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use zip::ZipArchive;

use crate::{
    answer::{self, ask, get, receiver, with},
    case::{self, FilmCase},
    conforms::events,
    films,
    server::{Launch, PATIENCE, Server},
    wan_films, wan_pictures,
};

/// Posts a request and waits for the end of its generation.
pub async fn made(server: &Server, body: &Value) -> Value {
    answer::made(server, "/v1/videos", body).await
}

/// The file of the first film of a generation.
pub async fn file(server: &Server, generation: &Value) -> Vec<u8> {
    get(server, generation["artifacts"][0]["url"].as_str().unwrap()).await.body
}

/// A server with the random models.
pub async fn server(data: &Path) -> Server {
    Server::start_ready(&launch(data)).await
}

/// The models are written once; a later start finds them.
pub fn launch(data: &Path) -> Launch {
    let models = data.join("models");
    if !models.exists() {
        films::put_model(&models);
        wan_pictures::put_models(&models);
    }
    Launch::on(data).set("LATENTD_MODELS__DIR", models.display())
}

/// A small picture as a PNG file.
pub fn picture() -> Vec<u8> {
    let pixels = (0..32 * 16).flat_map(|i: u32| [i / 2 % 256, i % 32 * 8, 90].map(|level| level as u8)).collect();
    encode_fast(&RgbImage { width: 32, height: 16, pixels }).unwrap()
}

/// The picture in base64, as a request may have it.
pub fn picture_text() -> String {
    STANDARD.encode(picture())
}

fn request() -> Value {
    json!({
        "model": films::NAME, "image": picture_text(), "steps": 2, "seed": 5,
        "output": {"format": "zip", "provenance": false},
    })
}

pub fn output(format: &str) -> Value {
    json!({"output": {"format": format, "provenance": false}})
}

/// A multipart body of these texts and the file `image`, after its media type.
fn form_of(texts: &[(&str, &str)], image: &[u8]) -> (&'static str, Vec<u8>) {
    let text = |(name, text): &(&str, &str)| {
        format!("--part\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{text}\r\n").into_bytes()
    };
    let mut body: Vec<u8> = texts.iter().flat_map(text).collect();
    body.extend(b"--part\r\ncontent-disposition: form-data; name=\"image\"; filename=\"a.png\"\r\n\r\n");
    body.extend([image, b"\r\n--part--\r\n"].concat());
    ("multipart/form-data; boundary=part", body)
}

/// The frames in a zip archive, and the text of its last file.
pub fn unzipped(file: &[u8]) -> (Vec<RgbImage>, Option<Value>) {
    let mut archive = ZipArchive::new(Cursor::new(file)).unwrap();
    let (mut frames, mut note) = (Vec::new(), None);
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        match entry.name() {
            "request.json" | "seed.json" => note = Some(serde_json::from_slice(&bytes).unwrap()),
            name => {
                assert_eq!(name, format!("{index:04}.png"));
                frames.push(decode(&bytes, 0).unwrap());
            }
        }
    }
    (frames, note)
}

/// While a film runs, pictures of its middle frame come as events, and the newest one at its address.
#[tokio::test]
async fn a_running_film_has_previews() {
    let data = tempfile::tempdir().unwrap();
    let server = server(data.path()).await;
    assert_previews(&server, &request()).await;
    assert_previews(&server, &json!({"model": wan_films::TWO, "prompt": "a boat", "frames": 5, "seed": 5})).await;
}

/// Two films of the request have previews while they run.
pub async fn assert_previews(server: &Server, request: &Value) {
    let body = with(request, &json!({"steps": 100, "previews": 10, "n": 2, "output": null}));
    let queued = ask(server, Method::POST, "/v1/videos", |post| post.json(&body)).await.json();
    assert_eq!(queued["params"]["previews"], 10, "{queued}");
    let (model, links) = (&queued["model"], &queued["links"]);
    let (events_at, preview_at) = (links["events"].as_str().unwrap(), links["preview"].as_str().unwrap());
    let newest = server.until("a preview is there", async |server: &Server| {
        let newest = get(server, preview_at).await;
        newest.status == StatusCode::OK && newest.header("content-type") == "image/png"
    });
    let (followed, ()) = tokio::join!(get(server, events_at), newest);
    let followed = events(std::str::from_utf8(&followed.body).unwrap());
    assert_eq!(followed.last().unwrap()["event"], "generation.succeeded", "{model}");
    let previews: Vec<&Value> = followed.iter().filter(|event| event["event"] == "generation.preview").collect();
    assert!(previews.iter().any(|preview| preview["data"]["index"] == 1), "{model}: each film has previews");
    let film = &followed.last().unwrap()["data"]["generation"]["artifacts"][0];
    for preview in previews {
        let picture = decode(&STANDARD.decode(preview["data"]["b64"].as_str().unwrap()).unwrap(), 0).unwrap();
        assert_eq!((&film["width"], &film["height"]), (&json!(picture.width), &json!(picture.height)), "{model}");
    }
}

/// The watermark is in every frame of exact files, and `POST /v1/verify` finds it there.
#[tokio::test]
async fn a_watermark_is_in_every_frame() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_ready(&launch(data.path()).set("LATENTD_PROVENANCE__WATERMARK", "on")).await;
    let body = |output: Value| with(&request(), &json!({"width": 128, "height": 128, "output": output}));
    let verified = async |file: Vec<u8>| {
        let png = |post: reqwest::RequestBuilder| post.header("Content-Type", "image/png").body(file.clone());
        let post = ask(&server, Method::POST, "/v1/verify", png);
        post.await.json()["watermark"].clone()
    };
    let zipped = made(&server, &body(json!({"format": "zip"}))).await;
    let payload = &zipped["artifacts"][0]["watermark"];
    assert_eq!(payload.as_str().map(str::len), Some(16), "{zipped}");
    let (frames, _) = unzipped(&file(&server, &zipped).await);
    assert_eq!(frames.len(), 3);
    for frame in &frames {
        assert_eq!(detect(frame).unwrap().payload.to_string(), *payload);
    }
    let found = verified(encode_fast(&frames[2]).unwrap()).await;
    assert_eq!((&found["payload"], &found["by_this_server"]), (payload, &json!(true)), "{found}");

    let animated = made(&server, &body(json!({"format": "apng"}))).await;
    let animation = file(&server, &animated).await;
    let mut reader = png::Decoder::new(Cursor::new(&animation)).read_info().unwrap();
    for index in 0..3 {
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        let frame = RgbImage { width: 128, height: 128, pixels };
        let found = detect(&frame).unwrap_or_else(|| panic!("frame {index} has no watermark"));
        assert_eq!(found.payload.to_string(), animated["artifacts"][0]["watermark"]);
    }
    assert_eq!(verified(animation).await["payload"], animated["artifacts"][0]["watermark"]);

    let bare = made(&server, &body(json!({"format": "zip", "provenance": false}))).await;
    assert_eq!(bare["artifacts"][0]["watermark"], Value::Null);
    let (unmarked, _) = unzipped(&file(&server, &bare).await);
    assert!(unmarked.iter().zip(&frames).all(|(plain, marked)| plain != marked && detect(plain).is_none()));
}

#[tokio::test]
async fn a_film_is_made_listed_followed_read_in_parts_and_deleted() {
    let data = tempfile::tempdir().unwrap();
    let server = server(data.path()).await;
    let body = with(&request(), &output("mp4"));
    let queued = ask(&server, Method::POST, "/v1/videos", |post| post.json(&body)).await;
    assert_eq!(queued.status, StatusCode::ACCEPTED, "{queued:?}");
    let generation = queued.json();
    let id = generation["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/videos/{id}");
    assert_eq!(queued.header("location"), path);
    assert_eq!(generation["links"]["events"], format!("{path}/events"));

    let followed = get(&server, &format!("{path}/events")).await;
    let followed = events(std::str::from_utf8(&followed.body).unwrap());
    let last = followed.last().unwrap();
    assert_eq!(last["event"], "generation.succeeded");
    assert!(followed.iter().any(|event| event["event"] == "generation.started"));
    assert_eq!(last["data"]["generation"]["object"], "video.generation");

    let ended = get(&server, &path).await.json();
    let film = &ended["artifacts"][0];
    assert_eq!(film["url"], format!("{path}/content/0"));
    for (name, value) in [
        ("width", json!(32)),
        ("height", json!(16)),
        ("frames", json!(3)),
        ("fps", json!(7)),
        ("seconds", json!(3.0 / 7.0)),
        ("seed", json!(5)),
        ("content_type", json!("video/mp4")),
    ] {
        assert_eq!(film[name], value, "{name}");
    }
    let params = &ended["params"];
    assert_eq!((&params["frames"], &params["motion_bucket_id"]), (&json!(3), &json!(127)));
    assert_eq!(params["output"], json!({"format": "mp4", "metadata": "full", "provenance": false}));

    for end in ["0", "0.mp4"] {
        let content = format!("{path}/content/{end}");
        let file = get(&server, &content).await;
        assert_eq!((file.header("content-type"), file.header("accept-ranges")), ("video/mp4", "bytes"));
        assert_eq!(file.header("etag"), format!("\"{}\"", film["sha256"].as_str().unwrap()));
        assert_eq!(film["bytes"], file.body.len());
        let part = ask(&server, Method::GET, &content, |get| get.header("Range", "bytes=40-99")).await;
        assert_eq!((part.status, &part.body[..]), (StatusCode::PARTIAL_CONTENT, &file.body[40..100]));
        assert_eq!(part.header("content-range"), format!("bytes 40-99/{}", file.body.len()));
    }
    assert_eq!(get(&server, &format!("{path}/content/1")).await.status, StatusCode::NOT_FOUND);
    assert_eq!(get(&server, &format!("{path}/content/0.zip")).await.status, StatusCode::NOT_FOUND);

    let starred = ask(&server, Method::PUT, &format!("{path}/star"), |put| put).await;
    assert_eq!(starred.json()["starred"], true);
    assert_eq!(get(&server, "/v1/videos?starred=true").await.json()["data"][0]["id"], id.as_str());
    ask(&server, Method::DELETE, &format!("{path}/star"), |delete| delete).await;

    let deleted = ask(&server, Method::DELETE, &path, |delete| delete).await;
    assert_eq!(deleted.status, StatusCode::NO_CONTENT);
    for gone in [path.clone(), format!("{path}/content/0"), format!("{path}/events")] {
        assert_eq!(get(&server, &gone).await.status, StatusCode::NOT_FOUND, "{gone}");
    }
    assert_eq!(get(&server, "/v1/videos").await.json()["data"], json!([]));
}

#[tokio::test]
async fn accept_decides_the_form_of_the_answer() {
    let data = tempfile::tempdir().unwrap();
    let server = server(data.path()).await;
    let free = with(&request(), &json!({"output": {"provenance": false}}));
    let answer = |accept: &'static str, body: Value| {
        let server = &server;
        async move { ask(server, Method::POST, "/v1/videos", |post| post.header("Accept", accept).json(&body)).await }
    };
    for (accept, media_type) in [
        ("video/mp4", "video/mp4"),
        ("video/*", "video/mp4"),
        ("application/zip", "application/zip"),
        ("image/apng", "image/apng"),
        ("image/gif", "image/gif"),
        ("image/webp", "image/webp"),
        ("application/json;q=0.5, image/gif", "image/gif"),
    ] {
        let file = answer(accept, free.clone()).await;
        assert_eq!((file.status, file.header("content-type")), (StatusCode::OK, media_type), "{accept}");
        assert_eq!(file.header("latentd-seed"), "5");
        let (location, id) = (file.header("content-location"), file.header("latentd-generation-id"));
        assert_eq!(location, format!("/v1/videos/{id}/content/0"));
        assert_eq!(file.body, get(&server, location).await.body);
    }
    let stream = answer("text/event-stream", free.clone()).await;
    let stream = events(std::str::from_utf8(&stream.body).unwrap());
    assert_eq!(stream.last().unwrap()["event"], "generation.succeeded");
    assert_eq!(answer("image/png", free.clone()).await.status, StatusCode::NOT_ACCEPTABLE);
    assert_eq!(answer("video/mp4", request()).await.status, StatusCode::NOT_ACCEPTABLE, "the body names zip");
    let two = answer("video/mp4", with(&free, &json!({"n": 2}))).await;
    assert_eq!(two.status, StatusCode::NOT_ACCEPTABLE);
    let form = ask(&server, Method::POST, "/v1/videos", |post| {
        let texts = [("model", films::NAME), ("seed", "5"), ("steps", "2"), ("frames", "2"), ("output.format", "zip")];
        let (kind, form) = form_of(&texts, &picture());
        post.header("Accept", "application/zip").header("Content-Type", kind).body(form)
    })
    .await;
    assert_eq!(form.status, StatusCode::OK, "{form:?}");
    let (frames, note) = unzipped(&form.body);
    assert_eq!((frames.len(), &note.unwrap()["frames"]), (2, &json!(2)));
}

#[tokio::test]
async fn the_formats_have_the_same_frames_and_equal_requests_equal_bytes() {
    let data = tempfile::tempdir().unwrap();
    let server = server(data.path()).await;
    let film = async |more: Value| file(&server, &made(&server, &with(&request(), &more)).await).await;
    let archive = film(json!({})).await;
    assert!(archive == film(json!({})).await, "the same request makes the same bytes");
    let (frames, note) = unzipped(&archive);
    assert_eq!(frames.len(), 3);
    assert!(frames.iter().all(|frame| (frame.width, frame.height) == (32, 16)) && frames[0] != frames[2]);
    let again = with(&note.unwrap(), &json!({"output": {"format": "zip", "provenance": false}}));
    assert!(archive == file(&server, &made(&server, &again).await).await, "the note makes the same film");
    let image = again["image"]["upload"].as_str().unwrap();
    assert_eq!(get(&server, &format!("/v1/uploads/{image}")).await.status, StatusCode::OK);

    let apng = film(output("apng")).await;
    let mut reader = png::Decoder::new(Cursor::new(&apng)).read_info().unwrap();
    for frame in &frames {
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        assert!(pixels == frame.pixels);
    }
    for format in ["mp4", "apng", "gif", "webp", "zip"] {
        let seeds = json!({"output": {"format": format, "provenance": false, "metadata": "seed"}});
        let none = json!({"output": {"format": format, "provenance": false, "metadata": "none"}});
        let (full, seed, none) = (film(output(format)).await, film(seeds).await, film(none).await);
        assert!(full.len() > seed.len() && seed.len() > none.len(), "{format}");
        let signed = made(&server, &with(&request(), &json!({"output": {"format": format}}))).await;
        let (artifact, signed) = (&signed["artifacts"][0], file(&server, &signed).await);
        if cfg!(feature = "provenance") && format != "zip" {
            assert!(signed.len() > full.len(), "{format}: the credentials are in the file");
            assert_ne!(artifact["sha256"], artifact["unsigned_sha256"], "{format}");
        } else {
            assert_eq!(artifact["sha256"], artifact["unsigned_sha256"], "{format}");
            assert_eq!(unzipped(&signed).0, frames);
        }
    }
}

#[tokio::test]
async fn pictures_and_films_do_not_mix() {
    let data = tempfile::tempdir().unwrap();
    let server = server(data.path()).await;
    let film = made(&server, &request()).await["id"].as_str().unwrap().to_owned();
    let drawn = server.accept(&json!({"prompt": "a red fox", "steps": 1})).await;
    server.ended(&drawn).await;
    let ids = async |path: &str| {
        let data = get(&server, path).await.json()["data"].as_array().unwrap().clone();
        data.iter().map(|generation| generation["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ids("/v1/videos").await, [film.as_str()]);
    assert_eq!(ids("/v1/images").await, [drawn.as_str()]);
    assert_eq!(ids("/v1/audio").await, [""; 0]);
    for (own, other) in [
        (format!("/v1/videos/{film}"), format!("/v1/images/{film}")),
        (format!("/v1/images/{drawn}"), format!("/v1/videos/{drawn}")),
    ] {
        assert_eq!(get(&server, &own).await.status, StatusCode::OK);
        for end in ["", "/events", "/content/0"] {
            assert_eq!(get(&server, &format!("{other}{end}")).await.status, StatusCode::NOT_FOUND, "{other}{end}");
        }
        for (method, end) in [(Method::DELETE, ""), (Method::POST, "/cancel"), (Method::PUT, "/star")] {
            let answer = ask(&server, method.clone(), &format!("{other}{end}"), |request| request).await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{method} {other}{end}");
        }
    }
    for (path, body, code) in [
        ("/v1/videos", json!({"model": "emoji", "prompt": "a"}), "unsupported_for_model"),
        ("/v1/videos", json!({"prompt": "a"}), "required"),
        ("/v1/images", json!({"model": films::NAME, "prompt": "a"}), "unsupported_for_model"),
    ] {
        let refused = ask(&server, Method::POST, path, |post| post.json(&body)).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{path} {body}");
        let errors = &refused.json()["errors"];
        assert_eq!((&errors[0]["pointer"], &errors[0]["code"]), (&json!("/model"), &json!(code)), "{errors}");
    }
    let models = get(&server, "/v1/models").await.json();
    let model = models["data"].as_array().unwrap().iter().find(|model| model["id"] == films::NAME).unwrap();
    assert_eq!(model["capabilities"]["tasks"], json!(["image-to-video"]));
    assert_eq!(model["capabilities"]["film"]["default_fps"], 7);
    let schema = get(&server, &format!("/v1/models/{}/schema", films::NAME)).await.json();
    assert_eq!(schema["properties"]["frames"]["maximum"], 121);
}

#[tokio::test]
async fn a_request_beyond_its_bounds_is_refused_with_the_field_and_the_bound() {
    let data = tempfile::tempdir().unwrap();
    let server = server(data.path()).await;
    for (more, pointer, code, said) in [
        (json!({"image": null}), "/image", "required", "the picture that the film begins with"),
        (json!({"image": "aGk="}), "/image", "image_undecodable", "image"),
        (json!({"frames": 0}), "/frames", "out_of_range", "must be between 1 and 121, not 0"),
        (json!({"frames": 1, "output": {"format": "mp4"}}), "/output/format", "out_of_range", "a single frame"),
        (json!({"frames": 122}), "/frames", "out_of_range", "must be between 1 and 121, not 122"),
        (json!({"fps": 0}), "/fps", "out_of_range", "must be between 1 and 60, not 0"),
        (json!({"motion_bucket_id": 256}), "/motion_bucket_id", "out_of_range", "must be between 0 and 255"),
        (json!({"noise_aug_strength": -0.1}), "/noise_aug_strength", "out_of_range", "must be between 0 and 10"),
        (json!({"prompt": "a boat"}), "/prompt", "unsupported_for_model", "it makes films without a prompt"),
        (json!({"strength": 0.5}), "/strength", "unknown_field", "is not a field of this request"),
        (json!({"output": {"format": "png"}}), "/output/format", "invalid_value", "mp4, zip, apng, gif, webp"),
        (json!({"output": {"format": "gif"}, "fps": 51}), "/output/format", "out_of_range", "at most 50"),
    ] {
        let refused = ask(&server, Method::POST, "/v1/videos", |post| post.json(&with(&request(), &more))).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{more}: {refused:?}");
        let errors = refused.json()["errors"].as_array().unwrap().clone();
        let error = &errors[0];
        assert_eq!((&error["pointer"], &error["code"], errors.len()), (&json!(pointer), &json!(code), 1), "{errors:?}");
        assert!(error["detail"].as_str().unwrap().contains(said), "{error}");
    }
    assert_eq!(get(&server, "/v1/videos").await.json()["data"], json!([]));
}

#[tokio::test]
async fn a_repeated_request_makes_one_film() {
    let data = tempfile::tempdir().unwrap();
    let server = server(data.path()).await;
    let body = request();
    let keyed = || ask(&server, Method::POST, "/v1/videos", |post| post.header("Idempotency-Key", "a-1").json(&body));
    let answers = join_all((0..4).map(|_| keyed())).await;
    let first = answers[0].json()["id"].clone();
    assert!(answers.iter().all(|answer| answer.json()["id"] == first));
    assert_eq!(answers.iter().filter(|answer| answer.headers.contains_key("idempotency-replayed")).count(), 3);
    let chosen = "/v1/videos/img_01m0htfre0e7x9t4n2hz0w6r1s";
    let put = async |body: Value| ask(&server, Method::PUT, chosen, |put| put.json(&body)).await;
    assert_eq!(put(body.clone()).await.status, StatusCode::ACCEPTED);
    assert!(put(body.clone()).await.status.is_success());
    assert_eq!(put(with(&body, &json!({"seed": 6}))).await.status, StatusCode::CONFLICT);
    assert_eq!(get(&server, "/v1/videos").await.json()["data"].as_array().unwrap().len(), 2);
}

/// A request of so many steps that it can be canceled, or interrupted, in the middle.
fn long() -> Value {
    with(&request(), &json!({"steps": 300, "n": 2, "frames": 6}))
}

#[tokio::test]
async fn a_running_generation_is_canceled() {
    let data = tempfile::tempdir().unwrap();
    let server = server(data.path()).await;
    let queued = ask(&server, Method::POST, "/v1/videos", |post| post.json(&long())).await.json();
    let path = format!("/v1/videos/{}", queued["id"].as_str().unwrap());
    server.until("it runs", async |server: &Server| server.metric("latentd_steps_total", "").await > 0.0).await;
    ask(&server, Method::POST, &format!("{path}/cancel"), |post| post).await;
    let ended = ask(&server, Method::GET, &path, |get| get.header("Prefer", "wait=60")).await.json();
    assert_eq!((&ended["status"], &ended["artifacts"]), (&json!("canceled"), &json!([])));
}

/// Two clips of one shape share batches, and have the same bytes as alone.
#[tokio::test]
async fn two_clips_at_once_share_batches() {
    let data = tempfile::tempdir().unwrap();
    // Rows of films share batches as long as two of them take less than a slice, also on a slow machine.
    let server = Server::start_ready(&launch(data.path()).set("LATENTD_ENGINE__SLICE_MS", 1000)).await;
    let of = |seed: u32| with(&request(), &json!({"steps": 200, "seed": seed}));
    let (one, other) = (of(5), of(6));
    let both = futures::join!(made(&server, &one), made(&server, &other));
    let batches = server.metric("latentd_batch_runs_count", "").await;
    let per_batch = server.metric("latentd_batch_runs_sum", "").await / batches;
    println!("{per_batch:.2} clips in a batch");
    assert!(per_batch > 1.5, "{per_batch}");
    for (body, beside) in [(&one, &both.0), (&other, &both.1)] {
        let alone = made(&server, body).await;
        assert!(file(&server, &alone).await == file(&server, beside).await);
    }
}

#[tokio::test]
async fn a_killed_generation_continues_with_the_same_bytes() {
    assert_same_after_kill(launch, &long(), 100.0).await;
}

/// Kills a server after `steps` steps of a request, in the middle of denoising. The server that follows replays the
/// steps that are in the log, and the bytes of all films equal the bytes of an uninterrupted run.
pub async fn assert_same_after_kill(launch: impl Fn(&Path) -> Launch, request: &Value, steps: f64) {
    let (data, calm) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let often = launch(data.path()).set("LATENTD_ENGINE__CHECKPOINT_INTERVAL_MS", 1);
    let killed = Server::start_ready(&often).await;
    let queued = ask(&killed, Method::POST, "/v1/videos", |post| post.json(request)).await.json();
    let path = format!("/v1/videos/{}", queued["id"].as_str().unwrap());
    killed
        .until("a part is done", async |server: &Server| {
            server.metric("latentd_steps_total", "").await > steps && answer::is_log_stored(data.path())
        })
        .await;
    let again = killed.kill_and_restart().await;
    let ended = ask(&again, Method::GET, &path, |get| get.header("Prefer", "wait=100")).await.json();
    assert_eq!((&ended["status"], &ended["attempt"]), (&json!("succeeded"), &json!(2)), "{ended:#}");
    let replayed = again.metric("latentd_replayed_steps_total", "").await;
    println!("{replayed} rows were replayed after the kill");
    assert!(replayed >= 4.0);
    let uninterrupted = Server::start_ready(&launch(calm.path())).await;
    let expected = made(&uninterrupted, request).await;
    let artifacts = expected["artifacts"].as_array().unwrap();
    assert!(!artifacts.is_empty());
    for (n, artifact) in artifacts.iter().enumerate() {
        let file = get(&again, &format!("{path}/content/{n}")).await.body;
        let expected = get(&uninterrupted, artifact["url"].as_str().unwrap()).await.body;
        assert!(file == expected, "film {n}");
    }
}

#[tokio::test]
async fn films_over_http_equal_diffusers() {
    let Some(root) = case::complete() else { return };
    let (data, models) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::os::unix::fs::symlink(root.join("pipelines/svd"), models.path().join("svd")).unwrap();
    let server =
        Server::start_ready(&Launch::on(data.path()).set("LATENTD_MODELS__DIR", models.path().display())).await;
    for case in FilmCase::all(&root, "svd") {
        let exact = json!({"output": {"format": "zip"}});
        let generation = made(&server, &with(&case.body("svd"), &exact)).await;
        let (frames, _) = unzipped(&file(&server, &generation).await);
        println!("{}: {} levels", case.name, case.compare(&frames));
    }
}

/// The commands of the documents run as they are, except for the address, the model and the size.
#[tokio::test]
async fn the_commands_of_the_documents_make_films() {
    let data = tempfile::tempdir().unwrap();
    let server = server(data.path()).await;
    fs::write(data.path().join("boat.png"), picture()).unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut ran = 0;
    for page in ["docs/video.md", "docs/families/wan.md"] {
        let text = fs::read_to_string(root.join(page)).unwrap();
        for command in text.lines().filter(|line| line.starts_with("curl ")) {
            let address = server.url("");
            let here = command.replace("localhost:8080", address.trim_start_matches("http://"));
            let here = here.replace("model=svd", &format!("model={}", films::NAME));
            let here = here.replace("model=wan-i2v", &format!("model={}", wan_pictures::SEEING));
            let here = here.replace("model=wan", &format!("model={}", wan_films::TWO));
            let mut shell = Command::new("sh");
            shell.args(["-c", &here]).current_dir(data.path());
            let output = tokio::task::spawn_blocking(move || shell.output()).await.unwrap().unwrap();
            assert!(output.status.success(), "{command}\n{}", String::from_utf8_lossy(&output.stderr));
            let name = command.split_once("-o ").unwrap().1.split(' ').next().unwrap();
            let file = fs::read(data.path().join(name)).unwrap();
            assert_eq!(&file[4..8], b"ftyp", "{command}");
            ran += 1;
        }
    }
    assert!(ran >= 3, "{ran} commands");
}

#[tokio::test]
async fn a_webhook_tells_the_end_of_a_film_and_the_usage_counts_it() {
    let data = tempfile::tempdir().unwrap();
    let (launch, url, received) = receiver(launch(data.path())).await;
    let server = Server::start_ready(&launch).await;
    let body = with(&request(), &json!({"webhook": {"url": url, "events": ["completed"]}}));
    let generation = made(&server, &body).await;
    let message = tokio::time::timeout(PATIENCE, received).await.expect("the message comes").unwrap();
    assert_eq!(message["type"], "generation.succeeded");
    let told = &message["data"];
    assert_eq!(told["id"], generation["id"], "{message:#}");
    assert!(told["links"]["self"].as_str().unwrap().contains("/v1/videos"), "{message:#}");
    let usage = get(&server, "/v1/usage").await.json()["data"][0]["tenant"].clone();
    assert_eq!((&usage["generations"], &usage["images"]), (&json!(1), &json!(0)), "{usage}");
    assert_eq!((&usage["films"], &usage["film_seconds"]), (&json!(1), &json!(3.0 / 7.0)), "{usage}");
    assert_eq!((&usage["sounds"], &usage["sound_seconds"]), (&json!(0), &json!(0.0)), "{usage}");
    assert!(usage["cost"].as_f64().unwrap() > 0.0, "{usage}");
}

#[tokio::test]
async fn the_command_line_writes_the_film_of_the_server() {
    let data = tempfile::tempdir().unwrap();
    let server = server(data.path()).await;
    let models = data.path().join("models");
    fs::write(data.path().join("boat.png"), picture()).unwrap();
    let generate = |file: &str, more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_latentd"));
        command.args(["generate", "--seed", "5", "--steps", "2"]).args(more).current_dir(data.path());
        command.args(["-o", file]).env_remove("LATENTD_CONFIG").env("LATENTD_MODELS__DIR", &models);
        command.output().unwrap()
    };
    let own = ["--model", films::NAME, "--image", "boat.png", "--frames", "4", "--fps", "9"];
    let own = [&own[..], &["--motion-bucket-id", "90", "--set", "output.provenance=false"]].concat();
    // The name of an APNG ends in .png or .apng.
    for (file, format) in [
        ("a.mp4", "mp4"),
        ("a.gif", "gif"),
        ("a.webp", "webp"),
        ("a.png", "apng"),
        ("b.apng", "apng"),
        ("a.zip", "zip"),
        ("a", "mp4"),
    ] {
        let output = generate(file, &own);
        assert!(output.status.success(), "{file}: {}", String::from_utf8_lossy(&output.stderr));
        let more =
            json!({"frames": 4, "fps": 9, "motion_bucket_id": 90, "output": {"format": format, "provenance": false}});
        let theirs = self::file(&server, &made(&server, &with(&request(), &more)).await).await;
        assert!(fs::read(data.path().join(file)).unwrap() == theirs, "{file}");
    }
    let several = generate("c.mp4", &[&own[..], &["-n", "2"]].concat());
    assert!(several.status.success() && data.path().join("c-1.mp4").is_file());
    let also = |more: &[&'static str]| [&own[..], more].concat();
    let emoji = vec!["a fox", "--model", "emoji"];
    for (file, more, expected) in [
        ("a.jpg", also(&[]), ".mp4, .gif, .webp, .png, .apng or .zip"),
        ("a.wav", also(&[]), ".mp4, .gif, .webp, .png, .apng or .zip"),
        ("a.mp4", vec!["a fox"], "`latentd models`"),
        ("a.mp4", emoji, ".png, .jpg, .jpeg or .webp"),
        ("a.mp4", vec!["--model", films::NAME], "image is required"),
        ("a.png", also(&["--format", "gif"]), "--format is gif"),
        ("a.mp4", vec!["--model", films::NAME, "--image", "boat.png", "--frames", "0"], "frames must be between"),
        ("a.mp4", vec!["--model", films::NAME, "--image", "boat.png", "--frames", "1"], "for a single frame"),
    ] {
        let output = generate(file, &more);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && text.contains(expected) && !text.contains("/v1"),
            "{file} {more:?}: {text}"
        );
    }
}

/// A film that needs too much memory is refused with the field that makes it fit.
#[tokio::test]
async fn too_long_a_film_is_refused_with_the_field_that_helps() {
    /// The field of the error of a server with this bound, and the memory that the film would take, in MiB.
    async fn refused(bound: u64, body: &Value) -> (String, u64) {
        let data = tempfile::tempdir().unwrap();
        let server = Server::start_ready(&launch(data.path()).set("LATENTD_ENGINE__MAX_BYTES", bound << 20)).await;
        let refused = ask(&server, Method::POST, "/v1/videos", |post| post.json(body)).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{refused:?}");
        let error = refused.json()["errors"][0].clone();
        let detail = error["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(&format!("engine.max_bytes is {bound} MiB")), "{detail}");
        let takes = detail.split_once(" takes ").unwrap().1.split(' ').next().unwrap().parse().unwrap();
        (error["pointer"].as_str().unwrap().to_owned(), takes)
    }
    let film = |more: Value| with(&with(&request(), &json!({"size": "128x128"})), &more);
    let (whole, chunked) = (film(json!({"frames": 24})), film(json!({"frames": 24, "decode_chunk_size": 1})));
    let (field, least) = refused(1, &film(json!({"frames": 2, "decode_chunk_size": 1}))).await;
    assert_eq!(field, "/width", "nothing else helps");
    let (field, chunks) = refused(least, &chunked).await;
    assert_eq!(field, "/frames", "fewer frames take {least} MiB");
    let (field, all) = refused(chunks, &whole).await;
    assert_eq!(field, "/decode_chunk_size", "single frames take {chunks} MiB");
    assert!(least < chunks && chunks < all, "{least} {chunks} {all}");
}

/// A model offers only schedulers that it can use, and defaults within the limits of the server.
#[tokio::test]
async fn the_model_offers_what_it_can_do() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_ready(&launch(data.path()).set("LATENTD_LIMITS__MAX_FRAMES", 2)).await;
    let model = get(&server, &format!("/v1/models/{}", films::NAME)).await.json();
    assert_eq!(model["capabilities"]["film"]["default_frames"], 2);
    let offered = model["capabilities"]["schedulers"].as_array().unwrap().clone();
    assert!(offered.contains(&json!("euler")) && !offered.contains(&json!("flow_euler")), "{offered:?}");
    let all = get(&server, "/v1/schedulers").await.json()["data"].as_array().unwrap().clone();
    for scheduler in all.iter().map(|scheduler| &scheduler["name"]) {
        let body = with(&request(), &json!({"scheduler": scheduler, "steps": 25, "frames": 2}));
        let answer = ask(&server, Method::POST, "/v1/videos", |post| post.json(&body)).await;
        let is_accepted = answer.status == StatusCode::ACCEPTED;
        assert_eq!(is_accepted, offered.contains(scheduler), "{scheduler}: {answer:?}");
        if is_accepted {
            let path = answer.header("location").to_owned();
            ask(&server, Method::POST, &format!("{path}/cancel"), |post| post).await;
        } else {
            assert_eq!(answer.json()["errors"][0]["pointer"], "/scheduler", "{answer:?}");
        }
    }
    let drawing = json!({"prompt": "a fox", "override_settings": {"sd_model_checkpoint": films::NAME}});
    let refused = ask(&server, Method::POST, "/sdapi/v1/txt2img", |post| post.json(&drawing)).await;
    let text = refused.json().to_string();
    assert!(refused.status == StatusCode::UNPROCESSABLE_ENTITY && text.contains("makes films"), "{text}");
    assert!(!text.contains("prompt"), "{text}");
}

/// The report of `POST /v1/verify`, whatever the media type of the body says.
#[cfg(feature = "provenance")]
async fn verified(server: &Server, file: &[u8]) -> Value {
    let post = |post: reqwest::RequestBuilder| post.header("Content-Type", "video/mp4").body(file.to_vec());
    let answer = ask(server, Method::POST, "/v1/verify", post).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    answer.json()
}

/// The file with one bit of its compressed frames changed.
#[cfg(feature = "provenance")]
fn changed(file: &[u8]) -> Vec<u8> {
    let mut changed = file.to_vec();
    // The other files end with the frames.
    let find = |word: &[u8]| file.windows(word.len()).rposition(|window| window == word);
    let at = find(b"mdat").or_else(|| find(b"VP8L")).map_or(file.len() - 24, |at| at + 24);
    changed[at] ^= 1;
    changed
}

#[cfg(feature = "provenance")]
#[tokio::test]
async fn signed_films_are_verified() {
    let data = tempfile::tempdir().unwrap();
    let server = server(data.path()).await;
    for (format, kind) in [("mp4", "video/mp4"), ("gif", "image/gif"), ("apng", "image/png"), ("webp", "image/webp")] {
        let generation = made(&server, &with(&request(), &json!({"output": {"format": format}}))).await;
        let signed = file(&server, &generation).await;
        let report = verified(&server, &signed).await;
        assert_eq!((&report["verdict"], &report["by_this_server"]), (&json!("intact"), &json!(true)), "{report}");
        assert_eq!((&report["content_type"], &report["problems"]), (&json!(kind), &json!([])), "{report}");
        assert_eq!(report["watermark"], Value::Null, "{report}");
        let said = &report["generation"];
        assert_eq!((&said["id"], &said["request"]["frames"]), (&generation["id"], &json!(3)), "{report}");
        assert_eq!(said["unsigned_sha256"], generation["artifacts"][0]["unsigned_sha256"], "{report}");
        let report = verified(&server, &changed(&signed)).await;
        assert_eq!((&report["verdict"], &report["by_this_server"]), (&json!("altered"), &json!(false)), "{format}");
        let plain = file(&server, &made(&server, &with(&request(), &output(format))).await).await;
        assert_eq!(verified(&server, &plain).await["verdict"], "none", "{format}");
        // Half of a file has no credentials, or damaged ones, and is no error of the server.
        let half = verified(&server, &signed[..signed.len() / 2]).await;
        assert_ne!(half["verdict"], "intact", "{format}");
    }
}

/// Files that `POST /v1/verify` does not read are refused in one way, whatever their media type says.
#[tokio::test]
async fn files_that_are_not_verified_are_refused_in_one_way() {
    let data = tempfile::tempdir().unwrap();
    let server = server(data.path()).await;
    let archive = file(&server, &made(&server, &with(&request(), &output("zip"))).await).await;
    for kind in ["video/mp4", "audio/wav", "image/gif", "application/zip", "application/octet-stream"] {
        let refused =
            ask(&server, Method::POST, "/v1/verify", |post| post.header("Content-Type", kind).body(archive.clone()))
                .await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{kind}: {refused:?}");
        assert_eq!(refused.json()["errors"][0]["code"], "image_undecodable", "{kind}");
    }
}
