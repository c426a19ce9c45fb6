//! Tests of UMT5 and of Wan's transformer.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use candle_core::{DType, Tensor};
use latentd::{
    device::Device,
    models::{
        T5EncoderModel, T5Tokenizer, WanTransformer3DModel,
        pause::ToEnd,
        t5_encoder::T5Config,
        t5_tokenizer::T5Ids,
        wan_transformer3d::{WanConditions, WanTransformer3DConfig},
    },
    weights::{LoadError, Weights},
};
use serde_json::{Map, Value, json};

use crate::{
    fixtures::{Copy, assert_close, bits, noise, parity, pipeline_folder, prompts, tensors},
    roots,
};

const PIPELINES: [&str; 4] = ["wan-t2v", "wan-i2v", "wan22-a14b", "wan22-ti2v"];

/// The folder of a pipeline; `None` if the fixtures have no Wan.
fn root(pipeline: &str) -> Option<PathBuf> {
    let root = parity().join("pipelines").join(pipeline);
    if root.is_dir() {
        return Some(root);
    }
    assert!(std::env::var_os("LATENTD_PARITY_DIR").is_none(), "the fixtures have no {pipeline}");
    println!("no {pipeline}: LATENTD_PARITY_DIR does not name the complete fixtures");
    None
}

fn as_stored(name: &str, shape: &[usize]) -> (String, Vec<usize>) {
    (name.to_owned(), shape.to_vec())
}

fn transformer(root: &Path) -> Result<WanTransformer3DModel, LoadError> {
    let folder = pipeline_folder(root)?;
    let config = WanTransformer3DConfig::read("transformer/config.json", &folder.json("transformer/config.json")?)?;
    let weights = Weights::open(&folder, "transformer", "diffusion_pytorch_model", &Device::host(), as_stored)?;
    let network = WanTransformer3DModel::new(&config, &weights);
    weights.finish()?;
    Ok(network)
}

#[test]
fn the_text_encoders_and_tokenizers_equal_transformers() {
    let whole = |x: &Tensor| x.to_dtype(DType::I64).unwrap().to_vec2::<i64>().unwrap();
    for name in PIPELINES {
        let Some(root) = root(name) else { return };
        let golden = tensors(&parity().join(format!("components/{name}.safetensors")));
        let folder = pipeline_folder(&root).unwrap();
        let tokenizer = T5Tokenizer::load(&folder, "tokenizer", 48).unwrap();
        let ids: Vec<T5Ids> = prompts().iter().map(|prompt| tokenizer.encode(prompt, 48)).collect();
        let made = ids.iter().map(|ids| ids.ids.iter().map(|id| i64::from(*id)).collect());
        assert_eq!(made.collect::<Vec<Vec<_>>>(), whole(&golden["tokenizer.input_ids"]), "{name}");
        let config = folder.json("text_encoder/config.json").unwrap();
        let weights = Weights::open(&folder, "text_encoder", "model", &Device::host(), as_stored).unwrap();
        let encoder = T5EncoderModel::new(&T5Config::read("text_encoder", &config).unwrap(), &weights).unwrap();
        weights.finish().unwrap();
        let rows: Vec<&[u32]> = ids.iter().map(|ids| ids.ids.as_slice()).collect();
        let tokens: Vec<usize> = ids.iter().map(|ids| ids.tokens).collect();
        let states = encoder.forward(&rows, Some(&tokens)).to_end().unwrap();
        for (i, tokens) in tokens.into_iter().enumerate() {
            let of = |x: &Tensor| x.get(i).unwrap().narrow(0, 0, tokens).unwrap();
            assert_close(&of(&states), &of(&golden["text_encoder.last_hidden_state"]), name);
        }
    }
}

#[test]
fn the_transformers_equal_diffusers() {
    for name in PIPELINES {
        let Some(root) = root(name) else { return };
        let golden = tensors(&parity().join(format!("components/{name}.safetensors")));
        let of = |name: &str| &golden[&format!("transformer.{name}")];
        let network = transformer(&root).unwrap();
        let (x, text) = (of("sample"), of("encoder_hidden_states"));
        let picture = golden.get("transformer.encoder_hidden_states_image");
        let forward = |t: &[f32]| network.forward(x, WanConditions { t, text, picture }).to_end().unwrap();
        for t in [7.0f32, 951.0] {
            assert_close(&forward(&[t]), of(&format!("out.t{t}")), &format!("{name} t {t}"));
            let (one, two) = (forward(&[t]), forward(&[t; 2]));
            assert_eq!(bits(&one), bits(&two), "{name}: one time or the same for each latent frame");
        }
        if let Some(times) = golden.get("transformer.token_timesteps") {
            // The 6 patches of a latent frame have one time.
            let times: Vec<f32> = times.flatten_all().unwrap().to_vec1().unwrap();
            assert!(times.chunks(6).all(|frame| frame.iter().all(|t| *t == frame[0])));
            assert_close(
                &forward(&[times[0], times[6]]),
                of("out.token_timesteps"),
                &format!("{name}, times of frames"),
            );
        }
    }
}

