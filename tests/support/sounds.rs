//! A folder of a small model that makes sounds, with random weights that are the same on every machine.

#![allow(dead_code, reason = "each test target uses its part")]

use std::{fs, path::Path};

use latentd::{
    models::{
        AutoencoderKl, ClapTextModel, HifiGan, UNet2DConditionModel, autoencoder_kl::AutoencoderKlConfig,
        clap_text::ClapTextConfig, hifi_gan::HifiGanConfig, unet2d_condition::UNet2DConditionConfig,
    },
    weights::Weights,
};
use serde_json::{Map, Value, json};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use crate::transformers::safetensors;

/// The name of the model.
pub const NAME: &str = "waves";

/// Writes the folder of the model into `models`. Its sounds have 8000 samples per second.
pub fn put_model(models: &Path) {
    let folder = models.join(NAME);
    let (vocabulary, merges) = (vocabulary(), "#version: 0.2\n");
    let configs = [
        (
            "text_encoder",
            "model",
            json!({
                "vocab_size": vocabulary.len(), "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
                "intermediate_size": 32, "max_position_embeddings": 66, "projection_dim": 16,
            }),
        ),
        (
            "unet",
            "diffusion_pytorch_model",
            json!({
                "sample_size": 8, "in_channels": 4, "out_channels": 4, "block_out_channels": [8, 16],
                "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
                "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"], "layers_per_block": 1, "norm_num_groups": 4,
                "attention_head_dim": 2, "cross_attention_dim": [8, 16], "class_embed_type": "simple_projection",
                "class_embeddings_concat": true, "projection_class_embeddings_input_dim": 16,
            }),
        ),
        (
            "vae",
            "diffusion_pytorch_model",
            json!({
                "in_channels": 1, "out_channels": 1, "latent_channels": 4, "block_out_channels": [4, 8],
                "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D"],
                "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D"], "layers_per_block": 1, "norm_num_groups": 2,
            }),
        ),
        (
            "vocoder",
            "model",
            json!({
                "model_in_dim": 8, "sampling_rate": 8000, "upsample_initial_channel": 8, "upsample_rates": [5, 4],
                "upsample_kernel_sizes": [16, 8], "resblock_kernel_sizes": [3, 5],
                "resblock_dilation_sizes": [[1, 3], [1, 2]], "normalize_before": true,
            }),
        ),
    ];
    for (part, stem, config) in &configs {
        put(&folder.join(part).join("config.json"), config.to_string());
        let shapes = shapes(part, config.as_object().unwrap());
        put(&folder.join(part).join(format!("{stem}.safetensors")), safetensors(&shapes));
    }
    let scheduler = json!({
        "_class_name": "DDIMScheduler", "beta_start": 0.0015, "beta_end": 0.0195, "beta_schedule": "scaled_linear",
        "clip_sample": false, "set_alpha_to_one": false, "steps_offset": 1,
    });
    put(&folder.join("scheduler/scheduler_config.json"), scheduler.to_string());
    put(&folder.join("tokenizer/vocab.json"), Value::Object(vocabulary).to_string());
    put(&folder.join("tokenizer/merges.txt"), merges);
    put(&folder.join("tokenizer/tokenizer_config.json"), json!({"model_max_length": 64}).to_string());
    let index = json!({
        "_class_name": "AudioLDMPipeline",
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "ClapTextModelWithProjection"],
        "tokenizer": ["transformers", "RobertaTokenizerFast"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "vocoder": ["transformers", "SpeechT5HifiGan"],
    });
    put(&folder.join("model_index.json"), index.to_string());
}

/// The special tokens and all bytes, which are one token each.
fn vocabulary() -> Map<String, Value> {
    let mut bytes: Vec<String> = ByteLevel::alphabet().into_iter().map(String::from).collect();
    bytes.sort();
    let special = ["<s>", "<pad>", "</s>", "<unk>"].map(str::to_owned);
    let tokens = special.into_iter().chain(bytes).chain(["<mask>".to_owned()]);
    tokens.zip(0..).map(|(token, id)| (token, json!(id))).collect()
}

/// The names and shapes of the tensors of a part, as its network requests them.
fn shapes(part: &str, config: &Map<String, Value>) -> Map<String, Value> {
    let weights = Weights::outline(part);
    match part {
        "text_encoder" => drop(ClapTextModel::new(&ClapTextConfig::read(part, config).unwrap(), &weights)),
        "unet" => {
            let config = UNet2DConditionConfig::read_for_vector(part, config).unwrap();
            drop(UNet2DConditionModel::new(&config, &weights));
        }
        "vae" => drop(AutoencoderKl::new(&AutoencoderKlConfig::read(part, config).unwrap(), &weights)),
        _ => drop(HifiGan::new(&HifiGanConfig::read(part, config).unwrap(), &weights)),
    }
    weights.requested().into_iter().map(|(name, shape)| (name, json!(shape))).collect()
}

pub fn put(path: &Path, content: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}
