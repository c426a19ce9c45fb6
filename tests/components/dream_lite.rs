//! Tests of the U-Net and the autoencoder of DreamLite: comparisons with diffusers, and independence of the rows of a
//! batch.

use std::path::{Path, PathBuf};

use candle_core::{DType, Tensor};
use latentd::{
    device::Device,
    models::{
        AutoencoderTiny, DreamLiteUNetModel,
        autoencoder_tiny::AutoencoderTinyConfig,
        dream_lite_unet::{DreamLiteConditions, DreamLiteUNetConfig},
        pause::ToEnd,
    },
    weights::{LoadError, Weights, as_stored},
};
use serde_json::json;

use crate::{
    fixtures::{Copy, assert_close, bits, noise, parity, pipeline_folder, tensors},
    qwen::has,
};

fn pipeline() -> PathBuf {
    parity().join("pipelines/dreamlite")
}

fn unet(root: &Path) -> Result<DreamLiteUNetModel, LoadError> {
    let folder = pipeline_folder(root)?;
    let path = "unet/config.json";
    let config = DreamLiteUNetConfig::read(path, &folder.json(path)?)?;
    let weights = Weights::open(&folder, "unet", "diffusion_pytorch_model", &Device::host(), as_stored)?;
    let network = DreamLiteUNetModel::new(&config, &weights);
    weights.finish()?;
    Ok(network)
}

fn vae(root: &Path) -> Result<AutoencoderTiny, LoadError> {
    let folder = pipeline_folder(root)?;
    let path = "vae/config.json";
    let config = AutoencoderTinyConfig::read_both(path, &folder.json(path)?)?;
    let weights = Weights::open(&folder, "vae", "diffusion_pytorch_model", &Device::host(), as_stored)?;
    let network = AutoencoderTiny::with_encoder(&config, &weights);
    weights.finish()?;
    Ok(network)
}

fn part(x: &Tensor, axis: usize, first: usize, count: usize) -> Tensor {
    x.narrow(axis, first, count).unwrap().contiguous().unwrap()
}

#[test]
fn the_unet_of_dream_lite_equals_diffusers() {
    if !has("dreamlite") {
        return;
    }
    let golden = tensors(&parity().join("components/dreamlite.safetensors"));
    let network = unet(&pipeline()).unwrap();
    let sample = &golden["unet.sample"];
    let half = sample.dim(3).unwrap() / 2;
    let mask = golden["unet.encoder_attention_mask"].to_dtype(DType::U32).unwrap().to_vec2::<u32>().unwrap();
    let lengths: Vec<usize> = mask.iter().map(|of_row| of_row.iter().sum::<u32>() as usize).collect();
    let texts = network.text(&golden["unet.encoder_hidden_states"]).unwrap();
    for (name, t) in [("unet.out.t7", 7.0), ("unet.out.t951", 951.0)] {
        let conditions = DreamLiteConditions {
            pictures: &part(sample, 3, half, half),
            t: &[t, t],
            texts: &texts,
            lengths: &lengths,
            size: [96.0, 64.0],
        };
        let made = network.forward(&part(sample, 3, 0, half), conditions).to_end().unwrap();
        assert_close(&made, &part(&golden[name], 3, 0, half), name);
    }
}

#[test]
fn a_row_of_dream_lite_has_the_same_bits_alone_and_in_a_batch() {
    if !has("dreamlite") {
        return;
    }
    let network = unet(&pipeline()).unwrap();
    let (samples, pictures) = (noise(&[3, 4, 6, 4], 1), noise(&[3, 4, 6, 4], 2));
    let (texts, lengths) = (network.text(&noise(&[3, 9, 32], 3)).unwrap(), [9, 1, 5]);
    let (t, size) = ([10.0, 500.0, 990.0], [32.0, 48.0]);
    let conditions = DreamLiteConditions { pictures: &pictures, t: &t, texts: &texts, lengths: &lengths, size };
    let together = network.forward(&samples, conditions).to_end().unwrap();
    for row in 0..3 {
        let [sample, picture] = [&samples, &pictures].map(|of| part(of, 0, row, 1));
        let text = part(&part(&texts, 0, row, 1), 1, 0, lengths[row]);
        let conditions = DreamLiteConditions {
            pictures: &picture,
            t: &t[row..=row],
            texts: &text,
            lengths: &lengths[row..=row],
            size,
        };
        let alone = network.forward(&sample, conditions).to_end().unwrap();
        assert_eq!(bits(&alone), bits(&part(&together, 0, row, 1)), "row {row}");
    }
}

