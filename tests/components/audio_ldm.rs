//! Tests of the networks of AudioLDM: text encoder, tokenizer, U-Net, autoencoder of spectrograms, and vocoder. Only
//! the complete fixtures have them.

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
        AutoencoderKl, ClapTextModel, HifiGan, RobertaTokenizer, UNet2DConditionModel,
        autoencoder_kl::{AutoencoderKlConfig, current_name},
        clap_text::ClapTextConfig,
        control_net::Residuals,
        hifi_gan::HifiGanConfig,
        pause::ToEnd,
        unet2d_condition::{Conditions, UNet2DConditionConfig},
    },
    weights::{LoadError, ModelFolder, Weights, as_stored},
};

use crate::{
    fixtures::{Copy, assert_close, bits, noise, parity, pipeline_folder, prompts, tensors},
    roots,
};

const PIPELINE: &str = "audioldm";
const UNET: &str = "diffusion_pytorch_model";

fn is_there() -> bool {
    let is_there = parity().join("pipelines").join(PIPELINE).is_dir();
    if !is_there {
        assert!(std::env::var_os("LATENTD_PARITY_DIR").is_none(), "the fixtures have no {PIPELINE}");
        println!("no {PIPELINE}: LATENTD_PARITY_DIR does not name the complete fixtures");
    }
    is_there
}

struct Networks {
    tokenizer: RobertaTokenizer,
    text_encoder: ClapTextModel,
    unet: UNet2DConditionModel,
    vae: AutoencoderKl,
    vocoder: HifiGan,
    vocoder_config: HifiGanConfig,
}

impl Networks {
    fn load(root: &Path, kernels: Kernels) -> Result<Self, LoadError> {
        let (folder, device) = (pipeline_folder(root)?, Device::host().with_kernels(kernels));
        let json = |part: &str| folder.json(&format!("{part}/config.json"));
        let open = |part: &str, stem: &str| match part {
            "vae" => Weights::open(&folder, part, stem, &device, current_name),
            _ => Weights::open(&folder, part, stem, &device, as_stored),
        };
        let text = ClapTextConfig::read("text_encoder/config.json", &json("text_encoder")?)?;
        let weights = open("text_encoder", "model")?;
        let text_encoder = ClapTextModel::new(&text, &weights);
        weights.finish()?;
        let weights = open("unet", UNET)?;
        let config = UNet2DConditionConfig::read_for_vector("unet/config.json", &json("unet")?)?;
        let unet = UNet2DConditionModel::new(&config, &weights);
        weights.finish()?;
        let weights = open("vae", UNET)?;
        let vae = AutoencoderKl::new(&AutoencoderKlConfig::read("vae/config.json", &json("vae")?)?, &weights);
        weights.finish()?;
        let weights = open("vocoder", "model")?;
        let vocoder_config = HifiGanConfig::read("vocoder/config.json", &json("vocoder")?)?;
        let vocoder = HifiGan::new(&vocoder_config, &weights);
        weights.finish()?;
        let tokenizer = RobertaTokenizer::load(&folder, "tokenizer", text.longest())?;
        Ok(Self { tokenizer, text_encoder, unet, vae, vocoder, vocoder_config })
    }

    fn fixture() -> Self {
        Self::load(&parity().join("pipelines").join(PIPELINE), Kernels::default()).unwrap()
    }

