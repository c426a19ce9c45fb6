//! Tests of the transformer of FLUX.1: comparisons with diffusers, and independence of the rows of a batch.

use std::path::{Path, PathBuf};

use candle_core::Tensor;
use latentd::{
    models::{
        FluxTransformer2DModel,
        adapters::RowAdapters,
        flux_transformer2d::{FluxConditions, FluxTransformer2DConfig},
        pause::ToEnd,
    },
    weights::{LoadError, Weights},
};
use serde_json::{Map, Value, json};

use crate::{
    fixtures::{Copy, assert_close, bits, noise, parity, pipeline_folder, tensors, vae},
    roots,
};

fn transformer(root: &Path) -> Result<(FluxTransformer2DModel, FluxTransformer2DConfig), LoadError> {
    let folder = pipeline_folder(root)?;
    let config = FluxTransformer2DConfig::read("transformer/config.json", &folder.json("transformer/config.json")?)?;
    let as_stored = |name: &str, shape: &[usize]| (name.to_owned(), shape.to_vec());
    let host = latentd::device::Device::host();
    let weights = Weights::open(&folder, "transformer", "diffusion_pytorch_model", &host, as_stored)?;
    let network = FluxTransformer2DModel::new(&config, &weights);
    weights.finish()?;
    Ok((network, config))
}

fn pipeline(name: &str) -> PathBuf {
    parity().join("pipelines").join(name)
}

/// Compares the first call of each case that stores its tensors.
#[test]
fn the_flux_transformer_equals_diffusers() {
    for (name, cases) in [("flux-dev", &["default"][..]), ("flux-schnell", &["steps_4"])] {
        let (network, _) = transformer(&pipeline(name)).unwrap();
        for case in cases {
            let golden = tensors(&parity().join(format!("cases/{name}/{case}/intermediates.safetensors")));
            let of = |part: &str| &golden[&format!("denoiser.0.{part}")];
            let ids = of("img_ids").to_vec2::<f32>().unwrap();
            let last = ids.last().unwrap();
            let grid = [last[1] as usize + 1, last[2] as usize + 1];
            let t: Vec<f32> = of("timestep").to_vec1::<f32>().unwrap().iter().map(|t| t * 1000.0).collect();
            let guidance = golden.get("denoiser.0.guidance").map(|guidance| guidance.to_vec1::<f32>().unwrap());
            let text = golden.get("denoiser.0.encoder_hidden_states").unwrap_or_else(|| &golden["encode_prompt.0"]);
            let conditions = FluxConditions {
                t: &t,
                guidance: guidance.as_deref(),
                text,
                pooled: of("pooled_projections"),
                adapters: RowAdapters::NONE,
            };
            let made = network.forward(of("hidden_states"), grid, conditions).to_end().unwrap();
            assert_close(&made, of("out"), &format!("{name}/{case}"));
        }
    }
}

#[test]
fn the_autoencoder_with_sixteen_channels_equals_diffusers() {
    let golden = tensors(&parity().join("components/flux-dev.safetensors"));
    let vae = vae("flux-dev");
    let moments = vae.encode(&golden["vae.image"]).to_end().unwrap();
    assert_close(&moments.mean, &golden["vae.mean"], "mean");
    assert_close(&moments.logvar, &golden["vae.logvar"], "logvar");
    assert_close(&vae.decode(&golden["vae.latent"]).to_end().unwrap(), &golden["vae.decoded"], "decoded");
}

#[test]
fn rows_of_the_flux_transformer_do_not_depend_on_other_rows() {
    let (network, config) = transformer(&pipeline("flux-dev")).unwrap();
    let (grid, tokens) = ([3, 5], 7);
    let x = noise(&[4, 15, config.in_channels], 1);
    let text = noise(&[4, tokens, config.joint_attention_dim], 2);
    let pooled = noise(&[4, config.pooled_projection_dim], 3);
    let (t, guidance) = ([1000.0, 3.5, 3.5, 640.25], [3.5, 0.0, 7.0, 3.5]);
    let run = |rows: std::ops::Range<usize>| {
        let of = |x: &Tensor| x.narrow(0, rows.start, rows.len()).unwrap().contiguous().unwrap();
        let (text, pooled) = (of(&text), of(&pooled));
        let conditions = FluxConditions {
            t: &t[rows.clone()],
            guidance: Some(&guidance[rows.clone()]),
            text: &text,
            pooled: &pooled,
            adapters: RowAdapters::NONE,
        };
        network.forward(&of(&x), grid, conditions).to_end().unwrap()
    };
    let together = run(0..4);
    for i in 0..4 {
        assert_eq!(bits(&run(i..i + 1)), bits(&together.narrow(0, i, 1).unwrap()), "row {i}");
    }
    assert_ne!(bits(&together.narrow(0, 1, 1).unwrap()), bits(&together.narrow(0, 2, 1).unwrap()));
}

#[test]
fn missing_and_unused_tensors_of_the_flux_transformer_are_named() {
    let copy = Copy::of("flux-dev");
    let file = copy.path("transformer/diffusion_pytorch_model.safetensors");
    let mut tensors = tensors(&file);
    let tensor = tensors.remove("norm_out.linear.bias").unwrap();
    tensors.insert("norm_in.linear.bias".to_owned(), tensor);
    candle_core::safetensors::save(&tensors, file).unwrap();
    let error = transformer(copy.0.path()).unwrap_err().to_string();
    assert!(error.contains("norm_out.linear.bias") && error.contains("norm_in.linear.bias"), "{error}");
}

#[test]
fn configurations_of_the_flux_transformer_are_honored_or_refused_by_key() {
    for (key, value) in [
        ("patch_size", json!(2)),
        ("axes_dims_rope", json!([16, 56])),
        ("axes_dims_rope", json!([16, 56, 57])),
        ("axes_dims_rope", json!([15, 57, 56])),
        ("attention_head_dim", json!(64)),
        ("num_layers", json!(0)),
        ("num_attention_heads", json!(1 << 20)),
        ("joint_attention_dim", json!(-1)),
        ("qk_norm", json!("layer_norm")),
    ] {
        let keys = Map::from_iter([(key.to_owned(), value)]);
        let error = FluxTransformer2DConfig::read("transformer/config.json", &keys).unwrap_err().to_string();
        assert!(error.contains(key) || key == "attention_head_dim", "{key}: {error}");
    }
    let keys = Map::from_iter([("patch_size".to_owned(), Value::from(1))]);
    assert_eq!(FluxTransformer2DConfig::read("", &keys).unwrap(), FluxTransformer2DConfig::default());
}

/// Compares with the names and shapes of the published networks.
#[test]
fn the_tensors_of_the_flux_transformer_are_those_of_published_networks() {
    for name in ["flux1-dev--transformer", "flux1-schnell--transformer"] {
        let (keys, tensors) = roots::manifest(name);
        let weights = Weights::outline("transformer");
        let config = FluxTransformer2DConfig::read(name, &keys).unwrap();
        drop(FluxTransformer2DModel::new(&config, &weights));
        assert_eq!(weights.requested(), tensors, "{name}");
    }
}
