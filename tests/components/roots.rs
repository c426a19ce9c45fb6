//! Tests of the networks of unconditional and class-conditional models: `UNet2DModel` and `VQModel`.

use std::{collections::BTreeMap, fs, io::Read};

use candle_core::Tensor;
use latentd::{
    device::Device,
    models::{
        UNet2DModel, VqModel, autoencoder_kl::current_name, pause::ToEnd, unet2d::UNet2DConfig, vq_model::VqModelConfig,
    },
    weights::{LoadError, Weights},
};
use serde_json::{Map, Value, json};

use crate::fixtures::{assert_close, bits, noise, parity, pipeline_folder, tensors};

const FILE: &str = "diffusion_pytorch_model";

fn unet(pipeline: &str) -> UNet2DModel {
    let folder = pipeline_folder(&parity().join("pipelines").join(pipeline)).unwrap();
    let config = UNet2DConfig::read("unet/config.json", &folder.json("unet/config.json").unwrap()).unwrap();
    let weights = Weights::open(&folder, "unet", FILE, &Device::host(), current_name).unwrap();
    let unet = UNet2DModel::new(&config, &weights);
    weights.finish().unwrap();
    unet
}

fn vqvae(pipeline: &str) -> VqModel {
    let folder = pipeline_folder(&parity().join("pipelines").join(pipeline)).unwrap();
    let config = VqModelConfig::read("vqvae/config.json", &folder.json("vqvae/config.json").unwrap()).unwrap();
    let weights = Weights::open(&folder, "vqvae", FILE, &Device::host(), current_name).unwrap();
    let vqvae = VqModel::new(&config, &weights);
    weights.finish().unwrap();
    vqvae
}

#[test]
fn unets_equal_diffusers() {
    let golden = |pipeline: &str| tensors(&parity().join(format!("components/{pipeline}.safetensors")));
    for pipeline in ["ddpm", "ldm-uncond", "consistency"] {
        let (unet, golden) = (unet(pipeline), golden(pipeline));
        let labels = golden.get("unet.class_labels").map(|labels| labels.to_vec1::<i64>().unwrap());
        let labels: Option<Vec<u32>> = labels.map(|labels| labels.into_iter().map(|label| label as u32).collect());
        for t in [7.0f32, 951.0] {
            let made = unet.forward(&golden["unet.sample"], &[t; 2], labels.as_deref()).to_end().unwrap();
            assert_close(&made, &golden[&format!("unet.out.t{t}")], &format!("{pipeline} t {t}"));
        }
    }
    let (unet, golden) = (unet("score-sde-ve"), golden("score-sde-ve"));
    for sigma in [0.05f32, 1.0, 30.0] {
        let sample = (&golden["unet.sample"] * f64::from(sigma)).unwrap();
        let made = unet.forward(&sample, &[sigma; 2], None).to_end().unwrap();
        assert_close(&made, &golden[&format!("unet.out.sigma{sigma:?}")], &format!("score-sde-ve sigma {sigma}"));
    }
}

#[test]
fn vq_autoencoders_equal_diffusers() {
    let golden = tensors(&parity().join("components/ldm-uncond.safetensors"));
    let vqvae = vqvae("ldm-uncond");
    let latent = &golden["vqvae.latent"];
    assert_close(&vqvae.encode(&golden["vqvae.image"]).to_end().unwrap(), &golden["vqvae.encoded"], "encoded");
    let expected: Vec<i64> = golden["vqvae.indices"].flatten_all().unwrap().to_vec1().unwrap();
    assert_eq!(vqvae.indices(latent).unwrap().into_iter().map(i64::from).collect::<Vec<_>>(), expected);
    let codes = vqvae.quantize(latent).unwrap();
    assert_close(&codes, &golden["vqvae.quantized"], "quantized");
    assert_close(&vqvae.decode(&codes).to_end().unwrap(), &golden["vqvae.decoded"], "decoded");
    let plain = vqvae.decode(latent).to_end().unwrap();
    assert_close(&plain, &golden["vqvae.decoded_not_quantized"], "decoded without codes");

    let (_, _, h, w) = latent.dims4().unwrap();
    let stages = vqvae.decode_stages(h, w, 0.0);
    let in_stages =
        stages.iter().fold(codes, |x, stage| vqvae.decode_layers(stage.layers.clone(), x).to_end().unwrap());
    assert!(stages.len() > 10, "each layer is a stage: {}", stages.len());
    let in_stages = in_stages.permute((0, 3, 1, 2)).unwrap();
    assert_close(&in_stages, &golden["vqvae.decoded"], "decoded in stages");
    assert!(vqvae.indices(&noise(&[1, 2, 4, 4], 1)).is_err(), "codes have 3 channels");
}

