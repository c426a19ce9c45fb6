//! Tests of sounds over HTTP: answers, files, ids, errors, a kill, and comparisons with diffusers.

use std::{fs, io::Cursor, path::Path, process::Command};

use futures::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    answer::{self, ask, get, receiver, with},
    case::{self, SoundCase},
    conforms::events,
    server::{Launch, PATIENCE, Server},
    sounds, waveform_sounds,
};

/// Posts a request and waits for the end of its generation.
async fn made(server: &Server, body: &Value) -> Value {
    answer::made(server, "/v1/audio", body).await
}

/// A server with the random model.
async fn server(data: &Path) -> Server {
    Server::start_ready(&launch(data)).await
}

/// The model is written once; a later start finds it.
fn launch(data: &Path) -> Launch {
    let models = data.join("models");
    if !models.exists() {
        sounds::put_model(&models);
        waveform_sounds::put_model(&models);
    }
    Launch::on(data).set("LATENTD_MODELS__DIR", models.display())
}

fn request() -> Value {
    with(&crate::request(), &json!({"output": {"provenance": false}}))
}

/// The samples of a file, as floats.
fn wav(file: &[u8]) -> (hound::WavSpec, Vec<f32>) {
    let reader = hound::WavReader::new(Cursor::new(file)).unwrap();
    let spec = reader.spec();
    let samples = match spec.sample_format {
        hound::SampleFormat::Float => reader.into_samples::<f32>().map(Result::unwrap).collect(),
        hound::SampleFormat::Int => reader.into_samples::<i16>().map(|sample| f32::from(sample.unwrap())).collect(),
    };
    (spec, samples)
}

#[tokio::test]
async fn a_sound_is_made_listed_followed_read_in_parts_and_deleted() {
    let data = tempfile::tempdir().unwrap();
    let server = server(data.path()).await;
    let queued = ask(&server, Method::POST, "/v1/audio", |post| post.json(&request())).await;
    assert_eq!(queued.status, StatusCode::ACCEPTED);
    let generation = queued.json();
    let id = generation["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/audio/{id}");
    assert_eq!(queued.header("location"), path);
    assert_eq!(generation["links"]["events"], format!("{path}/events"));

    let followed = get(&server, &format!("{path}/events")).await;
    let followed = events(std::str::from_utf8(&followed.body).unwrap());
    let last = followed.last().unwrap();
    assert_eq!(last["event"], "generation.succeeded");
    assert!(followed.iter().any(|event| event["event"] == "generation.started"));
    assert_eq!(last["data"]["generation"]["object"], "audio.generation");

    let ended = get(&server, &path).await.json();
    let sound = &ended["artifacts"][0];
    assert_eq!(sound["url"], format!("{path}/content/0"));
    assert_eq!(
        (&sound["seconds"], &sound["sample_rate"], &sound["channels"], &sound["content_type"]),
        (&json!(0.1), &json!(8000), &json!(1), &json!("audio/wav"))
    );
    assert_eq!(ended["params"]["seconds"], 0.1);
    assert_eq!(
        ended["params"]["output"],
        json!({"format": "wav", "sample_format": "s16", "metadata": "full", "provenance": false})
    );

    for end in ["0", "0.wav"] {
        let file = get(&server, &format!("{path}/content/{end}")).await;
        assert_eq!(file.header("content-type"), "audio/wav");
        assert_eq!(file.header("etag"), format!("\"{}\"", sound["sha256"].as_str().unwrap()));
        assert_eq!(sound["bytes"], file.body.len());
        let (spec, samples) = wav(&file.body);
        assert_eq!((spec.sample_rate, spec.channels, spec.bits_per_sample, samples.len()), (8000, 1, 16, 800));
        let content = format!("{path}/content/{end}");
        let part = ask(&server, Method::GET, &content, |get| get.header("Range", "bytes=40-99")).await;
        assert_eq!((part.status, &part.body[..]), (StatusCode::PARTIAL_CONTENT, &file.body[40..100]));
        assert_eq!(part.header("content-range"), format!("bytes 40-99/{}", file.body.len()));
    }
    assert_eq!(get(&server, &format!("{path}/content/1")).await.status, StatusCode::NOT_FOUND);
    assert_eq!(get(&server, &format!("{path}/content/0.png")).await.status, StatusCode::NOT_FOUND);

    let starred = ask(&server, Method::PUT, &format!("{path}/star"), |put| put).await;
    assert_eq!(starred.json()["starred"], true);
    assert_eq!(get(&server, "/v1/audio?starred=true").await.json()["data"][0]["id"], id.as_str());
    ask(&server, Method::DELETE, &format!("{path}/star"), |delete| delete).await;

    let deleted = ask(&server, Method::DELETE, &path, |delete| delete).await;
    assert_eq!(deleted.status, StatusCode::NO_CONTENT);
    for gone in [path.clone(), format!("{path}/content/0"), format!("{path}/events")] {
        assert_eq!(get(&server, &gone).await.status, StatusCode::NOT_FOUND, "{gone}");
    }
    assert_eq!(get(&server, "/v1/audio").await.json()["data"], json!([]));
}

