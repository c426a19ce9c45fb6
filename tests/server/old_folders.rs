//! Tests of model folders in the layout of the first versions of diffusers (`tests/fixtures/old`).

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::harness::{Server, decode};

fn old() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/old")
}

/// Copies the fixture whose files all lie at the top of its folder, so that a test can damage the copy.
fn copy(models: &Path, name: &str) -> PathBuf {
    let to = models.join(name);
    fs::create_dir(&to).unwrap();
    for entry in fs::read_dir(old().join("flat")).unwrap().map(Result::unwrap) {
        fs::write(to.join(entry.file_name()), fs::read(entry.path()).unwrap()).unwrap();
    }
    to
}

fn edit(path: &Path, edit: impl FnOnce(&mut Value)) {
    let mut json = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    edit(&mut json);
    fs::write(path, json.to_string()).unwrap();
}

#[tokio::test]
async fn old_folders_draw_the_pictures_of_diffusers() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[("LATENTD_MODELS__DIR", old().to_str().unwrap())]).await;
    for (model, scheduler) in [("flat", "ddpm"), ("res", "ddim")] {
        let card = server.json(&format!("/v1/models/{model}")).await;
        let default = card["capabilities"]["default_scheduler"].to_string().to_lowercase();
        assert!(default.contains(scheduler), "{card}");
        let ended = server.ended(&server.accept(&json!({"model": model, "steps": 10, "seed": 5})).await).await;
        assert_eq!(ended["status"], "succeeded", "{model}: {ended}");
        let drawn = decode(&server.picture(ended["id"].as_str().unwrap(), 0).await);
        let golden = decode(&fs::read(old().join(model).join("golden.png")).unwrap());
        assert_eq!((drawn.0, drawn.1), (golden.0, golden.1), "{model}");
        let worst = drawn.2.iter().zip(&golden.2).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(worst <= Some(2), "{model}: {worst:?} levels");
    }
}

#[tokio::test]
async fn unreadable_old_folders_are_listed_with_the_reason() {
    let (data, models) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let weights = "diffusion_pytorch_model.safetensors";
    let folder = copy(models.path(), "pickled");
    fs::rename(folder.join(weights), folder.join("diffusion_pytorch_model.bin")).unwrap();
    // The name of the pipeline's class before the suffix `Pipeline` was added.
    edit(&copy(models.path(), "class").join("model_index.json"), |index| index["_class_name"] = "DDPM".into());
    fs::remove_file(copy(models.path(), "index").join("model_index.json")).unwrap();
    fs::remove_file(copy(models.path(), "scheduler").join("scheduler_config.json")).unwrap();
    fs::remove_file(copy(models.path(), "config").join("config.json")).unwrap();
    let blocks = |config: &mut Value| config["down_block_types"][1] = "UNetResCrossAttnDownBlock2D".into();
    edit(&copy(models.path(), "block").join("config.json"), blocks);
    let server = Server::start(data.path(), &[("LATENTD_MODELS__DIR", models.path().to_str().unwrap())]).await;
    let listed = server.json("/v1/models").await;
    for (model, named) in [
        ("pickled", "diffusion_pytorch_model.bin"),
        ("class", "DDPM"),
        ("index", "it has no model_index.json; the file was not downloaded or copied"),
        ("scheduler", "scheduler_config.json"),
        ("config", "config.json"),
        ("block", "down_block_types"),
    ] {
        let of = listed["data"].as_array().unwrap().iter().find(|of| of["id"] == model).expect(model);
        assert_eq!(of["state"], "failed", "{of}");
        assert!(of.to_string().contains(named), "{model}: {of}");
    }
}
