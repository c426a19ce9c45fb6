//! Compares pictures that the server draws over HTTP, with models in `models.dir`, with pictures by diffusers.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::harness::{Server, decode, with};

#[path = "../pictures/case.rs"]
pub mod case;

/// Some cases of each pipeline with a U-Net, and every case with a transformer.
#[tokio::test]
async fn cases_give_the_golden_pictures() {
    let root = match std::env::var_os("LATENTD_PARITY_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity"),
    };
    let names = [
        "sd1/default",
        "sd1/images_3_euler_a",
        "sd1/seeds_list",
        "sd1/odd_latent_72x88",
        "sd1/clip_skip_2",
        "sd1/karras_dpmpp_2m",
        "sd1/taesd",
        "sd1/img2img_odd_size",
        "sd1/inpaint4_euler_0.7",
        "sd1/inpaint4_padding_crop",
        "sd1-inpaint/default",
        "ip2p/default",
        "sd2/default",
        "sd2/zsnr_ddim",
        "sdxl/micro_conditioning",
        "sdxl-turbo/steps_2",
        "sdxl-refiner/ensemble_0.5",
        "lcm/steps_4",
        "lcm/img2img",
        "controlnet/multi_start_end",
        "controlnet/guess_mode",
        "controlnet-sdxl/default",
        "lora/two_locon_euler_a",
        "lora/kohya_locon_0.7",
        "lora/sdxl_two",
        "lora/textual_inversion_lora",
        "ddpm/ddpm_50",
        "ddpm/ddim_20_clipped",
        "ddpm/ddim_20_eta05",
        "ldm-uncond/batch_2",
        "ldm-uncond/scaling_1",
        "consistency/steps_2",
        "consistency/steps_4_batch",
        "score-sde-ve/batch_2",
        "score-sde-vp/batch_2",
    ];
    let cases: Vec<_> = case::Case::all(&root, &case::FOLDERS)
        .into_iter()
        .chain(case::Case::of_more())
        .filter(|c| names.contains(&c.name.as_str()) || is_of_transformers(c))
        .collect();
    // The compact fixtures do not contain all cases.
    let all = std::env::var_os("LATENTD_PARITY_DIR").is_some();
    let of_transformers = cases.iter().filter(|case| is_of_transformers(case)).count();
    let others = cases.len() - of_transformers;
    assert!(others == names.len() || !all && others > 18, "{others} of {}", names.len());
    assert!(of_transformers >= 80 || !all, "{of_transformers} cases of transformers");
    println!("{} cases over HTTP, {of_transformers} of them with transformers", cases.len());
    let data = tempfile::tempdir().unwrap();
    let pipelines: BTreeSet<&str> = cases.iter().flat_map(case::Case::pipelines).collect();
    let models = case::models(&root, &pipelines.into_iter().collect::<Vec<_>>());
    let (embeddings, loras) = (case::embeddings(&root), case::loras(&[&root]));
    let control_nets = root.join("controlnets");
    let settings = [
        ("LATENTD_MODELS__DIR", models.path()),
        ("LATENTD_EMBEDDINGS__DIR", embeddings.path()),
        ("LATENTD_LORAS__DIR", loras.path()),
        ("LATENTD_CONTROLNETS__DIR", &control_nets),
    ];
    let server = Server::start(data.path(), &settings.map(|(name, path)| (name, path.to_str().unwrap()))).await;
    let decoders =
        async |model: &str| server.json(&format!("/v1/models/{model}")).await["capabilities"]["decoders"].clone();
    assert_eq!((decoders("sd1").await, decoders("sd2").await), (json!(["full", "tiny"]), json!(["full"])));
    let lacking = json!({"model": "sd2", "prompt": "", "decoder": "tiny"});
    let refused: Value = server.post(&lacking).await.json().await.unwrap();
    assert_eq!(refused["errors"][0]["pointer"], "/decoder", "{refused}");
    // All run at the same time, so that their steps share batches.
    let mut started = Vec::new();
    for case in cases {
        assert_eq!(case.waits_for(), None, "{}", case.name);
        started.push((server.accept(&Value::Object(case.body())).await, case));
    }
    for (id, case) in started {
        let ended = server.ended(&id).await;
        assert_eq!(ended["status"], "succeeded", "{}: {ended}", case.name);
        let approximated = if case.name == "sd1/taesd" { json!(["tiny_decoder"]) } else { json!([]) };
        assert_eq!(ended["approximations"], approximated, "{}", case.name);
        let images = ended["images"].as_array().unwrap().len();
        let goldens = if case.has_own_golden() { vec![case.own_golden()] } else { case.goldens() };
        assert_eq!(case.wanted((0..images).collect()).len(), goldens.len(), "{}", case.name);
        for (index, golden) in case.wanted((0..images).collect()).into_iter().zip(&goldens) {
            let (width, height, pixels) = decode(&server.picture(&id, index).await);
            assert_eq!((width, height), (golden.width, golden.height), "{}", case.name);
            let worst = pixels.iter().zip(&golden.pixels).map(|(a, b)| a.abs_diff(*b)).max();
            assert!(worst <= Some(2), "{} image {index}: {worst:?} levels", case.name);
        }
    }
}

