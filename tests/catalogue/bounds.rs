//! Tests of configurations with absurd numbers: each makes only its own model unusable, with an error that names file
//! and key.

use std::path::Path;

use latentd::catalogue::{Catalogue, ControlNets};
use serde_json::{Value, json};

use super::{copy, fixtures};

/// All numbers that are read from configurations, by file.
const KEYS: [(&str, &[&str]); 5] = [
    (
        "unet/config.json",
        &[
            "sample_size",
            "in_channels",
            "out_channels",
            "freq_shift",
            "block_out_channels",
            "layers_per_block",
            "downsample_padding",
            "mid_block_scale_factor",
            "norm_num_groups",
            "norm_eps",
            "cross_attention_dim",
            "transformer_layers_per_block",
            "attention_head_dim",
            "time_embedding_dim",
            "time_cond_proj_dim",
            "conv_in_kernel",
            "conv_out_kernel",
        ],
    ),
    (
        "vae/config.json",
        &[
            "in_channels",
            "out_channels",
            "block_out_channels",
            "layers_per_block",
            "latent_channels",
            "norm_num_groups",
            "scaling_factor",
            "shift_factor",
            "sample_size",
        ],
    ),
    (
        "text_encoder/config.json",
        &[
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "max_position_embeddings",
            "layer_norm_eps",
            "projection_dim",
        ],
    ),
    ("latentd.json", &["width", "height", "min_size", "steps", "guidance_scale"]),
    ("controlnet", &["conditioning_channels", "conditioning_embedding_out_channels", "sample_size", "in_channels"]),
];

fn absurd() -> [Value; 6] {
    [json!(1u64 << 31), json!(1u64 << 62), json!(u64::MAX), json!(-1e18), json!(1e300), json!(-1)]
}

/// Sets a key. If the key has a list, all its elements get the value.
fn put(config: &mut Value, key: &str, value: &Value) {
    let value = match config.get(key).and_then(Value::as_array) {
        Some(each) => vec![value.clone(); each.len()].into(),
        None => value.clone(),
    };
    config[key] = value;
}

fn read(path: &Path) -> Value {
    std::fs::read(path).map_or_else(|_| json!({}), |text| serde_json::from_slice(&text).unwrap())
}

/// Makes a folder of links to the files in `base`, with other content in one file.
fn variant(base: &Path, at: &Path, file: &str, content: &Value) {
    std::fs::create_dir_all(at).unwrap();
    for entry in std::fs::read_dir(base).unwrap().map(Result::unwrap) {
        let (name, to) = (entry.file_name(), at.join(entry.file_name()));
        match file.split_once('/') {
            Some((part, rest)) if name == part => variant(&entry.path(), &to, rest, content),
            _ if name == file => {}
            _ => std::os::unix::fs::symlink(entry.path(), to).unwrap(),
        }
    }
    if !file.contains('/') {
        std::fs::write(at.join(file), content.to_string()).unwrap();
    }
}

#[test]
fn absurd_numbers_are_refused_with_file_and_key() {
    let place = tempfile::tempdir().unwrap();
    let (models, nets) = (place.path().join("models"), place.path().join("nets"));
    copy(&fixtures().join("sd1"), &models.join("base"));
    copy(&fixtures().parent().unwrap().join("controlnets/canny"), &nets.join("base"));
    let mut expected = Vec::new();
    for (file, keys) in KEYS {
        let (root, path) = if file == "controlnet" { (&nets, "config.json") } else { (&models, file) };
        for (key, (i, value)) in keys.iter().flat_map(|key| absurd().into_iter().enumerate().map(move |v| (*key, v))) {
            let name = format!("{}-{key}-{i}", file.replace(['/', '.'], "-"));
            let mut config = read(&root.join("base").join(path));
            put(&mut config, key, &value);
            variant(&root.join("base"), &root.join(&name), path, &config);
            // Two of the keys may be negative.
            let fits = key == "shift_factor" && value == json!(-1) || key == "freq_shift" && value == json!(-1);
            expected.push((name, path, key, value, fits));
        }
    }
    let catalogue = Catalogue::open(&models, "base").unwrap();
    let control_nets = ControlNets::open(&nets).unwrap();
    for (name, path, key, value, fits) in expected {
        let fault = catalogue.fault(&name).or_else(|| {
            control_nets.names().find(|(known, _)| *known == name).and_then(|(_, fault)| fault.map(str::to_owned))
        });
        let Some(fault) = fault else {
            assert!(fits, "{name}: {value} is accepted");
            continue;
        };
        assert!(!fits && fault.contains(path) && fault.contains(key), "{name} = {value}: {fault}");
        assert!(!fault.contains("panic") && fault.len() < 300, "{name} = {value}: {fault}");
    }
    assert!(catalogue.fault("base").is_none() && catalogue.load("base").is_ok());
}