    fn waveform(&self, spectrograms: &Tensor) -> Tensor {
        let rows = self.vocoder.forward(spectrograms).to_end().unwrap();
        let shape = (rows.len(), rows[0].len());
        Tensor::from_vec(rows.concat(), shape, &candle_core::Device::Cpu).unwrap()
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
    let without_json = Copy::of(PIPELINE);
    fs::remove_file(without_json.path("tokenizer/tokenizer.json")).unwrap();
    for root in [parity().join("pipelines").join(PIPELINE), without_json.0.path().to_owned()] {
        let tokenizer = RobertaTokenizer::load(&ModelFolder::open(&root).unwrap(), "tokenizer", 512).unwrap();
        for ((prompt, ids), mask) in prompts().iter().zip(&ids).zip(&mask) {
            let expected: Vec<i64> = ids.iter().zip(mask).filter(|(_, kept)| **kept == 1).map(|(id, _)| *id).collect();
            let made: Vec<i64> = tokenizer.encode(prompt, 48).into_iter().map(i64::from).collect();
            assert_eq!(made, expected, "{prompt:?}");
        }
        let long = tokenizer.encode(&"rain ".repeat(2000), usize::MAX);
        assert_eq!((long.len(), long[0], long[511]), (512, 0, 2), "a long text is cut, and its end stays");
    }
}

#[test]
fn networks_equal_diffusers() {
    if !is_there() {
        return;
    }
    let golden = golden();
    for kernels in [Kernels::default(), Kernels::REFERENCE] {
        let networks = Networks::load(&parity().join("pipelines").join(PIPELINE), kernels).unwrap();
        let ids: Vec<Vec<u32>> = prompts().iter().map(|prompt| networks.tokenizer.encode(prompt, 48)).collect();
        let rows: Vec<&[u32]> = ids.iter().map(Vec::as_slice).collect();
        let states = networks.text_encoder.states(&rows).to_end().unwrap();
        for (row, ids) in ids.iter().enumerate() {
            let of = |x: &Tensor| x.get(row).unwrap().narrow(0, 0, ids.len()).unwrap();
            assert_close(&of(&states), &of(&golden["text_encoder.last_hidden_state"]), "last_hidden_state");
        }
        let embeds = &golden["text_encoder.text_embeds"];
        let lengths = embeds.sqr().unwrap().sum_keepdim(1).unwrap().sqrt().unwrap();
        let made = networks.text_encoder.forward(&rows).to_end().unwrap();
        assert_close(&made, &embeds.broadcast_div(&lengths).unwrap(), "text_embeds");

        for t in [7f32, 951.0] {
            let times = [t; 2];
            let conditions = Conditions::of_vector(&times, &golden["unet.class_labels"]);
            let made = networks.unet.forward(&golden["unet.sample"], &conditions, Residuals::NONE).to_end().unwrap();
            assert_close(&made, &golden[&format!("unet.out.t{t}")], &format!("unet.out.t{t}"));
        }
        let moments = networks.vae.encode(&golden["vae.mel"]).to_end().unwrap();
        assert_close(&moments.mean, &golden["vae.mean"], "vae.mean");
        assert_close(&moments.logvar, &golden["vae.logvar"], "vae.logvar");
        let decoded = networks.vae.decode(&golden["vae.latent"]).to_end().unwrap();
        assert_close(&decoded, &golden["vae.decoded"], "vae.decoded");
        assert_close(&networks.waveform(&golden["vocoder.mel"]), &golden["vocoder.waveform"], "vocoder.waveform");
    }
}

#[test]
fn the_number_of_samples_is_known_before() {
    if !is_there() {
        return;
    }
    let networks = Networks::fixture();
    for frames in [1, 4, 20, 33] {
        let samples = networks.waveform(&noise(&[1, frames, 32], 1)).dim(1).unwrap();
        assert_eq!(samples, networks.vocoder_config.samples(frames), "{frames} frames");
        assert_eq!(samples, 40 * frames + 8, "{frames} frames");
    }
}

#[test]
fn rows_do_not_depend_on_the_batch() {
    if !is_there() {
        return;
    }
    let networks = Networks::fixture();
    let (latents, vectors) = (noise(&[5, 8, 9, 8], 1), noise(&[5, 32], 2));
    let spectrograms = noise(&[5, 36, 32], 3);
    let t: Vec<f32> = (0..5).map(|i| 999.0 - 161.3 * i as f32).collect();
    let ids: Vec<Vec<u32>> = (0..5).map(|i| networks.tokenizer.encode(&"a dog barks ".repeat(7 * i), 512)).collect();
    let rows = |first: usize, count: usize| {
        let of = |x: &Tensor| x.narrow(0, first, count).unwrap().contiguous().unwrap();
        let texts: Vec<&[u32]> = ids[first..first + count].iter().map(Vec::as_slice).collect();
        let vectors = of(&vectors);
        let conditions = Conditions::of_vector(&t[first..first + count], &vectors);
        let denoised = networks.unet.forward(&of(&latents), &conditions, Residuals::NONE).to_end().unwrap();
        let text = networks.text_encoder.forward(&texts).to_end().unwrap();
        [denoised, text, networks.waveform(&of(&spectrograms))]
    };
    let together = rows(0, 5);
    for row in 0..5 {
        for (alone, together) in rows(row, 1).iter().zip(&together) {
            assert_eq!(bits(alone), bits(&together.narrow(0, row, 1).unwrap()), "row {row}");
        }
    }
}

#[test]
fn the_requested_tensors_are_those_of_published_models() {
    for part in ["unet", "vae", "text_encoder", "vocoder"] {
        if std::env::var_os("LATENTD_PARITY_DIR").is_none() {
            println!("the compact fixtures have no manifests of AudioLDM");
            return;
        }
        let (config, mut published) = roots::manifest(&format!("audioldm-s--{part}"));
        let weights = Weights::outline(part);
        match part {
            "unet" => {
                let config = UNet2DConditionConfig::read_for_vector(part, &config).unwrap();
                drop(UNet2DConditionModel::new(&config, &weights));
            }
            "vae" => drop(AutoencoderKl::new(&AutoencoderKlConfig::read(part, &config).unwrap(), &weights)),
            "text_encoder" => drop(ClapTextModel::new(&ClapTextConfig::read(part, &config).unwrap(), &weights)),
            _ => drop(HifiGan::new(&HifiGanConfig::read(part, &config).unwrap(), &weights)),
        }
        published.retain(|name, _| !name.ends_with("embeddings.position_ids") && !name.ends_with("token_type_ids"));
        assert_eq!(weights.requested(), published.into_iter().collect::<BTreeMap<_, _>>(), "{part}");
    }
}

#[test]
fn a_text_network_refuses_the_configuration_of_a_vector_network_and_the_other_way_round() {
    if !is_there() {
        return;
    }
    let read = |pipeline: &str| {
        let folder = pipeline_folder(&parity().join("pipelines").join(pipeline)).unwrap();
        folder.json("unet/config.json").unwrap()
    };
    let refused = |error: LoadError| error.to_string();
    let error = refused(UNet2DConditionConfig::read("unet", &read(PIPELINE)).unwrap_err());
    assert!(error.contains("class_embed"), "{error}");
    let error = refused(UNet2DConditionConfig::read_for_vector("unet", &read("sd1")).unwrap_err());
    assert!(error.contains("class_embed_type"), "{error}");
    let mut keys = read(PIPELINE);
    keys["cross_attention_dim"] = 16.into();
    let error = refused(UNet2DConditionConfig::read_for_vector("unet", &keys).unwrap_err());
    assert!(error.contains("cross_attention_dim"), "{error}");
}
