//! Folders of motion adapters with random weights that are the same on every machine.

#![allow(dead_code, reason = "each test target uses its part")]

use std::{fs, path::Path};

use latentd::{
    models::motion_adapter::{MotionAdapter, MotionAdapterConfig},
    weights::Weights,
};
use serde_json::{Map, Value, json};

use crate::transformers::safetensors;

/// Writes the adapter with this configuration into `folder`. `tests/films/animate_diff.py` makes the same
/// weights.
pub fn put_adapter(folder: &Path, config: &Value) {
    let weights = Weights::outline("motion_adapter");
    let read = MotionAdapterConfig::read("config.json", config.as_object().unwrap()).unwrap();
    drop(MotionAdapter::new(&read, &weights));
    let shapes: Map<String, Value> =
        weights.requested().into_iter().map(|(name, shape)| (name, json!(shape))).collect();
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    fs::write(folder.join("diffusion_pytorch_model.safetensors"), safetensors(&shapes)).unwrap();
}

/// The configuration of an adapter for the embedded model.
pub fn for_emoji() -> Value {
    json!({
        "_class_name": "MotionAdapter", "block_out_channels": [64, 128, 160], "motion_layers_per_block": 1,
        "motion_num_attention_heads": 4, "motion_norm_num_groups": 16, "use_motion_mid_block": true,
        "motion_max_seq_length": 16,
    })
}
