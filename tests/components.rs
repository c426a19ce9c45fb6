//! Tests of networks and model folders: comparisons with diffusers and transformers, and independence of the rows of a
//! batch.
//!
//! Fixtures come from `LATENTD_PARITY_DIR` if it is set, otherwise from `tests/fixtures/parity`.

#[path = "components/audio_ldm.rs"]
mod audio_ldm;
#[path = "components/classes.rs"]
mod classes;
#[path = "components/dream_lite.rs"]
mod dream_lite;
#[path = "components/fixtures.rs"]
mod fixtures;
#[path = "components/flux.rs"]
mod flux;
#[path = "components/flux2.rs"]
mod flux2;
#[path = "components/folders.rs"]
mod folders;
#[path = "support/originals.rs"]
mod originals;
#[path = "components/pixart.rs"]
mod pixart;
#[path = "components/prompts.rs"]
mod prompts;
#[path = "components/qwen.rs"]
mod qwen;
#[path = "components/qwen3_vl.rs"]
mod qwen3_vl;
#[path = "components/roots.rs"]
mod roots;
#[path = "components/safety.rs"]
mod safety;
#[path = "components/sd3.rs"]
mod sd3;
#[path = "components/stable_audio_3.rs"]
mod stable_audio_3;
#[path = "components/stable_video.rs"]
mod stable_video;
#[path = "components/t5.rs"]
mod t5;
#[path = "components/transformers.rs"]
mod transformers;
#[path = "components/wan.rs"]
mod wan;
#[path = "components/wan_vae.rs"]
mod wan_vae;

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

use candle_core::{DType, Tensor};
use fixtures::{
    Copy, assert_close, bits, load, noise, parity, pipeline_folder, prompts, tensors, tokens, vae, with_tiny_decoder,
};
use latentd::{
    diffusion::Latents,
    models::{
        AutoencoderKl, AutoencoderTiny, ClipTextModel, Spec, StableDiffusion, UNet2DConditionModel,
        autoencoder_kl::{AutoencoderKlConfig, Tiles, current_name},
        autoencoder_tiny::AutoencoderTinyConfig,
        clip_text::ClipTextConfig,
        control_net::Residuals,
        pause::ToEnd,
        text_encoders::{LearnedTokens, Tokens},
        unet2d_condition::{Conditions, UNet2DConditionConfig},
    },
    pipelines::{
        Activation, DenoiseRow, Denoised, Depth, Frame, NetworkError, Networks, Posterior, TextEmbedding,
        decoding::decode_alone,
    },
    weights::{ModelFolder, Weights},
};
use serde_json::json;

const PIPELINES: [&str; 2] = ["sd1", "sd2"];

// ---- comparisons with diffusers ----

#[test]
fn all_components_equal_diffusers() {
    let mut cases = 0;
    for pipeline in PIPELINES {
        let golden = tensors(&parity().join(format!("components/{pipeline}.safetensors")));
        let sd = load(&parity().join("pipelines").join(pipeline)).unwrap();
        let mut like = |made: &Tensor, name: &str| {
            assert_close(made, &golden[name], &format!("{pipeline} {name}"));
            cases += 1;
        };

        let ids: Vec<Tokens> = prompts().iter().map(|prompt| tokens(&sd, prompt)).collect();
        let expected = golden["tokenizer.input_ids"].to_vec2::<i64>().unwrap();
        assert_eq!(
            ids.iter().map(|tokens| tokens.ids[0].iter().map(|id| i64::from(*id)).collect()).collect::<Vec<Vec<i64>>>(),
            expected
        );

        like(&sd.encode_text(&ids, 0).to_end().unwrap().hidden, "text_encoder.last_hidden_state");
        for t in [7f32, 951.0] {
            let made = sd
                .denoise(
                    &golden["unet.sample"],
                    &Conditions::plain(&[t; 2], &golden["unet.encoder_hidden_states"]),
                    Residuals::NONE,
                )
                .to_end()
                .unwrap();
            like(&made, &format!("unet.out.t{t}"));
        }
        let vae = vae(pipeline);
        let moments = vae.encode(&golden["vae.image"]).to_end().unwrap();
        like(&moments.mean, "vae.mean");
        like(&moments.logvar, "vae.logvar");
        like(&vae.decode(&golden["vae.latent"]).to_end().unwrap(), "vae.decoded");
        let scaled = (&golden["vae.latent"] * 0.18215).unwrap();
        like(&sd.decode(&scaled).to_end().unwrap(), "vae.decoded");
    }
    println!("{cases} tensors equal diffusers', and the token ids of {} pipelines", PIPELINES.len());
    assert_eq!(cases, 14);
}

