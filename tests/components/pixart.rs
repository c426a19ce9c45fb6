//! Tests of PixArt's transformer.

use std::path::Path;

use candle_core::{DType, Tensor};
use latentd::{
    device::Device,
    models::{
        PixArtTransformer2DModel,
        pause::ToEnd,
        pixart_transformer2d::{Captions, PixArtTransformer2DConfig},
    },
    weights::{LoadError, Weights},
};
use serde_json::{Map, Value, json};

use crate::{
    fixtures::{Copy, assert_close, bits, noise, parity, pipeline_folder, tensors},
    roots,
};

/// The cases whose first call is compared. The pictures of the last one are not square.
const CASES: [[&str; 2]; 3] = [["pixart-alpha", "default"], ["pixart-sigma", "default"], ["pixart-alpha", "negative"]];

fn cases() -> Vec<[&'static str; 2]> {
    let is_there = |[pipeline, _]: &[&str; 2]| parity().join("pipelines").join(pipeline).is_dir();
    let cases: Vec<_> = CASES.into_iter().filter(is_there).collect();
    if cases.is_empty() {
        assert!(std::env::var_os("LATENTD_PARITY_DIR").is_none(), "the fixtures have no PixArt");
        println!("no PixArt: LATENTD_PARITY_DIR does not name the complete fixtures");
    }
    cases
}

fn as_stored(name: &str, shape: &[usize]) -> (String, Vec<usize>) {
    (name.to_owned(), shape.to_vec())
}

fn transformer(root: &Path) -> Result<PixArtTransformer2DModel, LoadError> {
    let folder = pipeline_folder(root)?;
    let config = PixArtTransformer2DConfig::read("transformer/config.json", &folder.json("transformer/config.json")?)?;
    let weights = Weights::open(&folder, "transformer", "diffusion_pytorch_model", &Device::host(), as_stored)?;
    let network = PixArtTransformer2DModel::new(&config, &weights);
    weights.finish()?;
    Ok(network)
}

fn floats(x: &Tensor) -> Vec<f32> {
    x.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn the_transformer_equals_diffusers() {
    for [pipeline, case] in cases() {
        let network = transformer(&parity().join("pipelines").join(pipeline)).unwrap();
        let golden = tensors(&parity().join(format!("cases/{pipeline}/{case}/intermediates.safetensors")));
        let of = |name: &str| &golden[&format!("denoiser.0.{name}")];
        let sample = of("sample");
        // The states of the negative prompt, then the states of the prompt.
        let states = Tensor::cat(&[&golden["encode_prompt.2"], &golden["encode_prompt.0"]], 0).unwrap();
        let mask = of("encoder_attention_mask").to_dtype(DType::F32).unwrap().to_vec2::<f32>().unwrap();
        let tokens: Vec<usize> = mask.iter().map(|row| row.iter().filter(|seen| **seen == 1.0).count()).collect();
        let t = floats(of("timestep"));
        let (_, _, h, w) = sample.dims4().unwrap();
        let captions = Captions { states: &states, tokens: &tokens };
        let made = network.forward(sample, &t, captions, [8 * h, 8 * w]).to_end().unwrap();
        assert_close(&made, of("out"), &format!("{pipeline}/{case}"));
    }
}

#[test]
fn a_row_does_not_depend_on_other_rows_or_on_padding() {
    let Some([pipeline, _]) = cases().first().copied() else { return };
    let network = transformer(&parity().join("pipelines").join(pipeline)).unwrap();
    let (x, states) = (noise(&[5, 4, 6, 10], 1), noise(&[5, 20, 32], 2));
    let (t, tokens) = ([7.0, 951.0, 500.0, 0.0, 20.5], [20, 1, 7, 19, 16]);
    let captions = Captions { states: &states, tokens: &tokens };
    let together = network.forward(&x, &t, captions, [48, 80]).to_end().unwrap();
    for i in 0..5 {
        let row = |x: &Tensor| x.narrow(0, i, 1).unwrap().contiguous().unwrap();
        let states = row(&states).narrow(1, 0, tokens[i]).unwrap().contiguous().unwrap();
        let captions = Captions { states: &states, tokens: &tokens[i..=i] };
        let alone = network.forward(&row(&x), &t[i..=i], captions, [48, 80]).to_end().unwrap();
        assert_eq!(bits(&alone), bits(&row(&together)), "row {i}");
    }
}

#[test]
fn tensors_and_keys_that_do_not_fit_are_named() {
    if let Some([pipeline, _]) = cases().first() {
        let copy = Copy::of(pipeline);
        copy.edit_tensors("transformer/diffusion_pytorch_model.safetensors", |tensors| {
            let tensor = tensors.remove("caption_projection.linear_1.bias").unwrap();
            tensors.insert("caption_projection.linear_3.bias".to_owned(), tensor);
        });
        let error = transformer(copy.0.path()).unwrap_err().to_string();
        assert!(error.contains("linear_1.bias") && error.contains("linear_3.bias"), "{error}");
    }
    let refused = |key: &str, value: Value| {
        let keys = Map::from_iter([(key.to_owned(), value)]);
        PixArtTransformer2DConfig::read("transformer/config.json", &keys).unwrap_err().to_string()
    };
    for (key, value) in [
        ("norm_type", json!("ada_norm")),
        ("norm_elementwise_affine", json!(true)),
        ("patch_size", json!(3)),
        ("num_layers", json!(0)),
        ("cross_attention_dim", json!(768)),
        ("interpolation_scale", json!(0)),
        ("double_self_attention", json!(true)),
    ] {
        let error = refused(key, value);
        assert!(error.contains(key), "{key}: {error}");
    }
}

#[test]
fn the_requested_tensors_are_those_of_published_transformers() {
    for name in ["pixart-alpha-1024--transformer", "pixart-sigma-1024--transformer"] {
        let (config, published) = roots::manifest(name);
        let weights = Weights::outline("transformer");
        drop(PixArtTransformer2DModel::new(&PixArtTransformer2DConfig::read(name, &config).unwrap(), &weights));
        assert_eq!(weights.requested(), published, "{name}");
    }
}
