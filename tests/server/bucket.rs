//! Tests of pictures, inputs and logs in an S3 bucket, while the bucket works and while it fails.

use std::path::Path;

use base64::{Engine, prelude::BASE64_STANDARD};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::{
    harness::{Server, request, with},
    s3::{Mode, S3},
};

async fn start(data: &Path, s3: &S3, more: &[(&str, &str)]) -> Server {
    let settings = s3.settings();
    let settings: Vec<_> = settings.iter().map(|(key, value)| (&**key, &**value)).chain(more.iter().copied()).collect();
    Server::start(data, &settings).await
}

/// Short timeouts and pauses, so that failures of the bucket show soon.
const BRIEF: [(&str, &str); 3] = [
    ("LATENTD_BLOBS__ANSWER_TIMEOUT_S", "0.5"),
    ("LATENTD_BLOBS__REQUEST_TIMEOUT_S", "0.2"),
    ("LATENTD_BLOBS__RETRY_PAUSE_MAX_S", "0.02"),
];

fn files(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.map(|path| if path.is_dir() { files(&path) } else { 1 }).sum()
}

#[tokio::test]
async fn pictures_outlive_the_process_and_are_deleted_with_their_generation() {
    let (data, s3) = (tempfile::tempdir().unwrap(), S3::start());
    let server = start(data.path(), &s3, &[]).await;
    let id = server.accept(&with(request("a red fox", 7), &json!({"n": 2, "steps": 4}))).await;
    assert_eq!(server.ended(&id).await["status"], "succeeded");
    let pictures = [server.picture(&id, 0).await, server.picture(&id, 1).await];
    assert!(!data.path().join("blobs").exists(), "the data folder has no blobs");
    assert_eq!(std::fs::read(s3.file(&format!("img/{id}/1/0.png"))).unwrap(), server.file(&id, 0).await);

    // The picture of one generation is the input of another.
    let image = json!({"b64": BASE64_STANDARD.encode(&pictures[0])});
    let changed = server.accept(&with(request("a green fox", 3), &json!({"image": image, "steps": 4}))).await;
    assert_eq!(server.ended(&changed).await["status"], "succeeded");
    server.kill();

    let server = start(data.path(), &s3, &[]).await;
    assert_eq!([server.picture(&id, 0).await, server.picture(&id, 1).await], pictures);
    let upload = server.json(&format!("/v1/images/{changed}")).await["params"]["image"].clone();
    let again = server.accept(&with(request("a blue fox", 3), &json!({"image": upload, "steps": 4}))).await;
    assert_eq!(server.ended(&again).await["status"], "succeeded");
    for id in [id, changed, again] {
        let deleted = server.client.delete(server.url(&format!("/v1/images/{id}"))).send().await.unwrap();
        assert_eq!(deleted.status(), StatusCode::NO_CONTENT);
    }
    assert_eq!(files(&s3.bucket()), 0);
}

#[tokio::test]
async fn a_killed_generation_resumes_from_its_log_in_the_bucket() {
    let (data, s3) = (tempfile::tempdir().unwrap(), S3::start());
    let often = [("LATENTD_ENGINE__CHECKPOINT_INTERVAL_MS", "1")];
    let server = start(data.path(), &s3, &often).await;
    let long = with(request("a red fox", 11), &json!({"steps": 150}));
    let id = server.accept(&long).await;
    server.until("some of the log is stored", async |_: &Server| files(&s3.file("run")) > 4).await;
    server.kill();
    let server = start(data.path(), &s3, &often).await;
    assert_eq!(server.ended(&id).await["status"], "succeeded");
    assert!(server.metric("latentd_replayed_steps_total", "").await > 0.0);
    let undisturbed = server.accept(&long).await;
    server.ended(&undisturbed).await;
    assert!(server.picture(&undisturbed, 0).await == server.picture(&id, 0).await, "the picture differs");
    server.until("what is over has no log", async |_: &Server| files(&s3.file("run")) == 0).await;
}

#[tokio::test]
async fn an_upload_waits_for_the_bucket() {
    let (data, mut s3) = (tempfile::tempdir().unwrap(), S3::start());
    let server = start(data.path(), &s3, &BRIEF).await;
    for mode in [Some(Mode::Unavailable), Some(Mode::Hang), None] {
        let before = s3.requests();
        match mode {
            Some(mode) => s3.set_mode(mode),
            None => s3.stop(),
        }
        let id = server.accept(&with(request("a red fox", 7), &json!({"steps": 2}))).await;
        let saves = async |server: &Server| {
            let generation = server.json(&format!("/v1/images/{id}")).await;
            assert_ne!(generation["status"], "succeeded", "{mode:?}: nothing is stored");
            generation["progress"]["phase"] == "saving" && (mode.is_none() || s3.requests() > before + 3)
        };
        server.until("the picture was to be stored several times", saves).await;
        match mode {
            Some(_) => s3.set_mode(Mode::Ok),
            None => s3.start_again(),
        }
        let ended = server.ended(&id).await;
        assert_eq!((ended["status"].as_str(), ended["attempt"].as_u64()), (Some("succeeded"), Some(1)), "{ended}");
        server.picture(&id, 0).await;
    }
}

