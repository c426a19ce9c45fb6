//! Tests of Qwen3 text encoders, their tokenizer, and the networks of Z-Image: comparisons with transformers and
//! diffusers, and independence of the rows of a batch.

use std::{fs, path::Path};

use candle_core::{DType, Tensor};
use latentd::{
    device::Device,
    models::{
        Qwen3Encoder, QwenTokenizer, ZImageTransformer2DModel,
        adapters::RowAdapters,
        pause::ToEnd,
        qwen_tokenizer::Answer,
        qwen3_encoder::{Qwen3Config, Qwen3Row},
        z_image_transformer2d::ZImageTransformer2DConfig,
    },
    weights::{LoadError, ModelFolder, Weights},
};
use serde_json::{Map, Value, json};

use crate::{
    fixtures::{Copy, assert_close, bits, noise, parity, pipeline_folder, prompts, tensors, vae},
    roots,
};

/// The pipelines with a Qwen3 text encoder, the beginning of the answer in their chats, and the states that they use.
const PIPELINES: [(&str, Answer, &[usize]); 2] =
    [("z-image", Answer::Thinking, &[3]), ("flux2-klein", Answer::Direct, &[9, 18, 27])];

fn as_stored(name: &str, shape: &[usize]) -> (String, Vec<usize>) {
    (name.to_owned(), shape.to_vec())
}

fn encoder(root: &Path, depth: usize) -> Result<Qwen3Encoder, LoadError> {
    let folder = pipeline_folder(root)?;
    let config = Qwen3Config::read("text_encoder/config.json", &folder.json("text_encoder/config.json")?)?;
    let weights = Weights::open(&folder, "text_encoder", "model", &Device::host(), as_stored)?;
    let network = Qwen3Encoder::new(&config, &weights, depth);
    weights.finish()?;
    Ok(network)
}

pub fn transformer(root: &Path) -> Result<ZImageTransformer2DModel, LoadError> {
    let folder = pipeline_folder(root)?;
    let path = "transformer/config.json";
    let config = ZImageTransformer2DConfig::read(path, &folder.json(path)?)?;
    let weights = Weights::open(&folder, "transformer", "diffusion_pytorch_model", &Device::host(), as_stored)?;
    let network = ZImageTransformer2DModel::new(&config, &weights);
    weights.finish()?;
    Ok(network)
}

/// Whether the fixtures have the pipeline. The compact part in the repository lacks it.
pub fn has(pipeline: &str) -> bool {
    let has = parity().join("pipelines").join(pipeline).is_dir();
    if !has {
        assert!(std::env::var_os("LATENTD_PARITY_DIR").is_none(), "the fixtures have no {pipeline}");
        println!("no {pipeline}: LATENTD_PARITY_DIR does not name the complete fixtures");
    }
    has
}

fn golden_ids(pipeline: &str) -> Vec<Vec<u32>> {
    let golden = tensors(&parity().join(format!("components/{pipeline}.safetensors")));
    let rows = |name: &str| golden[name].to_dtype(DType::U32).unwrap().to_vec2::<u32>().unwrap();
    let (ids, masks) = (rows("tokenizer.chat.input_ids"), rows("tokenizer.chat.attention_mask"));
    let row = |(mut ids, mask): (Vec<u32>, Vec<u32>)| {
        ids.truncate(mask.iter().sum::<u32>() as usize);
        ids
    };
    ids.into_iter().zip(masks).map(row).collect()
}

fn ids(tokenizer: &QwenTokenizer) -> Vec<Vec<u32>> {
    let truncated = |prompt: &String| tokenizer.encode(prompt).into_iter().take(64).collect();
    prompts().iter().map(truncated).collect()
}

#[test]
fn chats_have_the_ids_of_transformers() {
    for (pipeline, answer, _) in PIPELINES.into_iter().filter(|(pipeline, ..)| has(pipeline)) {
        let load = |root: &Path| QwenTokenizer::load(&ModelFolder::open(root).unwrap(), "tokenizer", answer);
        assert_eq!(ids(&load(&parity().join("pipelines").join(pipeline)).unwrap()), golden_ids(pipeline));

        // The same from vocab.json, merges.txt and the list of added tokens.
        let copy = Copy::of(pipeline);
        let whole: Value = serde_json::from_slice(&fs::read(copy.path("tokenizer/tokenizer.json")).unwrap()).unwrap();
        let added = whole["added_tokens"].as_array().unwrap();
        let added: Map<String, Value> =
            added.iter().map(|token| (token["content"].as_str().unwrap().to_owned(), token["id"].clone())).collect();
        fs::remove_file(copy.path("tokenizer/tokenizer.json")).unwrap();
        let error = load(copy.0.path()).unwrap_err().to_string();
        assert!(error.contains("<|im_start|>"), "{error}");
        fs::write(copy.path("tokenizer/added_tokens.json"), Value::Object(added).to_string()).unwrap();
        assert_eq!(ids(&load(copy.0.path()).unwrap()), golden_ids(pipeline));
    }
}