/// A row has the same bits alone and in a batch.
#[test]
fn rows_do_not_depend_on_other_rows() {
    for pipeline in ["ddpm", "ldm-uncond", "consistency", "score-sde-ve"] {
        let unet = unet(pipeline);
        let (samples, times) = (noise(&[3, 3, 16, 24], 5), [801.0f32, 13.0, 250.0]);
        let labels = (pipeline == "consistency").then_some([4u32, 0, 9]);
        let together = unet.forward(&samples, &times, labels.as_ref().map(|labels| &labels[..])).to_end().unwrap();
        for i in 0..3 {
            let row = |x: &Tensor| x.narrow(0, i, 1).unwrap();
            let labels = labels.as_ref().map(|labels| &labels[i..=i]);
            let alone = unet.forward(&row(&samples), &times[i..=i], labels).to_end().unwrap();
            assert_eq!(bits(&alone), bits(&row(&together)), "{pipeline} row {i}");
        }
    }
    let (vqvae, latents) = (vqvae("ldm-uncond"), noise(&[2, 3, 5, 4], 6));
    let decode = |latents: &Tensor| vqvae.decode(&vqvae.quantize(latents).unwrap()).to_end().unwrap();
    let together = decode(&latents);
    for i in 0..2 {
        let row = |x: &Tensor| x.narrow(0, i, 1).unwrap();
        assert_eq!(bits(&decode(&row(&latents))), bits(&row(&together)), "VQ row {i}");
    }
}

#[test]
fn invalid_inputs_of_a_unet_are_errors() {
    let sample = noise(&[1, 3, 16, 16], 1);
    let (plain, with_classes) = (unet("ddpm"), unet("consistency"));
    assert!(plain.forward(&sample, &[1.0], None).to_end().is_ok());
    assert!(plain.forward(&sample, &[1.0], Some(&[1])).to_end().is_err(), "no classes");
    assert!(plain.forward(&sample, &[1.0, 2.0], None).to_end().is_err(), "two times for one row");
    assert!(plain.forward(&noise(&[1, 3, 16, 12], 1), &[1.0], None).to_end().is_err(), "12 is not a multiple of 8");
    assert!(with_classes.forward(&sample, &[1.0], None).to_end().is_err(), "a class is required");
    assert!(with_classes.forward(&sample, &[1.0], Some(&[10])).to_end().is_err(), "classes are 0 to 9");
}

// ---- configurations ----

/// The configuration of a published network in full size, and the names and shapes of its tensors.
pub fn manifest(name: &str) -> (Map<String, Value>, BTreeMap<String, Vec<usize>>) {
    let file = fs::File::open(parity().join(format!("manifests/{name}.json.gz"))).unwrap();
    let mut text = String::new();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
    let manifest: Value = serde_json::from_str(&text).unwrap();
    (manifest["config"].as_object().unwrap().clone(), serde_json::from_value(manifest["tensors"].clone()).unwrap())
}

