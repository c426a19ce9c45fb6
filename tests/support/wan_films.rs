//! Folders of small models that make films from a prompt, with random weights that are the same on every machine.

#![allow(dead_code, reason = "each test target uses its part")]

use std::{fs, path::Path};

use latentd::{
    models::{
        AutoencoderKlWan, T5EncoderModel, WanTransformer3DModel, autoencoder_kl_wan::AutoencoderKlWanConfig,
        t5_encoder::T5Config, wan_transformer3d::WanTransformer3DConfig,
    },
    weights::Weights,
};
use serde_json::{Map, Value, json};

use crate::transformers::safetensors;

/// The name of the model with two denoisers, as in Wan 2.2 A14B. The shards of its text encoder are two files.
pub const TWO: &str = "two-denoisers";
/// The name of the model whose latent frames have times of their own, as in Wan 2.2 5B.
pub const TIMES: &str = "times";

/// Writes the folders of both models into `models`.
pub fn put_models(models: &Path) {
    let vae = json!({
        "base_dim": 4, "z_dim": 4, "num_res_blocks": 1, "latents_mean": [0.1, -0.2, 0.0, 0.3],
        "latents_std": [1.5, 0.8, 1.0, 1.2],
    });
    put(
        &models.join(TWO),
        &["transformer", "transformer_2"],
        &vae,
        json!({"boundary_ratio": 0.875, "transformer_2": ["diffusers", "WanTransformer3DModel"]}),
        json!({"steps": 3, "min_size": 16, "width": 32, "height": 16}),
    );
    let mut residual = vae.clone();
    for (key, value) in [
        ("is_residual", json!(true)),
        ("patch_size", json!(2)),
        ("in_channels", json!(12)),
        ("out_channels", json!(12)),
        ("scale_factor_spatial", json!(16)),
    ] {
        residual[key] = value;
    }
    put(
        &models.join(TIMES),
        &["transformer"],
        &residual,
        json!({"boundary_ratio": null, "expand_timesteps": true, "transformer_2": [null, null]}),
        json!({"steps": 3, "min_size": 32, "width": 64, "height": 32}),
    );
}

fn put(folder: &Path, denoisers: &[&str], vae: &Value, index: Value, own: Value) {
    let tokenizer = tokenizer();
    let vocabulary = tokenizer["model"]["vocab"].as_array().unwrap().len();
    let text_encoder = json!({
        "model_type": "umt5", "vocab_size": vocabulary, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2,
        "num_heads": 2, "feed_forward_proj": "gated-gelu",
    });
    let transformer = json!({
        "num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 4, "out_channels": 4, "text_dim": 16,
        "freq_dim": 16, "ffn_dim": 32, "num_layers": 2,
    });
    write(&folder.join("text_encoder/config.json"), text_encoder.to_string());
    write_shards(&folder.join("text_encoder"), &shapes("text_encoder", text_encoder.as_object().unwrap()));
    for part in denoisers {
        write(&folder.join(part).join("config.json"), transformer.to_string());
        let shapes = shapes("transformer", transformer.as_object().unwrap());
        let file = folder.join(part).join("diffusion_pytorch_model.safetensors");
        write(&file, if *part == "transformer" { safetensors(&shapes) } else { others(&shapes) });
    }
    write(&folder.join("vae/config.json"), vae.to_string());
    let shapes = shapes("vae", vae.as_object().unwrap());
    write(&folder.join("vae/diffusion_pytorch_model.safetensors"), safetensors(&shapes));
    let scheduler = json!({
        "_class_name": "UniPCMultistepScheduler", "prediction_type": "flow_prediction", "use_flow_sigmas": true,
        "flow_shift": 3.0,
    });
    write(&folder.join("scheduler/scheduler_config.json"), scheduler.to_string());
    write(&folder.join("tokenizer/tokenizer.json"), tokenizer.to_string());
    write(&folder.join("tokenizer/tokenizer_config.json"), json!({"tokenizer_class": "T5Tokenizer"}).to_string());
    let mut all = json!({
        "_class_name": "WanPipeline",
        "scheduler": ["diffusers", "UniPCMultistepScheduler"],
        "text_encoder": ["transformers", "UMT5EncoderModel"],
        "tokenizer": ["transformers", "T5Tokenizer"],
        "transformer": ["diffusers", "WanTransformer3DModel"],
        "vae": ["diffusers", "AutoencoderKLWan"],
    });
    for (key, value) in index.as_object().unwrap() {
        all[key] = value.clone();
    }
    write(&folder.join("model_index.json"), all.to_string());
    write(&folder.join("latentd.json"), own.to_string());
}

/// The special tokens and all printable ASCII characters, which are one token each.
fn tokenizer() -> Value {
    let special = ["<pad>", "</s>", "<unk>"].map(|token| json!([token, 0.0]));
    let characters = ('!'..='~').chain(['▁']).map(|c| json!([c, -3.0]));
    let vocabulary: Vec<Value> = special.into_iter().chain(characters).collect();
    let words = json!([
        {"type": "WhitespaceSplit"},
        {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true},
    ]);
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": words}, "post_processor": null, "decoder": null,
        "model": {"type": "Unigram", "unk_id": 2, "vocab": vocabulary, "byte_fallback": false},
    })
}

/// A file of tensors with other values than [`safetensors`] writes, whose values depend on the names.
fn others(shapes: &Map<String, Value>) -> Vec<u8> {
    let renamed = shapes.iter().map(|(name, shape)| (format!("_{}", &name[1..]), shape.clone())).collect();
    let mut file = safetensors(&renamed);
    // The names have equal lengths, so only their first letters have to be restored.
    let length = 8 + u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let mut header = String::from_utf8(file[8..length].to_vec()).unwrap();
    for name in shapes.keys() {
        header = header.replace(&format!("\"_{}\"", &name[1..]), &format!("\"{name}\""));
    }
    file.splice(8..length, header.into_bytes());
    file
}

/// Two shards and their index.
fn write_shards(folder: &Path, shapes: &Map<String, Value>) {
    let mut map = Map::new();
    for shard in 0..2 {
        let name = format!("model-0000{}-of-00002.safetensors", shard + 1);
        let part: Map<String, Value> =
            shapes.clone().into_iter().enumerate().filter(|(i, _)| i % 2 == shard).map(|(_, entry)| entry).collect();
        map.extend(part.keys().map(|tensor| (tensor.clone(), json!(name))));
        write(&folder.join(name), safetensors(&part));
    }
    write(&folder.join("model.safetensors.index.json"), json!({"metadata": {}, "weight_map": map}).to_string());
}

/// The names and shapes of the tensors of a part, as its network requests them.
fn shapes(part: &str, config: &Map<String, Value>) -> Map<String, Value> {
    let weights = Weights::outline(part);
    match part {
        "text_encoder" => drop(T5EncoderModel::new(&T5Config::read(part, config).unwrap(), &weights).unwrap()),
        "transformer" => {
            drop(WanTransformer3DModel::new(&WanTransformer3DConfig::read(part, config).unwrap(), &weights));
        }
        _ => drop(AutoencoderKlWan::new(&AutoencoderKlWanConfig::read(part, config).unwrap(), &weights)),
    }
    weights.requested().into_iter().map(|(name, shape)| (name, json!(shape))).collect()
}

fn write(path: &Path, content: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}