/// A network with random weights, which sees a picture.
fn random() -> WanTransformer3DModel {
    let keys = json!({
        "num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 6, "out_channels": 4, "text_dim": 10,
        "freq_dim": 8, "ffn_dim": 20, "num_layers": 2, "image_dim": 14, "added_kv_proj_dim": 24,
    });
    let folder = tempfile::tempdir().unwrap();
    let config = WanTransformer3DConfig::read("transformer", keys.as_object().unwrap()).unwrap();
    let outline = Weights::outline("transformer");
    drop(WanTransformer3DModel::new(&config, &outline));
    let tensors: HashMap<String, Tensor> = (0..)
        .zip(outline.requested())
        .map(|(seed, (name, shape))| (name, (noise(&shape, seed) * 0.3).unwrap()))
        .collect();
    fs::create_dir(folder.path().join("transformer")).unwrap();
    let file = folder.path().join("transformer/diffusion_pytorch_model.safetensors");
    candle_core::safetensors::save(&tensors, file).unwrap();
    fs::write(folder.path().join("transformer/config.json"), keys.to_string()).unwrap();
    transformer(folder.path()).unwrap()
}

#[test]
fn a_row_does_not_depend_on_other_rows() {
    let network = random();
    let (x, text, picture) = (noise(&[3, 6, 2, 6, 10], 1), noise(&[3, 20, 10], 2), noise(&[3, 5, 14], 3));
    for t in [&[7.0, 951.0, 20.5][..], &[0.0, 7.0, 0.0, 951.0, 3.0, 20.5]] {
        let conditions = WanConditions { t, text: &text, picture: Some(&picture) };
        let together = network.forward(&x, conditions).to_end().unwrap();
        assert_eq!(together.dims(), [3, 4, 2, 6, 10]);
        for i in 0..3 {
            let row = |x: &Tensor| x.narrow(0, i, 1).unwrap().contiguous().unwrap();
            let times = t.len() / 3;
            let (text, picture) = (row(&text), row(&picture));
            let conditions = WanConditions { t: &t[i * times..][..times], text: &text, picture: Some(&picture) };
            let alone = network.forward(&row(&x), conditions).to_end().unwrap();
            assert_eq!(bits(&alone), bits(&row(&together)), "row {i}");
        }
    }
}

#[test]
fn each_condition_has_an_effect() {
    let network = random();
    let (x, text, picture) = (noise(&[1, 6, 2, 4, 4], 1), noise(&[1, 20, 10], 2), noise(&[1, 5, 14], 3));
    let made = |t: &[f32], text: &Tensor, picture: &Tensor| {
        bits(&network.forward(&x, WanConditions { t, text, picture: Some(picture) }).to_end().unwrap())
    };
    let (other_text, other_picture) = (noise(&[1, 20, 10], 4), noise(&[1, 5, 14], 5));
    let longer = Tensor::cat(&[&text, &Tensor::zeros((1, 4, 10), DType::F32, x.device()).unwrap()], 1).unwrap();
    let all = [
        made(&[500.0], &text, &picture),
        made(&[600.0], &text, &picture),
        made(&[0.0, 500.0], &text, &picture),
        made(&[500.0], &other_text, &picture),
        made(&[500.0], &longer, &picture),
        made(&[500.0], &text, &other_picture),
    ];
    for (i, one) in all.iter().enumerate() {
        assert!(!all[..i].contains(one), "{i}");
    }
    let lacking = network.forward(&x, WanConditions { t: &[1.0], text: &text, picture: None }).to_end();
    assert!(lacking.is_err(), "no picture");
}

#[test]
fn tensors_and_keys_that_do_not_fit_are_named() {
    if root("wan-t2v").is_some() {
        let copy = Copy::of("wan-t2v");
        copy.edit_tensors("transformer/diffusion_pytorch_model.safetensors", |tensors| {
            let tensor = tensors.remove("blocks.1.attn2.norm_q.weight").unwrap();
            // diffusers does not read this norm either.
            tensors.insert("blocks.1.attn2.norm_added_q.weight".to_owned(), tensor.clone());
            tensors.insert("blocks.1.attn2.norm_r.weight".to_owned(), tensor);
        });
        let error = transformer(copy.0.path()).unwrap_err().to_string();
        assert!(error.contains("attn2.norm_q.weight") && error.contains("attn2.norm_r.weight"), "{error}");
        assert!(!error.contains("norm_added_q"), "{error}");
    }
    let refused = |key: &str, value: Value| {
        let keys = Map::from_iter([(key.to_owned(), value)]);
        WanTransformer3DConfig::read("transformer/config.json", &keys).unwrap_err().to_string()
    };
    for (key, value) in [
        ("patch_size", json!([2, 2, 2])),
        ("qk_norm", json!("rms_norm")),
        ("pos_embed_seq_len", json!(514)),
        ("num_layers", json!(0)),
        ("attention_head_dim", json!(15)),
        ("added_kv_proj_dim", json!(5120)),
        ("image_dim", json!(0)),
        ("eps", json!(-1)),
        ("window_size", json!([-1, -1])),
    ] {
        let error = refused(key, value);
        assert!(error.contains(key), "{key}: {error}");
    }
}

#[test]
fn the_requested_tensors_are_those_of_published_models() {
    if root("wan-t2v").is_none() {
        return;
    }
    for name in ["wan21-t2v-1.3b", "wan21-t2v-14b", "wan21-i2v-14b", "wan22-ti2v-5b", "wan22-i2v-a14b"] {
        let (config, published) = roots::manifest(&format!("{name}--transformer"));
        let weights = Weights::outline("transformer");
        drop(WanTransformer3DModel::new(&WanTransformer3DConfig::read(name, &config).unwrap(), &weights));
        assert_eq!(weights.requested(), published, "{name}");
    }
    let (mut config, published) = roots::manifest("wan--text_encoder");
    // The manifest has no key of the kind of the model, which each configuration file has.
    config.insert("model_type".to_owned(), json!("umt5"));
    let weights = Weights::outline("text_encoder");
    drop(T5EncoderModel::new(&T5Config::read("text_encoder", &config).unwrap(), &weights).unwrap());
    assert_eq!(weights.requested(), published);
}
