//! A folder of a small model whose latents are decoded to stereo samples, with random weights that are the same on
//! every machine.

#![allow(dead_code, reason = "each test target uses its part")]

use std::path::Path;

use latentd::{
    models::{
        AutoencoderSame, DurationEmbedder, StableAudio3DiTModel, T5GemmaEncoder,
        autoencoder_same::AutoencoderSameConfig, duration_embedder::DurationEmbedderConfig,
        stable_audio_3_dit::StableAudio3DiTConfig, t5_gemma_encoder::T5GemmaConfig,
    },
    weights::Weights,
};
use serde_json::{Map, Value, json};

use crate::{sounds::put, transformers::safetensors};

/// The name of the model.
pub const NAME: &str = "stereo";

/// Writes the folder of the model into `models`. Its sounds have 8000 samples per second and two channels; a place of
/// the latents has 40 samples of each channel.
pub fn put_model(models: &Path) {
    let folder = models.join(NAME);
    let vocabulary = vocabulary();
    let encoder = json!({
        "vocab_size": vocabulary.len(), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": 8, "intermediate_size": 32, "query_pre_attn_scalar": 8,
        "sliding_window": 4,
    });
    let configs = [
        ("text_encoder", "model", json!({"model_type": "t5gemma", "encoder": encoder})),
        ("duration_embedder", "diffusion_pytorch_model", json!({"output_dim": 16, "fourier_dim": 16})),
        (
            "transformer",
            "diffusion_pytorch_model",
            json!({
                "io_channels": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "cond_token_dim": 16,
                "global_cond_dim": 16, "timestep_features_dim": 16, "ff_mult": 2.0, "num_memory_tokens": 3,
            }),
        ),
        (
            "vae",
            "diffusion_pytorch_model",
            json!({
                "patch_size": 10, "encoder_channels": 8, "encoder_c_mults": [2], "encoder_strides": [4],
                "encoder_transformer_depths": [2], "latent_dim": 8, "dim_heads": 8, "ff_mult": 2,
                "decoder_sinusoidal_blocks": [2], "sampling_rate": 8000,
            }),
        ),
    ];
    for (part, stem, config) in &configs {
        put(&folder.join(part).join("config.json"), config.to_string());
        let shapes = shapes(part, config.as_object().unwrap());
        put(&folder.join(part).join(format!("{stem}.safetensors")), safetensors(&shapes));
    }
    let scheduler = json!({
        "_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1, "shift": 1.0,
        "stochastic_sampling": true,
    });
    put(&folder.join("scheduler/scheduler_config.json"), scheduler.to_string());
    let start = json!({"SpecialToken": {"id": "<bos>", "type_id": 0}});
    let text = json!({"Sequence": {"id": "A", "type_id": 0}});
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "decoder": null,
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}, "pre_tokenizer": null,
        "post_processor": {
            "type": "TemplateProcessing", "single": [start, text], "pair": [start, text],
            "special_tokens": {"<bos>": {"id": "<bos>", "ids": [2], "tokens": ["<bos>"]}},
        },
        "model": {
            "type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true, "vocab": vocabulary,
            "merges": [],
        },
    });
    put(&folder.join("tokenizer/tokenizer.json"), tokenizer.to_string());
    let config = json!({"tokenizer_class": "GemmaTokenizer", "model_max_length": 32});
    put(&folder.join("tokenizer/tokenizer_config.json"), config.to_string());
    let index = json!({
        "_class_name": "StableAudio3Pipeline",
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", "T5GemmaEncoderModel"],
        "tokenizer": ["transformers", "GemmaTokenizer"],
        "duration_embedder": ["stable_audio_3", "StableAudio3DurationEmbedder"],
        "transformer": ["diffusers", "StableAudio3DiTModel"],
        "vae": ["diffusers", "AutoencoderSAME"],
    });
    put(&folder.join("model_index.json"), index.to_string());
}

/// The special tokens and all bytes, which are one token each.
fn vocabulary() -> Map<String, Value> {
    let special = ["<pad>", "<eos>", "<bos>", "<unk>"].map(str::to_owned);
    let bytes = (0..256).map(|byte| format!("<0x{byte:02X}>"));
    special.into_iter().chain(bytes).zip(0..).map(|(token, id)| (token, json!(id))).collect()
}

/// The names and shapes of the tensors of a part, as its network requests them.
fn shapes(part: &str, config: &Map<String, Value>) -> Map<String, Value> {
    let weights = Weights::outline(part);
    match part {
        "text_encoder" => drop(T5GemmaEncoder::new(&T5GemmaConfig::read(part, config).unwrap(), &weights)),
        "duration_embedder" => {
            drop(DurationEmbedder::new(&DurationEmbedderConfig::read(part, config).unwrap(), &weights));
        }
        "transformer" => {
            drop(StableAudio3DiTModel::new(&StableAudio3DiTConfig::read(part, config).unwrap(), &weights));
        }
        _ => drop(AutoencoderSame::new(&AutoencoderSameConfig::read(part, config).unwrap(), &weights)),
    }
    weights.requested().into_iter().map(|(name, shape)| (name, json!(shape))).collect()
}