/// The states of padding are compared too: FLUX.2 Klein uses them.
#[test]
fn states_of_inner_layers_equal_transformers() {
    for (pipeline, answer, after) in PIPELINES.into_iter().filter(|(pipeline, ..)| has(pipeline)) {
        let root = parity().join("pipelines").join(pipeline);
        let golden = tensors(&parity().join(format!("components/{pipeline}.safetensors")));
        let tokenizer = QwenTokenizer::load(&ModelFolder::open(&root).unwrap(), "tokenizer", answer).unwrap();
        let encoder = encoder(&root, after[after.len() - 1]).unwrap();
        for (row, ids) in golden_ids(pipeline).into_iter().enumerate() {
            let length = ids.len();
            let mut padded = ids;
            padded.resize(64, tokenizer.pad());
            let states = encoder.forward(Qwen3Row { ids: &padded, length }, after).to_end().unwrap();
            for (k, state) in after.iter().zip(states) {
                let name = if pipeline == "z-image" { -2 } else { *k as i64 };
                let wanted = golden[&format!("text_encoder.hidden_states.{name}")].narrow(0, row, 1).unwrap();
                assert_close(&state, &wanted, &format!("{pipeline}: state {k} of prompt {row}"));
            }
        }
    }
}

#[test]
fn the_base_of_rotary_angles_may_be_in_either_place() {
    if !has("z-image") {
        return;
    }
    let copy = Copy::of("z-image");
    let row = Qwen3Row { ids: &[5, 6, 7, 8], length: 4 };
    let states = |copy: &Copy| {
        let states = encoder(copy.0.path(), 3).unwrap().forward(row, &[3]).to_end().unwrap();
        bits(&states[0])
    };
    let before = states(&copy);
    let edit = |edit: &dyn Fn(&mut Map<String, Value>)| {
        copy.edit("text_encoder/config.json", |config| edit(config.as_object_mut().unwrap()));
    };
    edit(&|config| {
        config.remove("rope_parameters");
        config.insert("rope_theta".to_owned(), json!(1_000_000.0));
    });
    assert_eq!(states(&copy), before);
    edit(&|config| drop(config.insert("rope_theta".to_owned(), json!(10_000.0))));
    assert_ne!(states(&copy), before);
    for (key, value) in [
        ("rope_scaling", json!({"type": "yarn"})),
        ("attention_bias", json!(true)),
        ("use_sliding_window", json!(true)),
        ("rope_parameters", json!({"rope_theta": 1e6, "rope_type": "yarn"})),
        ("num_key_value_heads", json!(3)),
    ] {
        let copy = Copy::of("z-image");
        copy.edit("text_encoder/config.json", |config| config[key] = value);
        let error = encoder(copy.0.path(), 3).unwrap_err().to_string();
        assert!(error.contains(key), "{error}");
    }
}

/// The layers above the last used one and `lm_head` are not read; every other tensor is needed.
#[test]
fn unused_layers_of_a_text_encoder_are_left_and_others_needed() {
    if !has("z-image") {
        return;
    }
    let copy = Copy::of("z-image");
    let file = "text_encoder/model.safetensors";
    copy.edit_tensors(file, |tensors| {
        tensors.retain(|name, _| !name.starts_with("layers.3.") && !name.starts_with("norm."));
        tensors.insert("lm_head.weight".to_owned(), noise(&[3, 2], 1));
    });
    encoder(copy.0.path(), 3).unwrap();
    copy.edit_tensors(file, |tensors| {
        let renamed = tensors.drain().map(|(name, tensor)| (format!("model.{name}"), tensor)).collect();
        *tensors = renamed;
    });
    let error = encoder(copy.0.path(), 3).unwrap_err().to_string();
    assert!(error.contains("model.lm_head.weight"), "{error}");
    copy.edit_tensors(file, |tensors| drop(tensors.remove("model.lm_head.weight")));
    encoder(copy.0.path(), 3).unwrap();
    copy.edit_tensors(file, |tensors| drop(tensors.remove("model.layers.1.mlp.up_proj.weight")));
    let error = encoder(copy.0.path(), 3).unwrap_err().to_string();
    assert!(error.contains("model.layers.1.mlp.up_proj.weight"), "{error}");
}

