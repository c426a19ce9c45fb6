//! Tests of the safety checker: its scores equal diffusers' scores, and broken files are refused.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use candle_core::Tensor;
use latentd::{
    device::Device,
    imaging::{Pixels, decode},
    kernels::Kernels,
    models::{SafetyChecker, safety_checker::SafetyScores},
    weights::{LoadError, ModelFolder},
};
use serde_json::Value;

use crate::fixtures::{tensors, walk};

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/safety")
}

fn load(root: &Path, device: &Device) -> Result<SafetyChecker, LoadError> {
    SafetyChecker::load(&ModelFolder::open(root)?, device)
}

fn golden() -> HashMap<String, Value> {
    serde_json::from_slice(&fs::read(fixture().join("scores.json")).unwrap()).unwrap()
}

fn picture(name: &str) -> Pixels<3> {
    decode(&fs::read(fixture().join(format!("pictures/{name}.png"))).unwrap(), 255).unwrap()
}

fn numbers(list: &Value) -> Vec<f32> {
    list.as_array().unwrap().iter().map(|number| number.as_f64().unwrap() as f32).collect()
}

#[test]
fn scores_and_flags_equal_diffusers() {
    let (mut compared, mut flagged) = (0, 0);
    for device in [Device::host(), Device::host().with_kernels(Kernels::REFERENCE)] {
        let checker = load(&fixture(), &device).unwrap();
        for (name, expected) in golden() {
            let scores = checker.scores(&picture(&name)).unwrap();
            let SafetyScores { special_care, concepts } = &scores;
            for (made, of) in [(special_care, "special_care"), (concepts, "concepts")] {
                let expected = numbers(&expected[of]);
                assert_eq!(made.len(), expected.len());
                for (made, expected) in made.iter().zip(expected) {
                    // A score is rounded to a thousandth; a cosine at the border may be rounded to the other side.
                    assert!((made - expected).abs() < 0.0011, "{name}, {of}: {made} instead of {expected}");
                    compared += usize::from((made - expected).abs() < 1e-6);
                }
            }
            assert_eq!(scores.is_flagged(), expected["flagged"], "{name}");
            flagged += usize::from(scores.is_flagged());
        }
    }
    println!("{compared} of 240 scores equal diffusers'");
    assert!(compared >= 230, "only {compared} scores are the same");
    assert_eq!(flagged, 6, "three of the pictures, with two sets of kernels");
}

/// A copy of the fixture that a test may change. `flat`: the checker's files are next to one another, without folders.
fn copy(flat: bool) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    for part in ["safety_checker", "feature_extractor"] {
        for file in walk(&fixture().join(part)) {
            let folder = if flat { to.path().to_owned() } else { to.path().join(part) };
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(file.file_name().unwrap()), fs::read(&file).unwrap()).unwrap();
        }
    }
    to
}

#[test]
fn a_checker_alone_scores_like_that_of_a_pipeline() {
    let flat = copy(true);
    let folder = ModelFolder::open(flat.path()).unwrap();
    assert!(SafetyChecker::is_in(&folder) && SafetyChecker::check(&folder).is_ok());
    let scores = |root: &Path| load(root, &Device::host()).unwrap().scores(&picture("wide")).unwrap();
    assert_eq!(scores(flat.path()), scores(&fixture()));

    // Published files have further prefixes, and positions that are not needed.
    let weights = flat.path().join("model.safetensors");
    let published = tensors(&weights).into_iter().map(|(name, tensor)| match name.strip_prefix("vision_model.") {
        Some(rest) => (format!("vision_model.vision_model.{rest}"), tensor),
        None => (name, tensor),
    });
    let ids = Tensor::arange(0i64, 17, &candle_core::Device::Cpu).unwrap();
    let positions = ("vision_model.vision_model.embeddings.position_ids".to_owned(), ids);
    let published: HashMap<String, Tensor> = published.chain([positions]).collect();
    candle_core::safetensors::save(&published, &weights).unwrap();
    assert_eq!(scores(flat.path()), scores(&fixture()));
}

#[test]
fn files_that_do_not_fit_are_refused_with_their_names() {
    let change = |file: &str, change: &dyn Fn(&Path)| {
        let copy = copy(false);
        change(&copy.path().join(file));
        let folder = ModelFolder::open(copy.path()).unwrap();
        let seen = SafetyChecker::check(&folder).err().map(|error| error.to_string());
        let loaded = SafetyChecker::load(&folder, &Device::host()).unwrap_err().to_string();
        assert!(seen.is_none_or(|seen| seen == loaded));
        loaded
    };
    let json = |path: &Path, edit: &dyn Fn(&mut Value)| {
        let mut value: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        edit(&mut value);
        fs::write(path, value.to_string()).unwrap();
    };
    let config = "safety_checker/config.json";
    let error = change(config, &|path| json(path, &|keys| keys["vision_config"]["hidden_act"] = "relu".into()));
    assert!(error.contains("hidden_act"), "{error}");
    let error = change(config, &|path| json(path, &|keys| keys["projection_dim"] = 1_000_000.into()));
    assert!(error.contains("projection_dim"), "{error}");
    let error = change(config, &|path| json(path, &|keys| keys["vision_config"]["patch_size"] = 9.into()));
    assert!(error.contains("patch_size") && error.contains("does not divide"), "{error}");
    let error = change(config, &|path| json(path, &|keys| keys["architectures"] = serde_json::json!(["CLIPModel"])));
    assert!(error.contains("StableDiffusionSafetyChecker"), "{error}");
    let preparation = "feature_extractor/preprocessor_config.json";
    let error = change(preparation, &|path| json(path, &|keys| keys["resample"] = 0.into()));
    assert!(error.contains("resample"), "{error}");
    let error = change(preparation, &|path| json(path, &|keys| keys["crop_size"] = 28.into()));
    assert!(error.contains("crop_size") && error.contains("56"), "{error}");
    let weights = "safety_checker/model.safetensors";
    let error = change(weights, &|path| {
        let mut of = tensors(path);
        of.remove("concept_embeds");
        candle_core::safetensors::save(&of, path).unwrap();
    });
    assert!(error.contains("missing concept_embeds"), "{error}");
    let without = copy(false);
    fs::remove_file(without.path().join(weights)).unwrap();
    assert!(!SafetyChecker::is_in(&ModelFolder::open(without.path()).unwrap()), "only the configuration is there");
}

#[test]
fn a_picture_that_is_too_narrow_is_an_error() {
    let checker = load(&fixture(), &Device::host()).unwrap();
    let line = Pixels::<3> { width: 1, height: 300, pixels: vec![7; 900] };
    assert!(checker.scores(&line).unwrap_err().to_string().contains("1 × 300"));
    let empty = Pixels::<3> { width: 0, height: 0, pixels: Vec::new() };
    assert!(checker.scores(&empty).is_err());
}