#[tokio::test]
async fn accept_decides_the_form_of_the_answer() {
    let data = tempfile::tempdir().unwrap();
    let server = server(data.path()).await;
    let answer = |accept: &'static str, body: Value| {
        let server = &server;
        async move { ask(server, Method::POST, "/v1/audio", |post| post.header("Accept", accept).json(&body)).await }
    };
    for (accept, media_type) in [
        ("audio/wav", "audio/wav"),
        ("audio/*", "audio/wav"),
        ("application/json;q=0.5, audio/wav", "audio/wav"),
        ("audio/x-wav", "audio/wav"),
        ("audio/Wave", "audio/wav"),
        ("audio/flac", "audio/flac"),
        ("audio/x-flac, audio/wav;q=0.5", "audio/flac"),
        ("audio/ogg", "audio/ogg"),
        ("audio/opus", "audio/ogg"),
    ] {
        let file = answer(accept, request()).await;
        assert_eq!((file.status, file.header("content-type")), (StatusCode::OK, media_type), "{accept}");
        assert_eq!(file.header("latentd-seed"), "5");
        let (location, id) = (file.header("content-location"), file.header("latentd-generation-id"));
        assert_eq!(location, format!("/v1/audio/{id}/content/0"));
        assert_eq!(file.body, get(&server, location).await.body);
    }
    let stream = answer("text/event-stream", request()).await;
    let stream = events(std::str::from_utf8(&stream.body).unwrap());
    assert_eq!(stream.last().unwrap()["event"], "generation.succeeded");
    assert_eq!(answer("image/png", request()).await.status, StatusCode::NOT_ACCEPTABLE);
    let two = answer("audio/wav", with(&request(), &json!({"n": 2}))).await;
    assert_eq!(two.status, StatusCode::NOT_ACCEPTABLE);
    let form = ask(&server, Method::POST, "/v1/audio", |post| {
        post.header("Accept", "audio/wav").form(&[
            ("model", sounds::NAME),
            ("prompt", "1984"),
            ("seed", "5"),
            ("steps", "1"),
            ("output.sample_format", "f32"),
        ])
    })
    .await;
    assert_eq!(form.status, StatusCode::OK, "{form:?}");
    assert_eq!(wav(&form.body).0.sample_format, hound::SampleFormat::Float);
}

#[tokio::test]
async fn the_formats_have_the_same_samples_and_equal_requests_equal_bytes() {
    let data = tempfile::tempdir().unwrap();
    let server = server(data.path()).await;
    let file = async |more: Value| {
        let generation = made(&server, &with(&request(), &more)).await;
        get(&server, generation["artifacts"][0]["url"].as_str().unwrap()).await.body
    };
    let as_floats = json!({"output": {"sample_format": "f32", "provenance": false}});
    let silent = |provenance: bool| json!({"output": {"metadata": "none", "provenance": provenance}});
    let (rounded, exact) = (file(json!({})).await, file(as_floats).await);
    assert!(rounded == file(json!({})).await, "the same request makes the same bytes");
    let ((_, rounded), (_, exact)) = (wav(&rounded), wav(&exact));
    assert_eq!(rounded.len(), exact.len());
    assert!(rounded.iter().zip(&exact).all(|(level, sample)| *level == (sample * 32767.0).round()));
    let signed = made(&server, &with(&request(), &silent(true))).await;
    let plain = made(&server, &with(&request(), &silent(false))).await;
    assert_eq!(signed["artifacts"][0]["unsigned_sha256"], plain["artifacts"][0]["sha256"]);
    #[cfg(feature = "provenance")]
    {
        use crate::server::unsigned;
        let url = |generation: &Value| generation["artifacts"][0]["url"].as_str().unwrap().to_owned();
        let (file, plain) = (get(&server, &url(&signed)).await.body, get(&server, &url(&plain)).await.body);
        assert!(file != plain && unsigned(&file) == plain, "the credentials are a chunk of their own");
        assert_eq!(wav(&file).1, wav(&plain).1);
    }
}