/// `tests/fixtures/tiles.safetensors` contains `vae.enable_tiling(); vae.decode(latents).sample` of diffusers for the
/// pipeline sd1 in half precision. A tile has 8 latent pixels.
#[test]
fn tiles_are_decoded_as_in_diffusers() {
    let golden = tensors(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiles.safetensors"));
    let tiled = golden["tiled"].to_dtype(DType::F32).unwrap(); // (1, 3, H, W)
    let (_, c, h, w) = golden["latents"].dims4().unwrap();
    let latents: Vec<f32> = golden["latents"].flatten_all().unwrap().to_vec1().unwrap();
    let networks = InTiles { vae: vae("sd1"), spec: load(&parity().join("pipelines/sd1")).unwrap().spec() };
    let latents = Latents::new([1, c, h, w], latents).unwrap();
    let Frame::Picture(picture) = decode_alone(&networks, &latents).unwrap().remove(0) else { panic!("a picture") };
    assert_eq!(tiled.dims(), [1, 3, picture.height as usize, picture.width as usize]);
    let expected = tiled.permute((0, 2, 3, 1)).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let level = |value: f32| (value / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0;
    let error = picture.pixels.iter().zip(&expected).map(|(made, value)| (f32::from(*made) - level(*value)).abs());
    let largest = error.fold(0.0, f32::max);
    println!("tiles: at most {largest} of 255 levels from diffusers");
    assert!(largest < 0.75, "more than rounding and half precision: {largest}");
}

/// An autoencoder that decodes all latents in tiles.
struct InTiles {
    vae: AutoencoderKl,
    spec: Spec,
}

#[async_trait::async_trait]
impl Networks for InTiles {
    fn spec(&self) -> Spec {
        self.spec.clone()
    }

    fn tokenize(&self, _prompts: &[&str], _: Option<u32>, _learned: &LearnedTokens) -> Tokens {
        Tokens::default()
    }

    async fn encode_text(&self, _prompts: &[Tokens], _clip_skip: u32) -> Result<Vec<TextEmbedding>, NetworkError> {
        Ok(Vec::new())
    }

    async fn denoise(&self, _: [usize; 3], _: Depth, _rows: &[DenoiseRow]) -> Result<Vec<Denoised>, NetworkError> {
        Ok(Vec::new())
    }

    async fn encode(&self, _: [usize; 2], _: &[Vec<f32>]) -> Result<Vec<Posterior>, NetworkError> {
        Ok(Vec::new())
    }

    fn tiles(&self, [h, w]: [usize; 2]) -> Tiles {
        Tiles::new(h, w, 8)
    }

    fn decode_stages(&self, [_, h, w]: [usize; 3]) -> Vec<f64> {
        vec![0.1; self.vae.decode_stages(h, w, 0.0).len()]
    }

    async fn decode(
        &self,
        [_, h, w]: [usize; 3],
        stage: usize,
        rows: &[Activation],
    ) -> Result<Vec<Activation>, NetworkError> {
        let layers = self.vae.decode_stages(h, w, 0.0)[stage].layers.clone();
        let decode =
            |row: &Activation| Activation(self.vae.decode_layers(layers.clone(), row.0.clone()).to_end().unwrap());
        Ok(rows.iter().map(decode).collect())
    }

    async fn decode_tiny(&self, _shape: [usize; 3], _rows: &[Vec<f32>]) -> Result<Vec<Frame>, NetworkError> {
        Ok(Vec::new())
    }
}

#[test]
fn the_tiny_decoder_equals_diffusers() {
    let golden = tensors(&parity().join("cases/sd1/taesd/intermediates.safetensors"));
    let made = with_tiny_decoder().load().unwrap().decode_tiny(&golden["vae.decode.in"]).to_end().unwrap();
    assert_close(&made, &golden["vae.decode.out"], "vae_tiny");
    let without = load(&parity().join("pipelines/sd1")).unwrap();
    assert!(!without.spec().tiny_decoder && without.decode_tiny(&golden["vae.decode.in"]).to_end().is_err());
}

#[test]
fn clip_skip_omits_layers_but_not_the_norm() {
    for pipeline in PIPELINES {
        let root = parity().join("pipelines").join(pipeline);
        let golden = tensors(&parity().join(format!("components/{pipeline}.safetensors")));
        let weights = tensors(&root.join("text_encoder/model.safetensors"));
        let sd = load(&root).unwrap();
        let norm = |part: &str| weights[&format!("text_model.final_layer_norm.{part}")].to_dtype(DType::F32).unwrap();
        let hidden = &golden["text_encoder.hidden_states.-2"];
        let expected = candle_nn::ops::layer_norm_slow(hidden, &norm("weight"), &norm("bias"), 1e-5).unwrap();
        let ids: Vec<Tokens> = prompts().iter().map(|prompt| tokens(&sd, prompt)).collect();
        assert_close(&sd.encode_text(&ids, 1).to_end().unwrap().hidden, &expected, pipeline);
        assert!(sd.encode_text(&ids, sd.spec().text_layers).to_end().is_ok());
        assert!(sd.encode_text(&ids, sd.spec().text_layers + 1).to_end().is_err());
    }
}

#[test]
fn the_requested_tensors_are_those_of_published_models() {
    let mut cases = 0;
    for model in ["sd15", "sd21"] {
        for part in ["unet", "vae", "vae-legacy-names", "text_encoder"] {
            if (model, part) == ("sd21", "vae-legacy-names") {
                continue; // The file is identical to that of sd15.
            }
            let (config, published) = roots::manifest(&format!("{model}--{part}"));
            let config = &config;
            let weights = Weights::outline(part);
            match part {
                "unet" => {
                    drop(UNet2DConditionModel::new(&UNet2DConditionConfig::read(part, config).unwrap(), &weights))
                }
                "text_encoder" => drop(ClipTextModel::new(&ClipTextConfig::read(part, config).unwrap(), &weights)),
                _ => drop(AutoencoderKl::new(&AutoencoderKlConfig::read(part, config).unwrap(), &weights)),
            }
            let known: BTreeMap<_, _> = match part {
                "vae-legacy-names" => published.iter().map(|(name, shape)| current_name(name, shape)).collect(),
                _ => published,
            };
            assert_eq!(weights.requested(), known, "{model} {part}");
            cases += 1;
        }
    }
    let (config, mut published) = roots::manifest("taesd--vae");
    published.retain(|name, _| name.starts_with("decoder."));
    let config = AutoencoderTinyConfig::read("vae_tiny", &config).unwrap();
    let weights = Weights::outline("vae_tiny");
    drop(AutoencoderTiny::new(&config, &weights));
    assert_eq!(weights.requested(), published, "taesd");
    cases += 1;
    println!("{cases} manifests of published models");
}

// ---- features kept between calls ----

#[test]
fn the_shallow_branch_with_features_of_the_same_call_equals_the_whole_network() {
    let wide = wide_model();
    for root in [parity().join("pipelines/sd1"), parity().join("pipelines/sd2"), wide.path().to_owned()] {
        let sd = load(&root).unwrap();
        let spec = sd.spec();
        let (latents, context) =
            (noise(&[3, spec.latent_channels, 6, 5], 1), noise(&[3, spec.context_length, spec.context_width], 2));
        let t = [901.0, 500.5, 3.0];
        let whole = sd.denoise(&latents, &Conditions::plain(&t, &context), Residuals::NONE).to_end().unwrap();
        let (same, features) =
            sd.denoise_keeping(&latents, &Conditions::plain(&t, &context), Residuals::NONE).to_end().unwrap();
        assert_eq!(bits(&same), bits(&whole));
        assert_eq!(features.dims()[..3], [3, 6, 5]);
        assert_eq!(
            bits(&sd.denoise_shallow(&latents, &Conditions::plain(&t, &context), &features).to_end().unwrap()),
            bits(&whole)
        );
        let later = sd
            .denoise_shallow(&latents, &Conditions::plain(&[881.0, 480.5, 2.0], &context), &features)
            .to_end()
            .unwrap();
        assert_ne!(bits(&later), bits(&whole));
        assert!(
            sd.denoise_shallow(&latents, &Conditions::plain(&t, &context), &features.narrow(0, 0, 2).unwrap())
                .to_end()
                .is_err()
        );
        assert!(
            sd.denoise_shallow(&latents, &Conditions::plain(&t, &context), &noise(&[3, 5, 5, features.dims()[3]], 1))
                .to_end()
                .is_err()
        );
    }
}

// ---- rows do not depend on other rows ----

#[test]
fn rows_do_not_depend_on_the_batch_or_the_number_of_threads() {
    let wide = wide_model();
    let tiny = with_tiny_decoder();
    let roots = [tiny.0.path().to_owned(), parity().join("pipelines/sd2"), wide.path().to_owned()];
    for (root, sizes) in roots.iter().zip([[(8, 8), (5, 7)], [(8, 8), (6, 5)], [(8, 8), (3, 5)]]) {
        let sd = load(root).unwrap();
        let spec = sd.spec();
        for (h, w) in sizes {
            let latents = noise(&[16, spec.latent_channels, h, w], 1);
            let context = noise(&[16, spec.context_length, spec.context_width], 2);
            let t: Vec<f32> = (0..16).map(|i| 999.0 - 61.3 * i as f32).collect();
            let (_, features) =
                sd.denoise_keeping(&latents, &Conditions::plain(&t, &context), Residuals::NONE).to_end().unwrap();
            let prompts: Vec<Tokens> = (0..16).map(|i| tokens(&sd, &"a fox and a dog ".repeat(i))).collect();
            let rows = |first: usize, count: usize| {
                let of = |x: &Tensor| x.narrow(0, first, count).unwrap();
                let times = &t[first..first + count];
                let (_, kept) = sd
                    .denoise_keeping(&of(&latents), &Conditions::plain(times, &of(&context)), Residuals::NONE)
                    .to_end()
                    .unwrap();
                [
                    kept,
                    sd.denoise_shallow(&of(&latents), &Conditions::plain(times, &of(&context)), &of(&features))
                        .to_end()
                        .unwrap(),
                    sd.encode_text(&prompts[first..first + count], 0).to_end().unwrap().hidden,
                    sd.denoise(&of(&latents), &Conditions::plain(times, &of(&context)), Residuals::NONE)
                        .to_end()
                        .unwrap(),
                    sd.decode(&of(&latents)).to_end().unwrap(),
                    if spec.tiny_decoder {
                        sd.decode_tiny(&of(&latents)).to_end()
                    } else {
                        sd.decode(&of(&latents)).to_end()
                    }
                    .unwrap(),
                ]
            };
            let alone: Vec<_> = (0..16).map(|i| rows(i, 1)).collect();
            for (threads, first, count) in
                [(1, 0, 2), (2, 0, 2), (1, 3, 5), (2, 3, 5), (1, 0, 16), (2, 0, 16), (1, 7, 1), (2, 7, 1)]
            {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let together = pool.install(|| rows(first, count));
                for i in 0..count {
                    for (network, (together, alone)) in
                        ["kept features", "shallow unet", "text", "unet", "vae", "vae_tiny"]
                            .iter()
                            .zip(together.iter().zip(&alone[first + i]))
                    {
                        assert_eq!(
                            bits(&together.narrow(0, i, 1).unwrap()),
                            bits(alone),
                            "{}: {network} at {h}×{w}, row {i} of {count}, {threads} threads",
                            root.display()
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn a_decode_in_stages_equals_a_decode_in_one_call() {
    let wide = wide_model();
    for (root, h, w) in [(parity().join("pipelines/sd1"), 6, 9), (wide.path().into(), 7, 4)] {
        let sd = load(&root).unwrap();
        let config = pipeline_folder(&root).unwrap().json("vae/config.json").unwrap();
        let weights = Weights::open(
            &pipeline_folder(&root).unwrap(),
            "vae",
            "diffusion_pytorch_model",
            &latentd::device::Device::host(),
            current_name,
        );
        let vae = AutoencoderKl::new(&AutoencoderKlConfig::read("vae", &config).unwrap(), &weights.unwrap());
        let latents = noise(&[3, sd.spec().latent_channels, h, w], 5);
        let whole = vae.decode(&latents).to_end().unwrap();
        let layers = vae.decode_stages(h, w, 0.0).len();
        assert!(layers >= 10, "every layer can be a stage: {layers}");
        assert_eq!(vae.decode_stages(h, w, f64::INFINITY).len(), 1);
        for quantum in [0.0, 2e5, 1e6, f64::INFINITY] {
            // Each stage runs for the last row alone, and for the other rows together.
            let mut pair = latents.narrow(0, 0, 2).unwrap();
            let mut alone = latents.narrow(0, 2, 1).unwrap();
            for stage in vae.decode_stages(h, w, quantum) {
                alone = vae.decode_layers(stage.layers.clone(), alone).to_end().unwrap();
                pair = vae.decode_layers(stage.layers, pair).to_end().unwrap();
            }
            let staged = Tensor::cat(&[pair, alone], 0).unwrap().permute((0, 3, 1, 2)).unwrap();
            assert_eq!(bits(&staged.contiguous().unwrap()), bits(&whole), "{quantum}");
        }
        assert!(vae.decode_layers(1..layers + 1, latents).to_end().is_err(), "the range exceeds the layers");
    }
}

#[test]
fn a_model_can_be_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<StableDiffusion>();
    shared::<ModelFolder>();
    shared::<Weights>();
}

#[test]
fn calls_that_do_not_fit_are_errors() {
    let sd = load(&parity().join("pipelines/sd1")).unwrap();
    let (latents, context) = (noise(&[2, 4, 8, 8], 1), noise(&[2, 77, 32], 2));
    assert!(sd.denoise(&latents, &Conditions::plain(&[1.0], &context), Residuals::NONE).to_end().is_err());
    assert!(
        sd.denoise(&latents, &Conditions::plain(&[1.0; 2], &noise(&[1, 77, 32], 2)), Residuals::NONE).to_end().is_err()
    );
    assert!(
        sd.denoise(&noise(&[2, 3, 8, 8], 1), &Conditions::plain(&[1.0; 2], &context), Residuals::NONE)
            .to_end()
            .is_err()
    );
    assert!(
        sd.denoise(&latents, &Conditions::plain(&[1.0; 2], &noise(&[2, 77, 31], 2)), Residuals::NONE).to_end().is_err()
    );
    assert!(sd.decode(&noise(&[1, 5, 8, 8], 1)).to_end().is_err());
    let of = |ids: Vec<u32>| Tokens { ids: vec![ids], ..Tokens::default() };
    assert!(sd.encode_text(&[of(vec![0; 78])], 0).to_end().is_err());
    assert!(sd.encode_text(&[of(vec![994; 77])], 0).to_end().is_err());
    assert!(sd.encode_text(&[of(vec![0; 77]), of(vec![0; 76])], 0).to_end().is_err());
    assert_eq!(sd.encode_text(&[of(vec![0; 5])], 0).to_end().unwrap().hidden.dims(), [1, 5, 32]);
}

/// sd1 with a wider U-Net and autoencoder. It has layers that sum more than 512 products and have at most 64 channels
/// and pixels, for which one product over the whole batch would change the bits of a row.
fn wide_model() -> tempfile::TempDir {
    let copy = Copy::of("sd1");
    copy.edit("unet/config.json", |config| {
        config["block_out_channels"] = json!([64, 64]);
        config["down_block_types"] = json!(["DownBlock2D", "CrossAttnDownBlock2D"]);
        config["up_block_types"] = json!(["CrossAttnUpBlock2D", "UpBlock2D"]);
        config["layers_per_block"] = json!(1);
    });
    copy.edit("vae/config.json", |config| {
        config["block_out_channels"] = json!([8, 64]);
        config["down_block_types"] = json!(["DownEncoderBlock2D"; 2].to_vec());
        config["up_block_types"] = json!(["UpDecoderBlock2D"; 2].to_vec());
    });
    let folder = ModelFolder::open(copy.0.path()).unwrap();
    for (part, file) in
        [("unet", "unet/diffusion_pytorch_model.safetensors"), ("vae", "vae/diffusion_pytorch_model.safetensors")]
    {
        let config = folder.json(&format!("{part}/config.json")).unwrap();
        let weights = Weights::outline(part);
        match part {
            "unet" => drop(UNet2DConditionModel::new(&UNet2DConditionConfig::read(part, &config).unwrap(), &weights)),
            _ => drop(AutoencoderKl::new(&AutoencoderKlConfig::read(part, &config).unwrap(), &weights)),
        }
        let made: HashMap<String, Tensor> = weights
            .requested()
            .into_iter()
            .enumerate()
            .map(|(seed, (name, shape))| {
                let inputs = shape[1..].iter().product::<usize>() as f64;
                (name, (noise(&shape, seed as u64) / inputs.sqrt()).unwrap())
            })
            .collect();
        candle_core::safetensors::save(&made, copy.path(file)).unwrap();
    }
    copy.0
}
