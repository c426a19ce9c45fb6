//! Tests of the networks of Stable Audio 3: text encoder, tokenizer, transformer, embedding of lengths, and decoder.
//! Only the complete fixtures have them.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
};

use candle_core::Tensor;
use latentd::{
    device::Device,
    kernels::Kernels,
    models::{
        AutoencoderSame, DurationEmbedder, GemmaTokenizer, StableAudio3DiTModel, T5GemmaEncoder,
        autoencoder_same::AutoencoderSameConfig,
        duration_embedder::DurationEmbedderConfig,
        pause::ToEnd,
        stable_audio_3_dit::{StableAudio3Conditions, StableAudio3DiTConfig},
        t5_gemma_encoder::T5GemmaConfig,
    },
    weights::{LoadError, ModelFolder, Weights, as_stored},
};

use crate::{
    fixtures::{Copy, assert_close, bits, noise, parity, pipeline_folder, prompts, tensors},
    roots,
};

const PIPELINE: &str = "stable-audio-3";
const WEIGHTS: &str = "diffusion_pytorch_model";

fn is_there() -> bool {
    let is_there = parity().join("pipelines").join(PIPELINE).is_dir();
    if !is_there {
        assert!(std::env::var_os("LATENTD_PARITY_DIR").is_none(), "the fixtures have no {PIPELINE}");
        println!("no {PIPELINE}: LATENTD_PARITY_DIR does not name the complete fixtures");
    }
    is_there
}

struct Networks {
    tokenizer: GemmaTokenizer,
    text_encoder: T5GemmaEncoder,
    duration_embedder: DurationEmbedder,
    transformer: StableAudio3DiTModel,
    vae: AutoencoderSame,
    vae_config: AutoencoderSameConfig,
}

impl Networks {
    fn load(root: &Path, kernels: Kernels) -> Result<Self, LoadError> {
        let (folder, device) = (pipeline_folder(root)?, Device::host().with_kernels(kernels));
        let json = |part: &str| folder.json(&format!("{part}/config.json"));
        let open = |part: &str, stem: &str| Weights::open(&folder, part, stem, &device, as_stored);
        let weights = open("text_encoder", "model")?;
        let text_encoder = T5GemmaEncoder::new(&T5GemmaConfig::read("text_encoder", &json("text_encoder")?)?, &weights);
        weights.finish()?;
        let weights = open("duration_embedder", WEIGHTS)?;
        let config = DurationEmbedderConfig::read("duration_embedder", &json("duration_embedder")?)?;
        let duration_embedder = DurationEmbedder::new(&config, &weights);
        weights.finish()?;
        let weights = open("transformer", WEIGHTS)?;
        let config = StableAudio3DiTConfig::read("transformer", &json("transformer")?)?;
        let transformer = StableAudio3DiTModel::new(&config, &weights);
        weights.finish()?;
        let weights = open("vae", WEIGHTS)?;
        let vae_config = AutoencoderSameConfig::read("vae", &json("vae")?)?;
        let vae = AutoencoderSame::new(&vae_config, &weights);
        weights.finish()?;
        let tokenizer = GemmaTokenizer::load(&folder, "tokenizer", 256)?;
        Ok(Self { tokenizer, text_encoder, duration_embedder, transformer, vae, vae_config })
    }

    fn fixture() -> Self {
        Self::load(&parity().join("pipelines").join(PIPELINE), Kernels::default()).unwrap()
    }

    fn durations(&self, seconds: &[f32]) -> Tensor {
        self.duration_embedder.forward(seconds, &candle_core::Device::Cpu).unwrap()
    }
}

fn golden() -> HashMap<String, Tensor> {
    tensors(&parity().join(format!("components/{PIPELINE}.safetensors")))
}