#[cfg(feature = "provenance")]
#[tokio::test]
async fn a_signed_sound_is_verified() {
    let data = tempfile::tempdir().unwrap();
    let server = server(data.path()).await;
    let sound = async |output: Value| {
        let generation = made(&server, &with(&request(), &json!({"output": output}))).await;
        let file = get(&server, generation["artifacts"][0]["url"].as_str().unwrap()).await.body;
        (generation, file)
    };
    for (format, media_type) in [("wav", "audio/wav"), ("flac", "audio/flac")] {
        let verified = async |query: &str, file: Vec<u8>| {
            let post = |post: reqwest::RequestBuilder| post.header("Content-Type", media_type).body(file.clone());
            let answer = ask(&server, Method::POST, &format!("/v1/verify{query}"), post).await;
            assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
            answer.json()
        };
        let (signed, signed_file) = sound(json!({"format": format})).await;
        let (_, plain_file) = sound(json!({"format": format, "provenance": false})).await;
        let report = verified("?recompute=true", signed_file.clone()).await;
        assert_eq!((&report["verdict"], &report["by_this_server"]), (&json!("intact"), &json!(true)), "{report}");
        assert_eq!((&report["content_type"], &report["watermark"]), (&json!(media_type), &Value::Null), "{report}");
        let said = &report["generation"];
        assert_eq!((&said["id"], &said["request"]["prompt"]), (&signed["id"], &request()["prompt"]), "{report}");
        assert_eq!(said["unsigned_sha256"], signed["artifacts"][0]["unsigned_sha256"], "{report}");
        assert_eq!(report["recomputed"]["result"], "same", "{report}");
        let mut changed = signed_file;
        let last = changed.len() - 1;
        changed[last] ^= 1;
        assert_eq!(verified("", changed).await["verdict"], "altered");
        assert_eq!(verified("", plain_file.clone()).await["verdict"], "none");
        if format == "wav" {
            let mut longer = plain_file;
            longer[5] += 1;
            assert_eq!(verified("", longer).await["verdict"], "unreadable", "the file is shorter than its header says");
        }
    }
}

/// Whether the file contains the text.
fn says(file: &[u8], text: &str) -> bool {
    file.windows(text.len()).any(|part| part == text.as_bytes())
}

