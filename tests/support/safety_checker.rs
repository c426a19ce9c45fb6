//! The safety checker of the fixtures, for tests of the safety policy.

use std::{fs, path::Path};

use candle_core::{Device, Tensor};

/// Puts the safety checker of the fixtures into a folder, with thresholds that flag every picture or none.
pub fn put_checker(folder: &Path, flags: bool) {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/safety");
    for file in
        ["safety_checker/config.json", "safety_checker/model.safetensors", "feature_extractor/preprocessor_config.json"]
    {
        let to = folder.join(file);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(fixtures.join(file), to).unwrap();
    }
    let weights = folder.join("safety_checker/model.safetensors");
    let mut tensors = candle_core::safetensors::load(&weights, &Device::Cpu).unwrap();
    let threshold = if flags { -2f32 } else { 2.0 };
    tensors.insert("concept_embeds_weights".to_owned(), Tensor::full(threshold, 17, &Device::Cpu).unwrap());
    candle_core::safetensors::save(&tensors, weights).unwrap();
}