#[test]
fn ids_equal_those_of_transformers() {
    if !is_there() {
        return;
    }
    let golden = golden();
    let (ids, mask) = (&golden["tokenizer.input_ids"], &golden["tokenizer.attention_mask"]);
    let (ids, mask) = (ids.to_vec2::<i64>().unwrap(), mask.to_vec2::<i64>().unwrap());
    let folder = ModelFolder::open(&parity().join("pipelines").join(PIPELINE)).unwrap();
    let tokenizer = GemmaTokenizer::load(&folder, "tokenizer", 48).unwrap();
    for ((prompt, ids), mask) in prompts().iter().zip(&ids).zip(&mask) {
        let expected: Vec<i64> = ids.iter().zip(mask).filter(|(_, kept)| **kept == 1).map(|(id, _)| *id).collect();
        let made: Vec<i64> = tokenizer.encode(prompt).into_iter().map(i64::from).collect();
        assert_eq!(made, expected, "{prompt:?}");
    }
    let tokenizer = GemmaTokenizer::load(&folder, "tokenizer", 1000).unwrap();
    let long = tokenizer.encode(&"rain ".repeat(2000));
    assert_eq!((long.len(), long[0]), (256, 2), "a long text is cut at its end");
    assert_eq!(tokenizer.encode(""), [2]);
}

#[test]
fn networks_equal_diffusers() {
    if !is_there() {
        return;
    }
    let golden = golden();
    for kernels in [Kernels::default(), Kernels::REFERENCE] {
        let networks = Networks::load(&parity().join("pipelines").join(PIPELINE), kernels).unwrap();
        for (row, prompt) in prompts().iter().enumerate() {
            let mut ids = networks.tokenizer.encode(prompt);
            ids.truncate(48);
            let states = networks.text_encoder.forward(&ids).to_end().unwrap();
            let expected = golden["text_encoder.last_hidden_state"].get(row).unwrap();
            let expected = expected.narrow(0, 48 - ids.len(), ids.len()).unwrap();
            assert_close(&states, &expected, "last_hidden_state");
        }
        let seconds: Vec<f32> = golden["duration_embedder.seconds"].to_vec1().unwrap();
        assert_close(&networks.durations(&seconds), &golden["duration_embedder.out"], "duration_embedder");

        let mask = golden["transformer.encoder_attention_mask"].unsqueeze(2).unwrap();
        let states = &golden["transformer.encoder_hidden_states"];
        let padding = networks.transformer.padding().broadcast_as(states.shape()).unwrap();
        let context = mask.broadcast_as(states.shape()).unwrap().where_cond(states, &padding).unwrap();
        for t in [0.1f32, 0.9] {
            let (times, global) = ([t; 2], &golden["transformer.global_hidden_states"]);
            let conditions = StableAudio3Conditions { t: &times, context: &context, global };
            let made = networks.transformer.forward(&golden["transformer.sample"], &conditions).to_end().unwrap();
            assert_close(&made, &golden[&format!("transformer.out.t{t}")], &format!("transformer.out.t{t}"));
        }
        let decoded = networks.vae.decode(&golden["vae.latent"]).to_end().unwrap();
        assert_eq!(decoded.dim(1).unwrap(), 5 * networks.vae_config.samples_per_latent());
        assert_close(&decoded.transpose(1, 2).unwrap(), &golden["vae.decoded"], "vae.decoded");
    }
}

#[test]
fn rows_do_not_depend_on_the_batch() {
    if !is_there() {
        return;
    }
    let networks = Networks::fixture();
    let (latents, contexts) = (noise(&[5, 16, 70], 1), noise(&[5, 9, 32], 2));
    let t: Vec<f32> = (0..5).map(|i| 0.99 - 0.163 * i as f32).collect();
    let seconds: Vec<f32> = (0..5).map(|i| 0.5 + 7.0 * i as f32).collect();
    let rows = |first: usize, count: usize| {
        let of = |x: &Tensor| x.narrow(0, first, count).unwrap().contiguous().unwrap();
        let global = networks.durations(&seconds[first..first + count]);
        let context = of(&contexts);
        let conditions = StableAudio3Conditions { t: &t[first..first + count], context: &context, global: &global };
        let denoised = networks.transformer.forward(&of(&latents), &conditions).to_end().unwrap();
        let decoded = networks.vae.decode(&of(&latents)).to_end().unwrap();
        [denoised, decoded, global]
    };
    let together = rows(0, 5);
    for row in 0..5 {
        for (alone, together) in rows(row, 1).iter().zip(&together) {
            assert_eq!(bits(alone), bits(&together.narrow(0, row, 1).unwrap()), "row {row}");
        }
    }
}