/// FLAC has the samples of WAV, Opus has as many as the artifact says, and only Opus is never signed.
#[tokio::test]
async fn flac_and_opus_files_have_the_sound_and_its_request() {
    let data = tempfile::tempdir().unwrap();
    let server = server(data.path()).await;
    let base = json!({"prompt": "rain", "seed": 5, "steps": 2, "seconds": 0.1, "scheduler": null, "eta": null});
    for (model, rate, channels) in [(sounds::NAME, 8_000_u64, 1), (waveform_sounds::NAME, 8_000, 2)] {
        let artifact = async |output: Value| {
            let generation = made(&server, &with(&base, &json!({"model": model, "output": output}))).await;
            let artifact = generation["artifacts"][0].clone();
            let file = get(&server, artifact["url"].as_str().unwrap()).await;
            assert_eq!(artifact["content_type"], file.header("content-type"));
            (artifact, file)
        };
        let (_, plain) = artifact(json!({"format": "wav"})).await;
        let samples = wav(&plain.body).1.len() as u64 / channels;
        assert!(says(&plain.body, r#""prompt":"rain""#), "a WAV file says its request");

        let (flac, file) = artifact(json!({"format": "flac"})).await;
        assert_eq!(flac["sample_rate"], rate, "{flac}");
        let bare = crate::server::unsigned(&file.body);
        #[cfg(feature = "provenance")]
        assert!(file.body.starts_with(b"ID3") && bare.len() < file.body.len(), "FLAC is signed");
        assert!(bare.starts_with(b"fLaC") && says(&bare, "REQUEST={") && says(&bare, r#""prompt":"rain""#));
        // STREAMINFO: 20 bits of the rate, 3 of the channels, 5 of the bits per sample, 36 of the number of samples.
        let numbers = u64::from_be_bytes(bare[18..26].try_into().unwrap());
        let told = (numbers >> 44, (numbers >> 41) % 8 + 1, (numbers >> 36) % 32 + 1, numbers % (1 << 36));
        assert_eq!(told, (rate, channels, 16, samples));

        let (opus, file) = artifact(json!({"format": "opus", "metadata": "seed"})).await;
        let expected = (samples * 48_000).div_ceil(rate);
        assert_eq!((&opus["sample_rate"], &opus["channels"]), (&json!(48_000), &json!(channels)), "{opus}");
        assert_eq!(opus["sha256"], opus["unsigned_sha256"]);
        assert_eq!(opus["seconds"], expected as f64 / 48_000.0);
        assert!(says(&file.body, "SEED=5") && !says(&file.body, "rain"), "the file says only the seed");
        let mut reader = opus_pure::OggOpusReader::new(&file.body[..]).unwrap();
        let head = reader.head().clone();
        let mut last = 0;
        while let Some(packet) = reader.read_packet().unwrap() {
            last = packet.page_granule;
        }
        assert_eq!(last - i64::from(head.pre_skip), expected as i64);
        let part = ask(&server, Method::GET, opus["url"].as_str().unwrap(), |get| get.header("Range", "bytes=9-20"));
        assert_eq!(part.await.body, file.body[9..=20]);
    }
}

#[tokio::test]
async fn a_stereo_file_has_two_channels_and_its_params_make_it_again() {
    let data = tempfile::tempdir().unwrap();
    let server = server(data.path()).await;
    let request = json!({"model": waveform_sounds::NAME, "prompt": "rain", "seed": 5, "steps": 3, "seconds": 0.1,
        "logsnr_min": -4, "padding_seconds": 0.02, "output": {"provenance": false}});
    let generation = made(&server, &request).await;
    let (sound, params) = (&generation["artifacts"][0], &generation["params"]);
    assert_eq!((&sound["channels"], &sound["seconds"]), (&json!(2), &json!(0.1)));
    assert_eq!((&params["logsnr_min"], &params["logsnr_max"]), (&json!(-4.0), &json!(2.0)));
    let file = get(&server, sound["url"].as_str().unwrap()).await.body;
    let (spec, samples) = wav(&file);
    assert_eq!((spec.sample_rate, spec.channels, samples.len()), (8000, 2, 1600));
    assert_eq!(made(&server, params).await["artifacts"][0]["sha256"], sound["sha256"]);
    let others = made(&server, &crate::request()).await;
    assert!(others["params"].get("logsnr_min").is_none(), "{}", others["params"]);
    let schema = get(&server, &format!("/v1/models/{}/schema", waveform_sounds::NAME)).await.json();
    assert_eq!(schema["properties"]["padding_seconds"]["maximum"], 30.0);
    let schema = get(&server, &format!("/v1/models/{}/schema", sounds::NAME)).await.json();
    assert!(schema["properties"].get("padding_seconds").is_none());
}

#[tokio::test]
async fn pictures_and_sounds_do_not_mix() {
    let data = tempfile::tempdir().unwrap();
    let server = server(data.path()).await;
    let sound = made(&server, &request()).await["id"].as_str().unwrap().to_owned();
    let drawn = server.accept(&json!({"prompt": "a red fox", "steps": 1})).await;
    server.ended(&drawn).await;
    let ids = async |path: &str| {
        let data = get(&server, path).await.json()["data"].as_array().unwrap().clone();
        data.iter().map(|generation| generation["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ids("/v1/audio").await, [sound.as_str()]);
    assert_eq!(ids("/v1/images").await, [drawn.as_str()]);
    for (own, other) in [
        (format!("/v1/audio/{sound}"), format!("/v1/images/{sound}")),
        (format!("/v1/images/{drawn}"), format!("/v1/audio/{drawn}")),
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
        ("/v1/audio", json!({"model": "emoji", "prompt": "a"}), "unsupported_for_model"),
        ("/v1/audio", json!({"prompt": "a"}), "required"),
        ("/v1/images", json!({"model": sounds::NAME, "prompt": "a"}), "unsupported_for_model"),
    ] {
        let refused = ask(&server, Method::POST, path, |post| post.json(&body)).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{path} {body}");
        let errors = &refused.json()["errors"];
        assert_eq!((&errors[0]["pointer"], &errors[0]["code"]), (&json!("/model"), &json!(code)), "{errors}");
    }
    let option = json!({"sd_model_checkpoint": sounds::NAME});
    let refused = ask(&server, Method::POST, "/sdapi/v1/options", |post| post.json(&option)).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", refused.json());
    let models = get(&server, "/v1/models").await.json();
    let model = models["data"].as_array().unwrap().iter().find(|model| model["id"] == sounds::NAME).unwrap();
    assert_eq!(model["capabilities"]["tasks"], json!(["text-to-audio"]));
    assert_eq!(model["capabilities"]["sound"]["sample_rate"], 8000);
    let schema = get(&server, &format!("/v1/models/{}/schema", sounds::NAME)).await.json();
    assert_eq!(schema["properties"]["seconds"]["maximum"], 30.0);
}

#[tokio::test]
async fn a_repeated_request_makes_one_sound() {
    let data = tempfile::tempdir().unwrap();
    let server = server(data.path()).await;
    let body = request();
    let keyed = || ask(&server, Method::POST, "/v1/audio", |post| post.header("Idempotency-Key", "a-1").json(&body));
    let answers = join_all((0..8).map(|_| keyed())).await;
    let first = answers[0].json()["id"].clone();
    assert!(answers.iter().all(|answer| answer.json()["id"] == first));
    assert_eq!(answers.iter().filter(|answer| answer.headers.contains_key("idempotency-replayed")).count(), 7);
    let other = ask(&server, Method::POST, "/v1/audio", |post| {
        post.header("Idempotency-Key", "a-1").json(&with(&body, &json!({"seconds": 0.2})))
    });
    assert_eq!(other.await.status, StatusCode::UNPROCESSABLE_ENTITY);
    let drawing = ask(&server, Method::POST, "/v1/images", |post| post.header("Idempotency-Key", "a-1").json(&body));
    assert_eq!(drawing.await.json()["code"], "idempotency_key_reused");
    let chosen = "/v1/audio/img_01m0htfre0e7x9t4n2hz0w6r1s";
    let put = async |body: Value| ask(&server, Method::PUT, chosen, |put| put.json(&body)).await;
    assert_eq!(put(body.clone()).await.status, StatusCode::ACCEPTED);
    assert!(put(body.clone()).await.status.is_success());
    assert_eq!(put(with(&body, &json!({"seed": 6}))).await.status, StatusCode::CONFLICT);
    let (drawing, drawn) = (json!({"prompt": "a red fox", "steps": 1}), chosen.replace("audio", "images"));
    assert_eq!(ask(&server, Method::PUT, &drawn, |put| put.json(&drawing)).await.status, StatusCode::CONFLICT);
    assert_eq!(get(&server, "/v1/audio").await.json()["data"].as_array().unwrap().len(), 2);
}

/// A request of so many steps that it can be canceled, or interrupted, in the middle.
fn long() -> Value {
    with(&request(), &json!({"steps": 1000, "n": 4, "scheduler": "euler_a", "seconds": 0.2}))
}

#[tokio::test]
async fn a_running_generation_is_canceled() {
    let data = tempfile::tempdir().unwrap();
    let server = server(data.path()).await;
    let queued = ask(&server, Method::POST, "/v1/audio", |post| post.json(&long())).await.json();
    let path = format!("/v1/audio/{}", queued["id"].as_str().unwrap());
    server.until("it runs", async |server: &Server| server.metric("latentd_steps_total", "").await > 0.0).await;
    ask(&server, Method::POST, &format!("{path}/cancel"), |post| post).await;
    let ended = ask(&server, Method::GET, &path, |get| get.header("Prefer", "wait=60")).await.json();
    assert_eq!((&ended["status"], &ended["artifacts"]), (&json!("canceled"), &json!([])));
}

/// The bytes after a kill in the middle of denoising equal the bytes of an uninterrupted run, and steps are replayed.
#[tokio::test]
async fn a_killed_generation_continues_with_the_same_bytes() {
    let (data, calm) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let often = launch(data.path()).set("LATENTD_ENGINE__CHECKPOINT_INTERVAL_MS", 1);
    let killed = Server::start_ready(&often).await;
    let queued = ask(&killed, Method::POST, "/v1/audio", |post| post.json(&long())).await.json();
    let path = format!("/v1/audio/{}", queued["id"].as_str().unwrap());
    killed
        .until("a part is done", async |server: &Server| {
            server.metric("latentd_steps_total", "").await > 800.0 && answer::is_log_stored(data.path())
        })
        .await;
    let again = killed.kill_and_restart().await;
    let ended = ask(&again, Method::GET, &path, |get| get.header("Prefer", "wait=100")).await.json();
    assert_eq!((&ended["status"], &ended["attempt"]), (&json!("succeeded"), &json!(2)), "{ended:#}");
    let replayed = again.metric("latentd_replayed_steps_total", "").await;
    let computed = again.metric("latentd_steps_total", "").await;
    println!("{replayed} rows were replayed, {computed} computed after the kill");
    assert!(replayed >= 8.0 && replayed + computed == 8000.0);
    let uninterrupted = server(calm.path()).await;
    let expected = made(&uninterrupted, &long()).await;
    for n in 0..4 {
        let file = get(&again, &format!("{path}/content/{n}")).await.body;
        let expected = get(&uninterrupted, expected["artifacts"][n]["url"].as_str().unwrap()).await.body;
        assert!(file == expected, "sound {n}");
    }
}

#[tokio::test]
async fn sounds_over_http_equal_diffusers() {
    let Some(root) = case::complete() else { return };
    let (data, models) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for model in case::MODELS {
        std::os::unix::fs::symlink(root.join("pipelines").join(model), models.path().join(model)).unwrap();
    }
    let server =
        Server::start_ready(&Launch::on(data.path()).set("LATENTD_MODELS__DIR", models.path().display())).await;
    for case in SoundCase::all(&root) {
        let exact = json!({"output": {"sample_format": "f32"}});
        let generation = made(&server, &with(&Value::Object(case.body()), &exact)).await;
        let mut sounds = Vec::new();
        for artifact in generation["artifacts"].as_array().unwrap() {
            sounds.push(wav(&get(&server, artifact["url"].as_str().unwrap()).await.body).1);
        }
        println!("{}: {:.1e} of the largest sample", case.name, case.compare(&sounds));
    }
}

#[tokio::test]
async fn the_command_line_writes_the_sound_of_the_server() {
    let data = tempfile::tempdir().unwrap();
    let server = server(data.path()).await;
    let models = data.path().join("models");
    let generate = |name: &str, more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_latentd"));
        command.args(["generate", "rain", "--seed", "5", "--steps", "2"]).args(more).current_dir(data.path());
        command.args(["-o", name]).env_remove("LATENTD_CONFIG").env("LATENTD_MODELS__DIR", &models);
        command.output().unwrap()
    };
    for (name, file, format) in [
        (sounds::NAME, "rain.wav", "wav"),
        (waveform_sounds::NAME, "rain.wav", "wav"),
        (sounds::NAME, "rain.flac", "flac"),
        (waveform_sounds::NAME, "rain.opus", "opus"),
        (sounds::NAME, "rain.ogg", "opus"),
    ] {
        let settings = ["--model", name, "--set", "seconds=0.1", "--set", "output.provenance=false"];
        let output = generate(file, &settings);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let request = json!({"model": name, "prompt": "rain", "seed": 5, "steps": 2, "seconds": 0.1,
            "output": {"format": format, "provenance": false}});
        let made = made(&server, &request).await;
        let theirs = get(&server, made["artifacts"][0]["url"].as_str().unwrap()).await.body;
        assert!(fs::read(data.path().join(file)).unwrap() == theirs, "{file} of {name}");
    }
    for (file, model, expected) in [("rain.png", sounds::NAME, ".wav"), ("rain.wav", "emoji", ".png")] {
        let output = generate(file, &["--model", model]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains(expected) && !text.contains("/v1"), "{text}");
    }
}

/// The commands of the documents run as they are, except for the address and the model.
#[tokio::test]
async fn the_commands_of_the_documents_make_sounds() {
    let data = tempfile::tempdir().unwrap();
    let server = server(data.path()).await;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut ran = 0;
    for page in ["docs/sound.md", "docs/families/audio-ldm.md", "docs/families/stable-audio-3.md"] {
        let text = fs::read_to_string(root.join(page)).unwrap();
        for command in text.lines().filter(|line| line.starts_with("curl ")) {
            let address = server.url("");
            let here = command.replace("localhost:8080", address.trim_start_matches("http://"));
            let here = here.replace("model=audioldm", &format!("model={}", sounds::NAME));
            let here = here.replace("model=stable-audio-3", &format!("model={}", waveform_sounds::NAME));
            let mut shell = Command::new("sh");
            shell.args(["-c", &here]).current_dir(data.path());
            let output = tokio::task::spawn_blocking(move || shell.output()).await.unwrap().unwrap();
            assert!(output.status.success(), "{command}\n{}", String::from_utf8_lossy(&output.stderr));
            let name = command.split_once("-o ").unwrap().1.split(' ').next().unwrap();
            assert!(!wav(&fs::read(data.path().join(name)).unwrap()).1.is_empty(), "{command}");
            ran += 1;
        }
    }
    assert!(ran >= 3, "{ran} commands");
}

#[tokio::test]
async fn a_webhook_tells_the_end_of_a_sound_and_the_usage_counts_it() {
    let data = tempfile::tempdir().unwrap();
    let (launch, url, received) = receiver(launch(data.path())).await;
    let server = Server::start_ready(&launch).await;
    let body = with(&request(), &json!({"webhook": {"url": url, "events": ["completed"]}}));
    let generation = made(&server, &body).await;
    let message = tokio::time::timeout(PATIENCE, received).await.expect("the message comes").unwrap();
    assert_eq!(message["type"], "generation.succeeded");
    let told = &message["data"];
    assert_eq!(told["id"], generation["id"], "{message:#}");
    assert!(told["links"]["self"].as_str().unwrap().contains("/v1/audio"), "{message:#}");
    let usage = get(&server, "/v1/usage").await.json()["data"][0]["tenant"].clone();
    assert_eq!((&usage["generations"], &usage["images"]), (&json!(1), &json!(0)), "{usage}");
    assert_eq!((&usage["sounds"], &usage["films"]), (&json!(1), &json!(0)), "{usage}");
    assert_eq!(usage["sound_seconds"], generation["params"]["seconds"], "{usage}");
    assert!(usage["cost"].as_f64().unwrap() > 0.0, "{usage}");
}

#[tokio::test]
async fn eta_and_the_default_length_follow_the_model_and_the_limits() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_ready(&launch(data.path()).set("LATENTD_LIMITS__MAX_SECONDS", 0.1)).await;
    for name in [sounds::NAME, waveform_sounds::NAME] {
        let model = get(&server, &format!("/v1/models/{name}")).await.json();
        let length = model["capabilities"]["sound"]["default_seconds"].as_f64().unwrap();
        assert!(length <= 0.1, "{name}: {length} s");
    }
    let noisy = json!({"model": waveform_sounds::NAME, "prompt": "rain", "eta": 0.5});
    let refused = ask(&server, Method::POST, "/v1/audio", |post| post.json(&noisy)).await;
    let error = refused.json()["errors"][0].clone();
    assert_eq!((&error["pointer"], &error["code"]), (&json!("/eta"), &json!("out_of_range")), "{error}");
}
