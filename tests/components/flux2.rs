//! Tests of the networks of FLUX.2 Klein: comparisons with diffusers, and independence of the rows of a batch.

use std::path::{Path, PathBuf};

use candle_core::{DType, Tensor};
use latentd::{
    device::Device,
    models::{
        AutoencoderKlFlux2, Flux2Transformer2DModel,
        adapters::RowAdapters,
        autoencoder_kl::current_name,
        autoencoder_kl_flux2::AutoencoderKlFlux2Config,
        flux2_transformer2d::{Flux2Transformer2DConfig, Position, References},
        pause::ToEnd,
    },
    weights::{LoadError, Weights},
};
use serde_json::json;

use crate::{
    fixtures::{Copy, assert_close, bits, noise, parity, pipeline_folder, tensors},
    qwen::has,
    roots,
};

fn pipeline() -> PathBuf {
    parity().join("pipelines/flux2-klein")
}

pub fn transformer(root: &Path) -> Result<Flux2Transformer2DModel, LoadError> {
    let folder = pipeline_folder(root)?;
    let path = "transformer/config.json";
    let config = Flux2Transformer2DConfig::read(path, &folder.json(path)?)?;
    let as_stored = |name: &str, shape: &[usize]| (name.to_owned(), shape.to_vec());
    let weights = Weights::open(&folder, "transformer", "diffusion_pytorch_model", &Device::host(), as_stored)?;
    let network = Flux2Transformer2DModel::new(&config, &weights);
    weights.finish()?;
    Ok(network)
}

/// (B, C, h, w) of tokens (B, h·w, C).
fn latents(tokens: &Tensor, [h, w]: [usize; 2]) -> Tensor {
    let (b, _, c) = tokens.dims3().unwrap();
    tokens.transpose(1, 2).unwrap().contiguous().unwrap().reshape((b, c, h, w)).unwrap()
}

#[test]
fn the_transformer_of_flux2_equals_diffusers() {
    if !has("flux2-klein") {
        return;
    }
    let golden = tensors(&parity().join("components/flux2-klein.safetensors"));
    let network = transformer(&pipeline()).unwrap();
    let ids = golden["transformer.img_ids"].to_dtype(DType::U32).unwrap().to_vec2::<u32>().unwrap();
    let positions: Vec<Position> = ids[12..].iter().map(|id| [id[0], id[1], id[2], id[3]]).collect();
    let sample = &golden["transformer.sample"];
    let references =
        References { tokens: sample.narrow(1, 12, 6).unwrap().contiguous().unwrap(), positions: vec![positions] };
    let noisy = latents(&sample.narrow(1, 0, 12).unwrap().contiguous().unwrap(), [3, 4]);
    let text = network.text(&golden["transformer.encoder_hidden_states"], RowAdapters::NONE).unwrap();
    for t in ["0.05", "0.9"] {
        let times = [t.parse::<f32>().unwrap() * 1000.0];
        let made = network.forward(&noisy, &times, &text, Some(&references), RowAdapters::NONE).to_end().unwrap();
        let wanted = golden[&format!("transformer.out.t{t}")].narrow(1, 0, 12).unwrap().contiguous().unwrap();
        assert_close(&made, &latents(&wanted, [3, 4]), &format!("at {t}"));
    }
}

#[test]
fn a_row_of_flux2_has_the_same_bits_alone_and_in_a_batch() {
    if !has("flux2-klein") {
        return;
    }
    let network = transformer(&pipeline()).unwrap();
    let (latents, states, tokens) = (noise(&[3, 128, 2, 5], 1), noise(&[3, 7, 72], 2), noise(&[3, 6, 128], 3));
    let texts: Vec<Tensor> = (0..3)
        .map(|row| network.text(&states.narrow(0, row, 1).unwrap().contiguous().unwrap(), RowAdapters::NONE).unwrap())
        .collect();
    // Each row has a reference of another shape, with as many tokens.
    let positions: Vec<Vec<Position>> = [[1, 6], [2, 3], [3, 2]]
        .iter()
        .map(|[h, w]| (0..*h).flat_map(|row| (0..*w).map(move |column| [10, row, column, 0])).collect())
        .collect();
    let references = References { tokens: tokens.clone(), positions: positions.clone() };
    let times = [10.0, 500.0, 990.0];
    let together = network
        .forward(&latents, &times, &Tensor::cat(&texts, 0).unwrap(), Some(&references), RowAdapters::NONE)
        .to_end()
        .unwrap();
    for row in 0..3 {
        let part = |x: &Tensor| x.narrow(0, row, 1).unwrap().contiguous().unwrap();
        let own = References { tokens: part(&tokens), positions: vec![positions[row].clone()] };
        let alone = network
            .forward(&part(&latents), &times[row..=row], &texts[row], Some(&own), RowAdapters::NONE)
            .to_end()
            .unwrap();
        assert_eq!(bits(&alone), bits(&part(&together)));
    }
}

#[test]
fn what_a_flux2_transformer_does_not_support_is_an_error() {
    if !has("flux2-klein") {
        return;
    }
    for (key, value) in [
        ("guidance_embeds", json!(true)),
        ("patch_size", json!(2)),
        ("out_channels", json!(64)),
        ("axes_dims_rope", json!([4, 4, 4, 6])),
        ("num_attention_heads", json!(1 << 20)),
        ("a_new_key", json!(1)),
    ] {
        let copy = Copy::of("flux2-klein");
        copy.edit("transformer/config.json", |config| config[key] = value);
        let error = transformer(copy.0.path()).unwrap_err().to_string();
        assert!(error.contains(key), "{error}");
    }
}

#[test]
fn the_published_networks_of_flux2_load_by_name_and_shape() {
    for name in ["flux2-klein-4b--transformer", "flux2-klein-9b--transformer"] {
        let (config, published) = roots::manifest(name);
        let config = Flux2Transformer2DConfig::read("config.json", &config).unwrap();
        let weights = Weights::outline("transformer");
        Flux2Transformer2DModel::new(&config, &weights);
        assert_eq!(weights.requested(), published, "{name}");
    }
    let (config, published) = roots::manifest("flux2--vae");
    let config = AutoencoderKlFlux2Config::read("config.json", &config).unwrap();
    let weights = Weights::outline("vae");
    AutoencoderKlFlux2::new(&config, &weights).unwrap();
    let current = |(name, shape): (&String, &Vec<usize>)| current_name(name, shape);
    let published = published.iter().filter(|(name, _)| *name != "bn.num_batches_tracked").map(current).collect();
    assert_eq!(weights.requested(), published);
}