#[tokio::test]
async fn a_failed_upload_causes_another_attempt() {
    let (data, s3) = (tempfile::tempdir().unwrap(), S3::start());
    let hasty = [&BRIEF[..], &[("LATENTD_BLOBS__UPLOAD_TIMEOUT_S", "0.3")]].concat();
    let server = start(data.path(), &s3, &hasty).await;
    s3.set_mode(Mode::Unavailable);
    let id = server.accept(&with(request("a red fox", 7), &json!({"steps": 2}))).await;
    let retried = async |server: &Server| {
        let events = server.client.get(server.url(&format!("/v1/images/{id}"))).send().await.unwrap();
        let generation: Value = events.json().await.unwrap();
        generation["attempt"] == 1 && generation["status"] == "queued"
    };
    server.until("it is queued again", retried).await;
    s3.set_mode(Mode::Ok);
    let ended = server.ended(&id).await;
    assert_eq!((ended["status"].as_str(), ended["attempt"].as_u64()), (Some("succeeded"), Some(2)), "{ended}");
    server.picture(&id, 0).await;
}

#[tokio::test]
async fn a_picture_is_served_completely_or_not_at_all() {
    let (data, mut s3) = (tempfile::tempdir().unwrap(), S3::start());
    let server = start(data.path(), &s3, &BRIEF).await;
    let id = server.accept(&with(request("a red fox", 7), &json!({"steps": 2}))).await;
    assert_eq!(server.ended(&id).await["status"], "succeeded");
    let picture = server.picture(&id, 0).await;
    let path = format!("/v1/images/{id}/content/0");
    let fails = async |what: &str| {
        let failed = server.get(&path).await;
        assert_eq!(failed.status(), StatusCode::BAD_GATEWAY, "{what}");
        let problem: Value = failed.json().await.unwrap();
        assert_eq!(problem["code"], "object_store_error", "{what}: {problem}");
        // Requests that do not need the bucket still succeed.
        assert_eq!(server.json(&format!("/v1/images/{id}")).await["status"], "succeeded");
        assert_eq!(server.get_operator("/readyz").await.status(), StatusCode::OK);
    };
    for mode in [Mode::Unavailable, Mode::Hang, Mode::Cut, Mode::Forbidden] {
        s3.set_mode(mode);
        fails(&format!("{mode:?}")).await;
    }
    let image = json!({"b64": BASE64_STANDARD.encode(&picture)});
    let refused = server.post(&with(request("a green fox", 3), &json!({"image": image}))).await;
    assert_eq!(refused.status(), StatusCode::BAD_GATEWAY, "a picture that cannot be stored is not accepted");
    assert_eq!(server.json("/v1/images").await["data"].as_array().unwrap().len(), 1);
    s3.set_mode(Mode::Ok);
    assert_eq!(server.picture(&id, 0).await, picture);
    s3.stop();
    fails("away").await;
    s3.start_again();
    assert_eq!(server.picture(&id, 0).await, picture);
    std::fs::remove_file(s3.file(&format!("img/{id}/1/0.png"))).unwrap();
    fails("the file is gone").await;
}

#[test]
fn an_unusable_bucket_stops_the_start_and_the_error_names_the_setting() {
    let (data, s3) = (tempfile::tempdir().unwrap(), S3::start());
    let mut settings = s3.settings();
    settings.push(("LATENTD_BLOBS__SECRET_ACCESS_KEY".to_owned(), "swordfish".to_owned()));
    settings.push(("LATENTD_DATA_DIR".to_owned(), data.path().display().to_string()));
    settings.extend(["HTTP", "OPERATOR"].map(|one| (format!("LATENTD_{one}__BIND"), "127.0.0.1:0".to_owned())));
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_latentd"));
        command.args(arguments).env_remove("LATENTD_CONFIG").envs(settings.iter().cloned()).output().unwrap()
    };
    let refused = run(&["serve"]);
    assert!(!refused.status.success());
    let text = String::from_utf8_lossy(&refused.stderr);
    assert!(text.contains("blobs.access_key_id: s3://pictures/some/place cannot be used"), "{text}");
    let printed = run(&["config", "print"]);
    assert!(printed.status.success());
    for output in [refused, printed] {
        let shown = [output.stdout, output.stderr].concat();
        assert!(!String::from_utf8_lossy(&shown).contains("swordfish"), "the secret is shown");
    }
}

#[tokio::test]
async fn files_that_no_generation_names_are_deleted() {
    let (data, s3) = (tempfile::tempdir().unwrap(), S3::start());
    let server = start(data.path(), &s3, &[("LATENTD_RETENTION__ORPHAN_AGE_S", "0.1")]).await;
    let lost = with(request("a red fox", 7), &json!({"steps": 2}));
    let id = server.accept(&lost).await;
    assert_eq!(server.ended(&id).await["status"], "succeeded");
    let picture = server.picture(&id, 0).await;
    // A worker that lost its lease leaves the first of these files, and a process that ended before it accepted a
    // request leaves the second. The first attempt of the canceled generation has ended without success.
    let canceled = server.accept(&with(request("a red fox", 7), &json!({"steps": 1000, "n": 8}))).await;
    server.client.post(server.url(&format!("/v1/images/{canceled}/cancel"))).send().await.unwrap();
    assert_eq!(server.ended(&canceled).await["status"], "canceled");
    let strange = "img_01k39v5q8me7x9t4n2hz0w6r1s";
    let leftovers = [s3.file(&format!("img/{canceled}/1/0.png")), s3.file(&format!("img/{strange}/input/00.png"))];
    for file in &leftovers {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, "png").unwrap();
    }
    let erased = async |_: &Server| leftovers.iter().all(|file| !file.exists());
    server.until("they are erased", erased).await;
    assert_eq!(server.picture(&id, 0).await, picture, "the picture of a generation is kept");
}