/// A place of the decoder depends only on the latents around it, because its attention has a window.
#[test]
fn the_decoder_reads_latents_in_its_window() {
    if !is_there() {
        return;
    }
    let networks = Networks::fixture();
    let latents = noise(&[1, 16, 40], 3);
    let changed = latents.narrow(2, 0, 20).unwrap();
    let changed = Tensor::cat(&[changed, noise(&[1, 16, 20], 4)], 2).unwrap();
    let decode = |latents: &Tensor| networks.vae.decode(latents).to_end().unwrap();
    let (one, other) = (decode(&latents), decode(&changed));
    let per_latent = networks.vae_config.samples_per_latent();
    // Each of the three layers sees one segment more.
    let same = |latents: usize| {
        let of = |x: &Tensor| bits(&x.narrow(1, 0, latents * per_latent).unwrap().contiguous().unwrap());
        of(&one) == of(&other)
    };
    assert!(same(16) && !same(20));
}

#[test]
fn the_requested_tensors_are_those_of_published_models() {
    if std::env::var_os("LATENTD_PARITY_DIR").is_none() {
        println!("the compact fixtures have no manifests of Stable Audio 3");
        return;
    }
    for name in ["stable-audio-3-medium--transformer", "same-s--vae", "same-l--vae"] {
        let (config, mut published) = roots::manifest(name);
        let weights = Weights::outline(name);
        if name.ends_with("transformer") {
            drop(StableAudio3DiTModel::new(&StableAudio3DiTConfig::read(name, &config).unwrap(), &weights));
        } else {
            drop(AutoencoderSame::new(&AutoencoderSameConfig::read(name, &config).unwrap(), &weights));
        }
        // An outline has the weight of a convolution in place of its direction and length.
        published.retain(|name, _| !name.ends_with(".weight_g"));
        let published = published.into_iter().map(|(name, shape)| (name.replace(".weight_v", ".weight"), shape));
        let is_unused = |name: &str| {
            name.starts_with("encoder.")
                || name.contains(".to_local_embed.")
                || ["bottleneck.scale", "bottleneck.bias"].contains(&name)
        };
        let used = published.filter(|(name, _)| !is_unused(name)).collect::<BTreeMap<_, _>>();
        assert_eq!(weights.requested(), used, "{name}");
    }
}

#[test]
fn files_that_do_not_fit_are_refused() {
    if !is_there() {
        return;
    }
    let refused = |edit: &dyn Fn(&Copy)| {
        let copy = Copy::of(PIPELINE);
        edit(&copy);
        Networks::load(copy.0.path(), Kernels::default()).err().expect("the folder is refused").to_string()
    };
    let config = |part: &str, key: &'static str, value: serde_json::Value| {
        let path = format!("{part}/config.json");
        refused(&|copy| copy.edit(&path, |json| json[key] = value.clone()))
    };
    for (part, key, value) in [
        ("transformer", "patch_size", 2.into()),
        ("transformer", "num_heads", 3.into()),
        ("vae", "patch_size", 0.into()),
        ("vae", "encoder_strides", serde_json::json!([4, 4])),
        ("duration_embedder", "fourier_dim", 31.into()),
    ] {
        let error = config(part, key, value);
        assert!(error.contains(key) || error.contains("encoder_c_mults"), "{error}");
    }
    let error =
        refused(&|copy| copy.edit("text_encoder/config.json", |json| json["encoder"]["is_decoder"] = true.into()));
    assert!(error.contains("is_decoder"), "{error}");
    let error = refused(&|copy| {
        copy.edit("tokenizer/tokenizer_config.json", |json| json["tokenizer_class"] = "LlamaTokenizer".into());
    });
    assert!(error.contains("tokenizer_class"), "{error}");
    let error = refused(&|copy| fs::remove_file(copy.path("tokenizer/tokenizer.json")).unwrap());
    assert!(error.contains("tokenizer.json"), "{error}");
    let error = refused(&|copy| {
        copy.edit_tensors("vae/diffusion_pytorch_model.safetensors", |tensors| {
            tensors.remove("decoder.proj.bias").unwrap();
        });
    });
    assert!(error.contains("decoder.proj.bias"), "{error}");
}