#[test]
fn the_autoencoder_of_dream_lite_equals_diffusers() {
    if !has("dreamlite") {
        return;
    }
    let golden = tensors(&parity().join("components/dreamlite.safetensors"));
    let network = vae(&pipeline()).unwrap();
    assert_close(&network.encode(&golden["vae.image"]).to_end().unwrap(), &golden["vae.encoded"], "encoded");
    assert_close(&network.decode(&golden["vae.latent"]).to_end().unwrap(), &golden["vae.decoded"], "decoded");
}

#[test]
fn what_the_networks_of_dream_lite_do_not_support_is_an_error() {
    if !has("dreamlite") {
        return;
    }
    for (key, value) in [
        ("encoder_hid_dim_type", json!("text_proj")),
        ("addition_embed_type", json!("text_time")),
        ("qk_norm", json!(null)),
        ("num_mid_layers", json!(2)),
        ("num_kv_heads", json!(3)),
        ("ff_mult", json!(0)),
        ("down_block_types", json!(vec!["CrossAttnDownBlock2D"; 3])),
        ("projection_class_embeddings_input_dim", json!(24)),
        ("a_new_key", json!(1)),
    ] {
        let copy = Copy::of("dreamlite");
        copy.edit("unet/config.json", |config| config[key] = value);
        let error = unet(copy.0.path()).unwrap_err().to_string();
        assert!(error.contains(key), "{error}");
    }
    // The embedding of the time has four frequencies, and the embedding of the sizes has two.
    let copy = Copy::of("dreamlite");
    copy.edit("unet/config.json", |config| {
        config["addition_time_embed_dim"] = json!(4);
        config["projection_class_embeddings_input_dim"] = json!(8);
        config["freq_shift"] = json!(2);
    });
    let error = unet(copy.0.path()).unwrap_err().to_string();
    assert!(error.contains("freq_shift") && error.contains("addition_time_embed_dim"), "{error}");
    for (key, value) in [
        ("in_channels", json!(4)),
        ("encoder_block_out_channels", json!([8, 8, 8, 16])),
        ("num_encoder_blocks", json!([1, 3])),
        ("upsampling_scaling_factor", json!(3)),
    ] {
        let copy = Copy::of("dreamlite");
        copy.edit("vae/config.json", |config| config[key] = value);
        let error = vae(copy.0.path()).unwrap_err().to_string();
        assert!(error.contains(key), "{error}");
    }
}

/// Counts the weights of diffusers' default configuration, with the heads of Stable Diffusion XL and texts of Qwen3-VL.
#[test]
fn the_unet_of_dream_lite_is_small() {
    let keys = json!({
        "encoder_hid_dim_type": "text_proj_rms",
        "encoder_hid_dim": 2048,
        "addition_embed_type": "time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 512,
        "attention_head_dim": [5, 10, 20],
        "use_linear_projection": true,
    });
    let config = DreamLiteUNetConfig::read("unet/config.json", keys.as_object().unwrap()).unwrap();
    let weights = Weights::outline("unet");
    DreamLiteUNetModel::new(&config, &weights);
    let count: usize = weights.requested().values().map(|shape| shape.iter().product::<usize>()).sum();
    assert_eq!(count, 436_920_068);

    let [small, large] = [64, 128].map(|side| config.demand([side, side], 500));
    println!(
        "{:.0} and {:.0} MB, {:.2e} and {:.2e} multiplications",
        small.bytes as f64 / 1e6,
        large.bytes as f64 / 1e6,
        small.work,
        large.work
    );
    assert!((3.8..4.1).contains(&(large.bytes as f64 / small.bytes as f64)), "{small:?} {large:?}");
    let longer = config.demand([64, 64], 1000).bytes - small.bytes;
    assert_eq!(longer, 4 * 500 * (2048 + 2 * 1280), "the text, and its keys and values at the widest level");
    assert!(large.bytes < 1_000_000_000, "{large:?}");
    // Places attend to each other at the lowest level only.
    assert!((4.0..6.0).contains(&(large.work / small.work)), "{small:?} {large:?}");
}
