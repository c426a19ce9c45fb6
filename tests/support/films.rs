//! A folder of a small model that makes films of a picture, with random weights that are the same on every machine.

#![allow(dead_code, reason = "each test target uses its part")]

use std::{fs, path::Path};

use latentd::{
    models::{
        AutoencoderKlTemporalDecoder, ClipImageEncoder, UNetSpatioTemporalModel,
        autoencoder_kl_temporal_decoder::AutoencoderKlTemporalDecoderConfig, clip_preparation::Preparation,
        clip_vision::ClipVisionConfig, unet_spatio_temporal::UNetSpatioTemporalConfig,
    },
    weights::{ModelFolder, Weights},
};
use serde_json::{Map, Value, json};

use crate::transformers::safetensors;

/// The name of the model.
pub const NAME: &str = "clips";

/// Writes the folder of the model into `models`. Its films have 3 frames of 32 × 16 pixels.
pub fn put_model(models: &Path) {
    let folder = models.join(NAME);
    let configs = [
        (
            "image_encoder",
            "model",
            json!({
                "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
                "image_size": 224, "patch_size": 56, "hidden_act": "gelu", "projection_dim": 8,
            }),
        ),
        (
            "unet",
            "diffusion_pytorch_model",
            json!({
                "sample_size": [8, 16], "in_channels": 8, "out_channels": 4, "block_out_channels": [32, 32],
                "down_block_types": ["CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"],
                "up_block_types": ["UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"],
                "layers_per_block": 1, "num_attention_heads": 2, "cross_attention_dim": 8, "num_frames": 3,
                "addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 24,
            }),
        ),
        (
            "vae",
            "diffusion_pytorch_model",
            json!({
                "latent_channels": 4, "block_out_channels": [32, 32], "layers_per_block": 2,
                "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D"],
            }),
        ),
    ];
    put(&folder.join("feature_extractor/preprocessor_config.json"), json!({"size": 224, "crop_size": 224}).to_string());
    let scheduler = json!({
        "_class_name": "EulerDiscreteScheduler", "beta_start": 0.00085, "beta_end": 0.012,
        "beta_schedule": "scaled_linear", "prediction_type": "v_prediction", "timestep_type": "continuous",
        "timestep_spacing": "leading", "sigma_min": 0.002, "sigma_max": 700.0, "use_karras_sigmas": true,
        "steps_offset": 1,
    });
    put(&folder.join("scheduler/scheduler_config.json"), scheduler.to_string());
    let index = json!({
        "_class_name": "StableVideoDiffusionPipeline",
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
        "scheduler": ["diffusers", "EulerDiscreteScheduler"],
        "unet": ["diffusers", "UNetSpatioTemporalConditionModel"],
        "vae": ["diffusers", "AutoencoderKLTemporalDecoder"],
    });
    put(&folder.join("model_index.json"), index.to_string());
    put(&folder.join("latentd.json"), json!({"steps": 3, "min_size": 16}).to_string());
    for (part, stem, config) in &configs {
        put(&folder.join(part).join("config.json"), config.to_string());
        let shapes = shapes(&folder, part, config.as_object().unwrap());
        put(&folder.join(part).join(format!("{stem}.safetensors")), safetensors(&shapes));
    }
}

/// The names and shapes of the tensors of a part, as its network requests them.
fn shapes(folder: &Path, part: &str, config: &Map<String, Value>) -> Map<String, Value> {
    let weights = Weights::outline(part);
    match part {
        "image_encoder" => {
            let preparation = Preparation::read(&ModelFolder::open(folder).unwrap(), false, 224).unwrap();
            drop(ClipImageEncoder::new(&ClipVisionConfig::read(part, config).unwrap(), preparation, &weights));
        }
        "unet" => {
            let config = UNetSpatioTemporalConfig::read(part, config).unwrap();
            drop(UNetSpatioTemporalModel::new(&config, &weights));
        }
        _ => {
            let config = AutoencoderKlTemporalDecoderConfig::read(part, config).unwrap();
            drop(AutoencoderKlTemporalDecoder::new(&config, &weights));
        }
    }
    weights.requested().into_iter().map(|(name, shape)| (name, json!(shape))).collect()
}

fn put(path: &Path, content: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}
