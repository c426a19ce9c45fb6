//! Tests of the safety policy: flagged and blocked pictures through all protocols, and refused prompts.

use std::{
    fs,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use sqlx::{Connection, Row, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::{
    harness::{Launch, Server, with},
    parity_over_http::case,
    safety_checker::put_checker,
};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// Three copies of a small model: `strict` flags every picture, `mild` flags none, `bare` has no safety checker.
fn folders() -> tempfile::TempDir {
    let models = case::models(&fixtures().join("parity"), &["sd1"]);
    for name in ["strict", "mild"] {
        copy(&models.path().join("sd1"), &models.path().join(name));
        put_checker(&models.path().join(name), name == "strict");
    }
    fs::rename(models.path().join("sd1"), models.path().join("bare")).unwrap();
    models
}

fn copy(from: &Path, to: &Path) {
    for file in files(from) {
        let to = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(file, to).unwrap();
    }
}

async fn start(data: &Path, models: &Path, more: &[(&str, &str)]) -> Server {
    let own = [("LATENTD_MODELS__DIR", models.to_str().unwrap()), ("LATENTD_MODELS__DEFAULT", "bare")];
    Server::start(data, &[&own, more].concat()).await
}

const BLOCK: (&str, &str) = ("LATENTD_SAFETY__POLICY", "block");
const FLAG: (&str, &str) = ("LATENTD_SAFETY__POLICY", "flag");

fn body(model: &str) -> Value {
    json!({"model": model, "prompt": "a red fox", "seed": 7, "steps": 2, "scheduler": "euler", "size": "64x64"})
}

fn gray_picture() -> Vec<u8> {
    let mut file = Vec::new();
    let encoder = png::Encoder::new(&mut file, 64, 64);
    encoder.write_header().unwrap().write_image_data(&[120; 64 * 64]).unwrap();
    file
}

/// The files in a folder and its subfolders.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

async fn post(server: &Server, path: &str, body: Value) -> (StatusCode, Value) {
    read(server.client.post(server.url(path)).json(&body).send().await.unwrap()).await
}

async fn read(response: Response) -> (StatusCode, Value) {
    let (status, text) = (response.status(), response.text().await.unwrap());
    (status, serde_json::from_str(&text).unwrap_or_else(|_| panic!("{status}: {text}")))
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_kept_of_a_blocked_generation_but_its_record() {
    let (data, models) = (tempfile::tempdir().unwrap(), folders());
    let log = data.path().join("log");
    let mut launch = Launch::on(data.path())
        .set("LATENTD_MODELS__DIR", models.path().display())
        .set("LATENTD_MODELS__DEFAULT", "bare")
        .set(BLOCK.0, BLOCK.1)
        .set("LATENTD_LOG__FILTER", "info");
    launch.log = Some(log.clone());
    let server = Server::start_ready(&launch).await;

    // A picture of the request is stored until the generation is blocked.
    let from = json!({"image": {"b64": STANDARD.encode(gray_picture())}, "strength": 0.5, "previews": 2, "n": 2});
    let id = server.accept(&with(body("strict"), &from)).await;
    let ended = server.ended(&id).await;
    assert_eq!((&ended["status"], &ended["finish_reason"]), (&json!("failed"), &json!("content_filtered")), "{ended}");
    assert_eq!((&ended["images"], &ended["error"]["code"]), (&json!([]), &json!("content_filtered")));
    assert_eq!(ended["error"]["retryable"], false);
    assert_eq!(ended["params"]["previews"], 0);
    assert_eq!(ended["warnings"][0]["code"], "previews_withheld", "{ended}");
    let upload = ended["params"]["image"]["upload"].as_str().unwrap().to_owned();
    server.until("the files are erased", async |_| files(&data.path().join("blobs")).is_empty()).await;
    assert_eq!(server.get(&format!("/v1/uploads/{upload}")).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(server.get(&format!("/v1/images/{id}/content/0")).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(server.get(&format!("/v1/images/{id}/preview")).await.status(), StatusCode::NO_CONTENT);

    let png = server.client.post(server.url("/v1/images")).header("Accept", "image/png").json(&body("strict"));
    let (status, problem) = read(png.send().await.unwrap()).await;
    assert_eq!((status, &problem["code"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!("content_filtered")));

    let openai = json!({"model": "strict", "prompt": "a red fox", "size": "64x64", "steps": 2, "scheduler": "euler"});
    let (status, answer) = post(&server, "/v1/images/generations", openai.clone()).await;
    let error = &answer["error"];
    assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
    assert_eq!((&error["code"], &error["type"]), (&json!("moderation_blocked"), &json!("image_generation_user_error")));
    let streamed = with(openai, &json!({"stream": true, "partial_images": 2}));
    let events = server.client.post(server.url("/v1/images/generations")).json(&streamed).send().await.unwrap();
    let events = events.text().await.unwrap();
    assert!(events.contains("moderation_blocked") && !events.contains("b64_json"), "{events}");

    let sdapi = json!({"prompt": "a red fox", "steps": 2, "width": 64, "height": 64,
        "override_settings": {"sd_model_checkpoint": "strict"}});
    let (status, answer) = post(&server, "/sdapi/v1/txt2img", sdapi).await;
    assert_eq!((status, &answer["error"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!("content_filtered")), "{answer}");

    // Pictures that are not flagged are delivered.
    let id = server.accept(&with(body("mild"), &json!({"previews": 2}))).await;
    let ended = server.ended(&id).await;
    assert_eq!((&ended["status"], &ended["finish_reason"]), (&json!("succeeded"), &json!("completed")), "{ended}");
    assert_eq!(ended["images"][0]["flagged"], false);

    // The pictures of a model without a checker could not be blocked.
    let (status, problem) = read(server.post(&body("bare")).await).await;
    assert_eq!((status, &problem["errors"][0]["pointer"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!("/model")));

    server.until("the files are erased", async |_| files(&data.path().join("blobs")).len() == 1).await;
    assert_eq!(server.metric("latentd_safety_hits_total", "policy=\"block\"").await, 6.0);
    assert!(server.stopped().await.success());
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("pictures are flagged") && log.contains("the model has no safety checker"), "{log}");
    assert!(!log.contains("red fox"), "{log}");
    // The rows have no artifacts.
    let options = SqliteConnectOptions::new().filename(data.path().join("latentd.db"));
    let mut db = SqliteConnection::connect_with(&options).await.unwrap();
    let rows = sqlx::query("SELECT status, artifacts FROM generations").fetch_all(&mut db).await.unwrap();
    let with_artifacts = |status: &str| {
        let of = rows.iter().filter(|row| row.get::<String, _>("status") == status);
        of.map(|row| row.get::<Option<String>, _>("artifacts").is_some()).collect::<Vec<bool>>()
    };
    assert_eq!((with_artifacts("failed"), with_artifacts("succeeded")), (vec![false; 5], vec![true]));
}

#[tokio::test(flavor = "multi_thread")]
async fn flagged_pictures_are_delivered_unchanged_and_keys_have_policies_of_their_own() {
    let (data, models) = (tempfile::tempdir().unwrap(), folders());
    let server = start(data.path(), models.path(), &[FLAG]).await;
    let flagged = server.ended(&server.accept(&body("strict")).await).await;
    assert_eq!(
        (&flagged["status"], &flagged["finish_reason"]),
        (&json!("succeeded"), &json!("completed")),
        "{flagged}"
    );
    assert_eq!(flagged["images"][0]["flagged"], true);
    let unchecked = server.ended(&server.accept(&body("bare")).await).await;
    assert!(unchecked["images"][0].get("flagged").is_none(), "the model has no checker: {unchecked}");
    assert!(unchecked["images"][0]["bytes"].is_u64());

    let openai = json!({"model": "strict", "prompt": "a red fox", "size": "64x64", "steps": 2, "scheduler": "euler"});
    let (status, answer) = post(&server, "/v1/images/generations", openai).await;
    assert_eq!((status, &answer["data"][0]["flagged"]), (StatusCode::OK, &json!(true)), "{answer}");
    let sdapi = json!({"prompt": "a red fox", "steps": 2, "width": 64, "height": 64,
        "override_settings": {"sd_model_checkpoint": "strict"}});
    let (status, answer) = post(&server, "/sdapi/v1/txt2img", sdapi).await;
    let info: Value = serde_json::from_str(answer["info"].as_str().unwrap()).unwrap();
    assert_eq!((status, &info["flagged"]), (StatusCode::OK, &json!([true])), "{info}");
    assert_eq!(server.metric("latentd_safety_hits_total", "policy=\"flag\"").await, 3.0);

    for (policy, status) in [("off", "succeeded"), ("block", "failed"), ("flag", "succeeded")] {
        let made = server.client.post(format!("{}/admin/keys", server.operator));
        let (created, key) = read(made.json(&json!({"tenant": "a", "safety": policy})).send().await.unwrap()).await;
        assert_eq!((created, &key["safety"]), (StatusCode::CREATED, &json!(policy)), "{key}");
        let ask = server.client.post(server.url("/v1/images")).header("Prefer", "wait=60");
        let ask = ask.bearer_auth(key["key"].as_str().unwrap()).json(&body("strict"));
        let (_, ended) = read(ask.send().await.unwrap()).await;
        assert_eq!(ended["status"], status, "{policy}: {ended}");
        match policy {
            "off" => {
                assert!(ended["images"][0].get("flagged").is_none() && ended.get("finish_reason").is_none());
                assert_eq!(
                    ended["images"][0]["unsigned_sha256"], flagged["images"][0]["unsigned_sha256"],
                    "a check changes no byte"
                );
            }
            "block" => assert_eq!(ended["finish_reason"], "content_filtered"),
            _ => assert_eq!(ended["images"][0]["flagged"], true),
        }
    }
    let made = server.client.post(format!("{}/admin/keys", server.operator));
    let (status, _) = read(made.json(&json!({"tenant": "a", "safety": "strict"})).send().await.unwrap()).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_policy_no_checker_is_read() {
    let (data, models) = (tempfile::tempdir().unwrap(), folders());
    fs::write(models.path().join("strict/safety_checker/model.safetensors"), b"nothing").unwrap();
    let server = start(data.path(), models.path(), &[]).await;
    let ended = server.ended(&server.accept(&body("strict")).await).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    assert!(ended["images"][0].get("flagged").is_none() && ended.get("finish_reason").is_none(), "{ended}");
    assert!(server.stopped().await.success());

    // With a policy, pictures that cannot be checked are not delivered.
    let server = start(data.path(), models.path(), &[FLAG]).await;
    let ended = server.ended(&server.accept(&body("strict")).await).await;
    assert_eq!(ended["error"]["code"], "model_unavailable", "{ended}");
    assert!(ended["error"]["message"].as_str().unwrap().contains("safety_checker"), "{ended}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_checker_can_check_the_pictures_of_all_models() {
    let (data, models, common) = (tempfile::tempdir().unwrap(), folders(), tempfile::tempdir().unwrap());
    put_checker(common.path(), true);
    let checker = ("LATENTD_SAFETY__CHECKER", common.path().to_str().unwrap());
    let server = start(data.path(), models.path(), &[BLOCK, checker]).await;
    for model in ["bare", "mild", "emoji"] {
        let ended = server.ended(&server.accept(&body(model)).await).await;
        assert_eq!(ended["finish_reason"], "content_filtered", "{model}: {ended}");
    }
    assert!(server.stopped().await.success());
}

/// Also without a policy, because a key can have one.
#[tokio::test(flavor = "multi_thread")]
async fn the_memory_plan_counts_the_safety_checkers() {
    let (data, models, common) = (tempfile::tempdir().unwrap(), folders(), tempfile::tempdir().unwrap());
    put_checker(common.path(), true);
    let weights = common.path().join("safety_checker/model.safetensors");
    let weights = candle_core::safetensors::load(weights, &candle_core::Device::Cpu).unwrap();
    // All numbers are float32 in memory.
    let bytes: usize = weights.values().map(|tensor| 4 * tensor.elem_count()).sum();
    let plan = async |more: &[(&str, &str)]| {
        let settings = [&[("LATENTD_ENGINE__MAX_BYTES", "1000000000")], more].concat();
        let server = start(data.path(), models.path(), &settings).await;
        let plan = server.metric("latentd_memory_plan_bytes", "").await;
        assert!(server.stopped().await.success());
        plan
    };
    put_checker(&models.path().join("bare"), false);
    let with_three = plan(&[]).await;
    let with_common = plan(&[("LATENTD_SAFETY__CHECKER", common.path().to_str().unwrap())]).await;
    for model in ["bare", "mild", "strict"] {
        fs::remove_dir_all(models.path().join(model).join("safety_checker")).unwrap();
    }
    let without = plan(&[]).await;
    assert_eq!((with_three - without, with_common - without), (2.0 * bytes as f64, bytes as f64));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_with_a_refused_phrase_is_refused_before_acceptance() {
    let (data, models) = (tempfile::tempdir().unwrap(), folders());
    let (list, log) = (data.path().join("refused.txt"), data.path().join("log"));
    fs::write(&list, "# one per line\nzorkmid\nblue   Moon\n").unwrap();
    let mut launch = Launch::on(data.path())
        .set("LATENTD_MODELS__DIR", models.path().display())
        .set("LATENTD_MODELS__DEFAULT", "bare")
        .set("LATENTD_SAFETY__BLOCKED_PROMPTS", list.display())
        .set("LATENTD_LOG__FILTER", "info");
    launch.log = Some(log.clone());
    let server = Server::start_ready(&launch).await;
    for prompt in ["a Zorkmid", "under a BLUE, moon", "ｚｏｒｋｍｉｄ"] {
        let (status, problem) = read(server.post(&with(body("bare"), &json!({"prompt": prompt}))).await).await;
        assert_eq!(
            (status, &problem["code"]),
            (StatusCode::UNPROCESSABLE_ENTITY, &json!("prompt_blocked")),
            "{prompt}"
        );
        assert_eq!(problem["errors"][0]["pointer"], "/prompt");
        assert!(!problem.to_string().to_lowercase().contains("moon"), "{problem}");
    }
    let openai = json!({"model": "bare", "prompt": "a zorkmid", "size": "64x64"});
    let (status, answer) = post(&server, "/v1/images/generations", openai).await;
    assert_eq!((status, &answer["error"]["code"]), (StatusCode::BAD_REQUEST, &json!("content_policy_violation")));
    assert_eq!(answer["error"]["param"], "prompt");
    let (status, answer) = post(&server, "/sdapi/v1/txt2img", json!({"prompt": "a zorkmid"})).await;
    assert_eq!((status, &answer["error"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!("prompt_blocked")), "{answer}");
    assert_eq!(server.json("/v1/images").await["data"], json!([]));
    assert_eq!(server.metric("latentd_safety_hits_total", "kind=\"prompt\"").await, 5.0);

    // By meaning, only if the setting says so.
    let similar = json!({"model": "emoji", "prompt": "a small puppy", "steps": 1});
    server.ended(&server.accept(&similar).await).await;

    // Parts of words and negative prompts are not refused.
    let fine = json!({"prompt": "zorkmids and a moon", "negative_prompt": "zorkmid"});
    let ended = server.ended(&server.accept(&with(body("bare"), &fine)).await).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    assert!(server.stopped().await.success());
    fs::write(&list, "dog\n").unwrap();
    let server = Server::start_ready(&launch.set("LATENTD_SAFETY__BLOCKED_SIMILARITY", "0.75")).await;
    let (status, problem) = read(server.post(&similar).await).await;
    assert_eq!((status, &problem["code"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!("prompt_blocked")), "{problem}");
    server.accept(&with(similar.clone(), &json!({"prompt": "a small cat"}))).await;
    server.accept(&with(similar, &json!({"model": "bare"}))).await;
    assert!(server.stopped().await.success());
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("a prompt is refused") && !log.to_lowercase().contains("zorkmid"), "{log}");
}
