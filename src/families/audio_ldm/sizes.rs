//! The configurations of an AudioLDM folder, and what follows from them.

use serde_json::Value;

use crate::{
    models::{
        autoencoder_kl::AutoencoderKlConfig,
        clap_text::ClapTextConfig,
        demand::Demand,
        hifi_gan::HifiGanConfig,
        latent_diffusion::{Part, SoundSpec, Spec},
        unet2d_condition::UNet2DConditionConfig,
    },
    weights::{LoadError, ModelFolder},
};

/// The configurations of a folder's networks.
#[derive(Clone, Debug)]
pub(super) struct Sizes {
    pub text_encoder: ClapTextConfig,
    pub unet: UNet2DConditionConfig,
    pub vae: AutoencoderKlConfig,
    pub vocoder: HifiGanConfig,
}

impl Sizes {
    /// Reads the configurations. Fails if the networks do not fit together.
    pub fn read(folder: &ModelFolder) -> Result<Sizes, LoadError> {
        let [text_encoder, unet, vae, vocoder] =
            ["text_encoder", "unet", "vae", "vocoder"].map(|part| format!("{part}/config.json"));
        let sizes = Sizes {
            text_encoder: ClapTextConfig::read(&text_encoder, &folder.json(&text_encoder)?)?,
            unet: UNet2DConditionConfig::read_for_vector(&unet, &folder.json(&unet)?)?,
            vae: AutoencoderKlConfig::read(&vae, &folder.json(&vae)?)?,
            vocoder: HifiGanConfig::read(&vocoder, &folder.json(&vocoder)?)?,
        };
        let (latents, vector) = (sizes.vae.latent_channels, sizes.text_encoder.projection_dim);
        for (path, key, value, wanted, what) in [
            (&unet, "in_channels", sizes.unet.in_channels, latents, "the latent_channels of the vae"),
            (&unet, "out_channels", sizes.unet.out_channels, latents, "the latent_channels of the vae"),
            (
                &unet,
                "projection_class_embeddings_input_dim",
                sizes.unet.vector_width().unwrap_or(0),
                vector,
                "the projection_dim of the text encoder",
            ),
        ] {
            if value != wanted {
                let reason = format!("must be {wanted}, {what}, not {value}");
                return Err(LoadError::BadKey { path: path.clone(), key: key.into(), reason });
            }
        }
        if sizes.unet.sample_size.is_none() {
            let (key, supported) = ("sample_size".into(), "a size".into());
            return Err(LoadError::UnsupportedKey { path: unet, key, value: Box::new(Value::Null), supported });
        }
        let (frequencies, scale) = (sizes.vocoder.model_in_dim, sizes.vae.scale());
        if !frequencies.is_multiple_of(scale) {
            let reason = format!("must be a multiple of {scale}, the scale of the vae, not {frequencies}");
            return Err(LoadError::BadKey { path: vocoder, key: "model_in_dim".into(), reason });
        }
        Ok(sizes)
    }

    /// The work and memory of one row of a call; zero for kinds of calls that this family does not have.
    pub fn demand(&self, part: Part) -> Demand {
        match part {
            Part::Text { .. } => self.text_encoder.demand(self.text_encoder.longest()),
            Part::Denoise { size, adapted, .. } => self.unet.demand(size, 1, adapted),
            Part::Decode { size: [h, w] } => self.vae.decode_demand(h, w),
            Part::Encode { .. } | Part::DecodeTiny { .. } => Demand::default(),
        }
    }

    /// The sizes of the model.
    pub fn spec(&self) -> Spec {
        let [h, w] = self.latents(self.default_seconds());
        Spec {
            latent_channels: self.unet.in_channels,
            vae_scale_factor: self.vae.scale(),
            sample_size: (h, w),
            context_length: 1,
            context_width: self.text_encoder.projection_dim,
            text_encoders: 1,
            sound: Some(self.sound()),
            ..Spec::default()
        }
    }

    pub fn sound(&self) -> SoundSpec {
        SoundSpec {
            sample_rate: self.vocoder.sampling_rate,
            samples_per_frame: self.vocoder.samples_per_frame(),
            frequencies: self.vocoder.model_in_dim,
        }
    }

    /// (h, w) of the latents of a sound.
    pub fn latents(&self, seconds: f64) -> [usize; 2] {
        let (sound, scale) = (self.sound(), self.vae.scale());
        [sound.frames(seconds, scale), sound.frequencies].map(|side| side / scale)
    }

    /// The length of the sounds that the U-Net was trained on.
    pub fn default_seconds(&self) -> f64 {
        let (h, _) = self.unet.sample_size.map_or((1, 1), |size| size.height_width());
        (h * self.vae.scale()) as f64 * self.sound().seconds_per_frame()
    }

    /// The length of the shortest sound: one latent.
    pub fn least_seconds(&self) -> f64 {
        self.vae.scale() as f64 * self.sound().seconds_per_frame()
    }
}