#[test]
fn the_transformer_of_z_image_equals_diffusers() {
    if !has("z-image") {
        return;
    }
    let golden = tensors(&parity().join("components/z-image.safetensors"));
    let network = transformer(&parity().join("pipelines/z-image")).unwrap();
    let sample = golden["transformer.sample"].squeeze(2).unwrap();
    for t in ["0.05", "0.9"] {
        let wanted = golden[&format!("transformer.out.t{t}")].squeeze(2).unwrap();
        for row in 0..2 {
            let states = golden[&format!("transformer.caption.{row}")].unsqueeze(0).unwrap();
            let caption = network.caption(&states, RowAdapters::NONE).to_end().unwrap();
            let part = |x: &Tensor| x.narrow(0, row, 1).unwrap().contiguous().unwrap();
            let made =
                network.forward(&part(&sample), &[t.parse().unwrap()], &caption, RowAdapters::NONE).to_end().unwrap();
            assert_close(&made, &part(&wanted), &format!("row {row} at {t}"));
        }
    }
    let vae = vae("z-image");
    let moments = vae.encode(&golden["vae.image"]).to_end().unwrap();
    assert_close(&moments.mean, &golden["vae.mean"], "vae.mean");
    assert_close(&moments.logvar, &golden["vae.logvar"], "vae.logvar");
    assert_close(&vae.decode(&golden["vae.latent"]).to_end().unwrap(), &golden["vae.decoded"], "vae.decoded");
}

#[test]
fn a_row_of_z_image_has_the_same_bits_alone_and_in_a_batch() {
    if !has("z-image") {
        return;
    }
    let network = transformer(&parity().join("pipelines/z-image")).unwrap();
    let (latents, states) = (noise(&[3, 16, 6, 10], 1), noise(&[3, 40, 32], 2));
    let captions: Vec<Tensor> = (0..3)
        .map(|row| network.caption(&states.narrow(0, row, 1).unwrap(), RowAdapters::NONE).to_end().unwrap())
        .collect();
    let together = Tensor::cat(&captions, 0).unwrap();
    let times = [0.1, 0.5, 0.95];
    let all = network.forward(&latents, &times, &together, RowAdapters::NONE).to_end().unwrap();
    for row in 0..3 {
        let own = latents.narrow(0, row, 1).unwrap();
        let alone = network.forward(&own, &times[row..=row], &captions[row], RowAdapters::NONE).to_end().unwrap();
        assert_eq!(bits(&alone), bits(&all.narrow(0, row, 1).unwrap().contiguous().unwrap()));
    }
    let states = network.caption(&states, RowAdapters::NONE).to_end().unwrap();
    assert_eq!(bits(&states), bits(&together), "captions of one length can be computed together");
}

#[test]
fn what_a_z_image_transformer_does_not_support_is_an_error() {
    if !has("z-image") {
        return;
    }
    let copy = Copy::of("z-image");
    for (key, value) in [
        ("qk_norm", json!(false)),
        ("all_patch_size", json!([2, 4])),
        ("siglip_feat_dim", json!(1152)),
        ("n_kv_heads", json!(1)),
        ("axes_dims", json!([4, 6, 8])),
        ("dim", json!(1 << 30)),
        ("a_new_key", json!(1)),
    ] {
        let copy = Copy::of("z-image");
        copy.edit("transformer/config.json", |config| config[key] = value);
        let error = transformer(copy.0.path()).unwrap_err().to_string();
        assert!(error.contains(key), "{error}");
    }
    copy.edit_tensors("transformer/diffusion_pytorch_model.safetensors", |tensors| {
        drop(tensors.remove("x_pad_token"));
        tensors.insert("layers.9.extra".to_owned(), noise(&[3], 1));
    });
    let error = transformer(copy.0.path()).unwrap_err().to_string();
    assert!(error.contains("x_pad_token") && error.contains("layers.9.extra"), "{error}");
}

/// The names and shapes of the published networks.
#[test]
fn the_published_networks_load_by_name_and_shape() {
    for (name, depth) in [("z-image--text_encoder", 35), ("flux2-klein-4b--text_encoder", 27)] {
        let (config, published) = roots::manifest(name);
        let config = Qwen3Config::read("config.json", &config).unwrap();
        let weights = Weights::outline("text_encoder");
        Qwen3Encoder::new(&config, &weights, depth);
        let requested = weights.requested();
        let prefix = if published.contains_key("model.embed_tokens.weight") { "model." } else { "" };
        for (name, shape) in &requested {
            let stored = format!("{prefix}{}", name.strip_prefix("model.").unwrap_or(name));
            assert_eq!(published.get(&stored), Some(shape), "{stored}");
        }
        assert_eq!(requested.len(), 1 + 11 * depth);
    }
    let (config, published) = roots::manifest("z-image--transformer");
    let config = ZImageTransformer2DConfig::read("config.json", &config).unwrap();
    let weights = Weights::outline("transformer");
    ZImageTransformer2DModel::new(&config, &weights);
    assert_eq!(weights.requested(), published);
}