#[test]
fn the_requested_tensors_are_those_of_published_models() {
    let unets = ["ddpm-cifar10-32--unet", "ldm-celebahq-256--unet", "ncsnpp-256--unet"];
    let legacy = ["ddpm-cifar10-32--unet-legacy-names", "ldm-celebahq-256--unet-legacy-names"];
    for name in unets.into_iter().chain(legacy) {
        let (config, tensors) = manifest(name);
        let weights = Weights::outline("unet");
        drop(UNet2DModel::new(&UNet2DConfig::read(name, &config).unwrap(), &weights));
        let known: BTreeMap<_, _> = tensors.iter().map(|(name, shape)| current_name(name, shape)).collect();
        assert_eq!(weights.requested(), known, "{name}");
    }
    for name in ["ldm-celebahq-256--vqvae", "ldm-celebahq-256--vqvae-legacy-names"] {
        let (config, tensors) = manifest(name);
        let weights = Weights::outline("vqvae");
        drop(VqModel::new(&VqModelConfig::read(name, &config).unwrap(), &weights));
        let known: BTreeMap<_, _> = tensors.iter().map(|(name, shape)| current_name(name, shape)).collect();
        assert_eq!(weights.requested(), known, "{name}");
    }
}

#[test]
fn configurations_are_honored_or_refused_by_name() {
    let read = |edit: Value| {
        let mut keys = json!({
            "block_out_channels": [32, 64], "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
            "up_block_types": ["AttnUpBlock2D", "UpBlock2D"], "sample_size": 24, "dropout": 0.1,
        });
        keys.as_object_mut().unwrap().extend(edit.as_object().unwrap().clone());
        UNet2DConfig::read("unet/config.json", keys.as_object().unwrap())
    };
    let skips = json!({"down_block_types": ["SkipDownBlock2D", "AttnSkipDownBlock2D"], "norm_num_groups": null,
        "up_block_types": ["AttnSkipUpBlock2D", "SkipUpBlock2D"], "time_embedding_type": "fourier"});
    for good in [
        json!({}),
        json!({"attention_head_dim": null, "norm_num_groups": null, "mid_block_type": null}),
        json!({"time_embedding_type": "learned", "num_train_timesteps": 40}),
        json!({"resnet_time_scale_shift": "scale_shift", "class_embed_type": "timestep", "num_class_embeds": 3}),
        skips.clone(),
    ] {
        let config = read(good.clone()).unwrap_or_else(|error| panic!("{good}: {error}"));
        assert!(config.demand([24, 24]).work > 0.0 && config.unit() == 2);
        drop(UNet2DModel::new(&config, &Weights::outline("unet")));
    }
    let with = |edit: Value| {
        let mut keys = skips.as_object().unwrap().clone();
        keys.extend(edit.as_object().unwrap().clone());
        Value::Object(keys)
    };
    for (bad, key) in [
        (json!({"act_fn": "mish"}), "act_fn"),
        (json!({"class_embed_type": "identity"}), "class_embed_type"),
        (json!({"norm_num_groups": 48}), "norm_num_groups"),
        (json!({"attention_head_dim": 48}), "attention_head_dim"),
        (json!({"down_block_types": ["DownBlock2D"]}), "down_block_types"),
        (json!({"down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"]}), "down_block_types"),
        (json!({"down_block_types": ["DownBlock2D", "SkipDownBlock2D"]}), "down_block_types"),
        (json!({"sample_size": 25}), "sample_size"),
        (json!({"time_embedding_type": "learned"}), "num_train_timesteps"),
        (json!({"freq_shift": 16}), "freq_shift"),
        (json!({"downsample_padding": 2}), "downsample_padding"),
        (json!({"block_out_channels": []}), "`block_out_channels`: must have 1 to 12 entries, not 0"),
        (json!({"wavelets": true}), "wavelets"),
        (with(json!({"in_channels": 4})), "in_channels"),
        (with(json!({"out_channels": 6})), "out_channels"),
        (with(json!({"block_out_channels": [32, 48]})), "norm_num_groups"),
    ] {
        let error: LoadError = read(bad.clone()).expect_err(&bad.to_string());
        assert!(error.to_string().contains(key), "{bad}: {error}");
    }
}