/// DreamLite counts, because of its text encoder.
fn is_of_transformers(case: &case::Case) -> bool {
    ["sd3/", "sd35/", "flux", "pixart", "z-image", "dreamlite/"].iter().any(|start| case.name.starts_with(start))
}

/// Compares the embedded model with its own defaults with pictures that diffusers draws from the same folder.
/// `training/reference.py` makes these pictures and must run again for new weights.
#[tokio::test]
async fn the_embedded_model_draws_the_pictures_of_diffusers() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/emoji");
    let reference: Value = serde_json::from_slice(&std::fs::read(folder.join("reference.json")).unwrap()).unwrap();
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;
    for picture in reference["pictures"].as_array().unwrap() {
        let ended = assert_matches_reference(&server, &folder, picture, json!({})).await;
        for default in ["width", "height", "steps", "guidance_scale"] {
            assert_eq!(ended["params"][default].as_f64(), reference[default].as_f64(), "{default}");
        }
    }
}

/// Compares each companion of the embedded model with pictures that diffusers draws with the same files.
#[tokio::test]
async fn the_companions_draw_the_pictures_of_diffusers() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/emoji");
    let reference: Value = serde_json::from_slice(&std::fs::read(folder.join("reference.json")).unwrap()).unwrap();
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;
    let edges = std::fs::read(folder.join("../canny/shapes_edges.png")).unwrap();
    let add_ons = reference["companions"].as_array().unwrap();
    assert_eq!(add_ons.len(), 6);
    for picture in add_ons {
        let mut request = picture["request"].clone();
        if let Some(control) = request.pointer_mut("/controls/0") {
            control["image"] = json!({"b64": STANDARD.encode(&edges)});
        }
        assert_matches_reference(&server, &folder, picture, request).await;
    }
}

/// Draws a picture of the reference and compares it with the file; returns the ended generation.
async fn assert_matches_reference(server: &Server, folder: &Path, picture: &Value, more: Value) -> Value {
    let body = with(json!({"prompt": picture["prompt"], "seed": picture["seed"]}), &more);
    let id = server.accept(&body).await;
    let ended = server.ended(&id).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    let golden = std::fs::read(folder.join(picture["file"].as_str().unwrap())).unwrap();
    let (ours, theirs) = (decode(&server.picture(&id, 0).await), decode(&golden));
    assert_eq!((ours.0, ours.1), (theirs.0, theirs.1));
    let worst = ours.2.iter().zip(&theirs.2).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(worst <= Some(2), "{picture}: {worst:?} levels");
    ended
}
