//! Folders of small models that make films from a prompt and a picture, with random weights that are the same on every
//! machine.

#![allow(dead_code, reason = "each test target uses its part")]

use std::{fs, path::Path};

use latentd::{
    models::{
        ClipVisionModel, WanTransformer3DModel, clip_vision::ClipVisionConfig,
        wan_transformer3d::WanTransformer3DConfig,
    },
    weights::Weights,
};
use serde_json::{Map, Value, json};

use crate::{transformers::safetensors, wan_films};

/// The name of the model whose denoisers see the tokens of the picture and its latents, as in Wan 2.1. It has two
/// denoisers.
pub const SEEING: &str = "seeing";

/// Writes the folders of [`wan_films::put_models`] and the folder of [`SEEING`] into `models`.
pub fn put_models(models: &Path) {
    wan_films::put_models(models);
    let folder = models.join(SEEING);
    copy(&models.join(wan_films::TWO), &folder);
    let transformer = json!({
        "num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 12, "out_channels": 4, "text_dim": 16,
        "freq_dim": 16, "ffn_dim": 32, "num_layers": 2, "image_dim": 8, "added_kv_proj_dim": 24,
    });
    for part in ["transformer", "transformer_2"] {
        put(&folder.join(part), "diffusion_pytorch_model", "transformer", &transformer);
    }
    let encoder = json!({
        "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 16,
        "patch_size": 8,
    });
    put(&folder.join("image_encoder"), "model", "image_encoder", &encoder);
    let path = folder.join("model_index.json");
    let mut index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    index["_class_name"] = json!("WanImageToVideoPipeline");
    index["image_encoder"] = json!(["transformers", "CLIPVisionModel"]);
    fs::write(path, index.to_string()).unwrap();
}

fn put(folder: &Path, stem: &str, part: &str, config: &Value) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let shapes = shapes(part, config.as_object().unwrap());
    fs::write(folder.join(format!("{stem}.safetensors")), safetensors(&shapes)).unwrap();
}

/// The names and shapes of the tensors of a part, as its network requests them.
fn shapes(part: &str, config: &Map<String, Value>) -> Map<String, Value> {
    let weights = Weights::outline(part);
    match part {
        "transformer" => {
            drop(WanTransformer3DModel::new(&WanTransformer3DConfig::read(part, config).unwrap(), &weights));
        }
        _ => drop(ClipVisionModel::new(&ClipVisionConfig::read(part, config).unwrap(), &weights)),
    }
    weights.requested().into_iter().map(|(name, shape)| (name, json!(shape))).collect()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, target).unwrap();
        }
    }
}
