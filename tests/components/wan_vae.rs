//! Tests of the autoencoder of Wan: comparisons with diffusers, and the pieces of a film.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use latentd::{
    models::{
        AutoencoderKlWan,
        autoencoder_kl_wan::{AutoencoderKlWanConfig, FilmState},
        pause::ToEnd,
    },
    weights::{ModelFolder, Weights, as_stored},
};

use crate::{
    fixtures::{assert_close, bits, noise, parity, pipeline_folder, tensors},
    roots,
};

struct Vae {
    network: AutoencoderKlWan,
    config: AutoencoderKlWanConfig,
}

impl Vae {
    fn load(folder: &ModelFolder) -> Self {
        let config = AutoencoderKlWanConfig::read("vae/config.json", &folder.json("vae/config.json").unwrap()).unwrap();
        let device = latentd::device::Device::host();
        let weights = Weights::open(folder, "vae", "diffusion_pytorch_model", &device, as_stored).unwrap();
        let network = AutoencoderKlWan::new(&config, &weights);
        weights.finish().unwrap();
        Self { network, config }
    }

    /// Decodes latents (f, h, w, C) in pieces of these numbers of latent frames.
    fn decode(&self, latents: &Tensor, pieces: &[usize]) -> Tensor {
        let (_, h, w, _) = latents.dims4().unwrap();
        let (mut state, mut first, mut films) = (FilmState::default(), 0, Vec::new());
        for (i, count) in pieces.iter().enumerate() {
            state = state.next(latents.narrow(0, first, *count).unwrap());
            for stage in self.config.decode_stages(*count, [h, w], i == 0) {
                state = self.network.decode_layers(stage.layers, state).to_end().unwrap();
            }
            films.push(state.map().unwrap().clone());
            assert_eq!(films[i].dim(0).unwrap(), self.config.frames(*count, i == 0));
            first += count;
        }
        Tensor::cat(&films, 0).unwrap()
    }

    /// Encodes pixels (F, H, W, 3) in pieces of these numbers of frames.
    fn encode(&self, pixels: &Tensor, pieces: &[usize]) -> Tensor {
        let (_, h, w, _) = pixels.dims4().unwrap();
        let (mut state, mut first, mut latents) = (FilmState::default(), 0, Vec::new());
        for (i, count) in pieces.iter().enumerate() {
            state = state.next(pixels.narrow(0, first, *count).unwrap());
            for stage in self.config.encode_stages(*count, [h, w], i == 0) {
                state = self.network.encode_layers(stage.layers, state).to_end().unwrap();
            }
            latents.push(state.map().unwrap().clone());
            first += count;
        }
        Tensor::cat(&latents, 0).unwrap()
    }

    /// Latents (f, h, w, C) as they are without normalization.
    fn raw(&self, latents: &Tensor) -> Tensor {
        let [mean, std] = self.normal();
        latents.broadcast_mul(&std).unwrap().broadcast_add(&mean).unwrap()
    }

    fn normalized(&self, latents: &Tensor) -> Tensor {
        let [mean, std] = self.normal();
        latents.broadcast_sub(&mean).unwrap().broadcast_div(&std).unwrap()
    }

    fn normal(&self) -> [Tensor; 2] {
        [&self.config.latents_mean, &self.config.latents_std].map(|values| {
            let values: Vec<f32> = values.iter().map(|value| *value as f32).collect();
            Tensor::new(values, &Device::Cpu).unwrap()
        })
    }
}

/// (1, C, F, h, w) → (F, h, w, C)
fn frames(x: &Tensor) -> Tensor {
    x.squeeze(0).unwrap().permute((1, 2, 3, 0)).unwrap().contiguous().unwrap()
}

#[test]
fn films_are_encoded_and_decoded_as_in_diffusers() {
    let mut compared = 0;
    for name in ["wan-t2v", "wan-i2v", "wan22-ti2v"] {
        let golden = parity().join("components").join(format!("{name}.safetensors"));
        if !golden.exists() {
            println!("the compact fixtures have no {name}");
            continue;
        }
        let golden = tensors(&golden);
        let vae = Vae::load(&pipeline_folder(&parity().join("pipelines").join(name)).unwrap());
        let latents = frames(&golden["vae.latent"]);
        let decoded = vae.decode(&vae.normalized(&latents), &[1, 1]);
        assert_close(&decoded, &frames(&golden["vae.decoded"]), &format!("{name}: decoded"));
        let encoded = vae.encode(&frames(&golden["vae.video"]), &[1, 4]);
        assert_close(&vae.raw(&encoded), &frames(&golden["vae.mean"]), &format!("{name}: encoded"));
        compared += 1;
    }
    println!("{compared} autoencoders of Wan");
}

#[test]
fn the_pieces_of_a_film_after_the_first_do_not_change_it() {
    for name in ["wan-t2v", "wan22-ti2v"] {
        let root = parity().join("pipelines").join(name);
        if !root.exists() {
            println!("the compact fixtures have no {name}");
            continue;
        }
        let vae = Vae::load(&pipeline_folder(&root).unwrap());
        let latents = noise(&[5, 2, 3, vae.config.z_dim], 1);
        let decoded = vae.decode(&latents, &[1, 1, 1, 1, 1]);
        for pieces in [&[1, 4][..], &[1, 2, 2], &[1, 1, 3], &[1, 3, 1]] {
            assert_eq!(bits(&vae.decode(&latents, pieces)), bits(&decoded), "{name}: {pieces:?}");
        }
        let side = vae.config.scale();
        let pixels = noise(&[13, 2 * side, side, 3], 2);
        let encoded = vae.encode(&pixels, &[1, 4, 4, 4]);
        for pieces in [&[1, 12][..], &[1, 8, 4], &[1, 4, 8]] {
            assert_eq!(bits(&vae.encode(&pixels, pieces)), bits(&encoded), "{name}: {pieces:?}");
        }
        // The first frame knows nothing of the others.
        let first = vae.decode(&latents.narrow(0, 0, 1).unwrap(), &[1]);
        assert_eq!(bits(&first), bits(&decoded.narrow(0, 0, 1).unwrap()), "{name}: one frame");
    }
}

#[test]
fn the_requested_tensors_are_those_of_the_published_models() {
    for name in ["wan21--vae", "wan22-ti2v-5b--vae"] {
        if !parity().join(format!("manifests/{name}.json.gz")).exists() {
            println!("the compact fixtures have no manifest {name}");
            continue;
        }
        let (mut config, published) = roots::manifest(name);
        // The published file of Wan 2.2 5B has this key, too.
        config.insert("clip_output".to_owned(), false.into());
        let config = AutoencoderKlWanConfig::read(name, &config).unwrap();
        let weights = Weights::outline("vae");
        drop(AutoencoderKlWan::new(&config, &weights));
        assert_eq!(weights.requested(), published.into_iter().collect::<BTreeMap<_, _>>(), "{name}");
    }
}
