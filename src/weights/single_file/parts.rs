use std::collections::{BTreeMap, HashMap};

use super::{Kind, outline::highest};
use crate::weights::{
    LoadError, TensorMismatch,
    header::{Header, Info},
    ldm::{clip_name, controlnet_name, open_clip_parts, unet_name, vae_name},
    tensors::Entry,
};

/// The tensors of a file by component and diffusers name.
pub(super) struct Parts(BTreeMap<&'static str, HashMap<String, Entry>>);

/// What a ControlNet, which is a folder of its own, is called here.
pub(super) const CONTROLNET: &str = "controlnet";

impl Parts {
    /// Gives every tensor of the file its place.
    ///
    /// # Errors
    /// A tensor has none, or two have the same; [`TensorMismatch`] names them as unused.
    pub fn sort(path: &str, header: &Header, kind: Kind) -> Result<Self, LoadError> {
        let names = Names::of(header, kind);
        let mut parts: BTreeMap<&'static str, HashMap<String, Entry>> = BTreeMap::new();
        let mut strange = TensorMismatch { component: path.into(), ..TensorMismatch::default() };
        for (name, info) in &header.tensors {
            if left(name) {
                continue;
            }
            let Some((component, entries)) = names.place(name, info) else {
                strange.unused.push((name.clone(), info.shape.clone()));
                continue;
            };
            let known = parts.entry(component).or_default();
            for (known_as, entry) in entries {
                if known.insert(known_as, entry).is_some() {
                    strange.unused.push((name.clone(), info.shape.clone()));
                }
            }
        }
        if strange.is_empty() { Ok(Self(parts)) } else { Err(Box::new(strange).into()) }
    }

    pub fn is_control_net(&self) -> bool {
        self.0.contains_key(CONTROLNET)
    }

    /// The tensors of a component. A file that is a ControlNet has but one, whatever it is called.
    pub fn of(&self, component: &str) -> Option<&HashMap<String, Entry>> {
        self.0.get(CONTROLNET).or_else(|| self.0.get(component))
    }
}

/// What the numbers in names count in.
struct Names {
    kind: Kind,
    /// ResNets in a block of the U-Net.
    layers: usize,
    /// Blocks on a side of the autoencoder.
    levels: usize,
    /// The last convolution of a ControlNet's hint.
    hints: usize,
}

impl Names {
    fn of(header: &Header, kind: Kind) -> Self {
        let names = || header.tensors.keys().map(String::as_str);
        let unet = match kind {
            Kind::ControlNet { prefix } => prefix,
            _ => "model.diffusion_model.",
        };
        // The first row that makes the map smaller ends the first block.
        let is_op = |row: &usize| header.tensors.contains_key(&format!("{unet}input_blocks.{row}.0.op.weight"));
        let layers = (1..64).find(is_op).map_or(2, |row| row - 1);
        let levels = highest(names(), "first_stage_model.decoder.up.").map_or(0, |level| level + 1);
        let hints = highest(names(), &format!("{unet}input_hint_block.")).unwrap_or(0);
        Self { kind, layers, levels, hints }
    }

    /// The component and the pieces that a tensor is.
    fn place(&self, name: &str, info: &Info) -> Option<(&'static str, Vec<(String, Entry)>)> {
        let whole = |name: String| vec![(name, Entry::whole(info))];
        match self.kind {
            Kind::DiffusersControlNet => return Some((CONTROLNET, whole(name.to_owned()))),
            Kind::ControlNet { prefix } => {
                let name = controlnet_name(name.strip_prefix(prefix)?, self.layers, self.hints)?;
                return Some((CONTROLNET, whole(name)));
            }
            _ => {}
        }
        if let Some(name) = name.strip_prefix("model.diffusion_model.") {
            return Some(("unet", whole(unet_name(name, '.', self.layers)?)));
        }
        if let Some(name) = name.strip_prefix("first_stage_model.") {
            let name = vae_name(name, self.levels)?;
            // Attention was once made of pointwise convolutions.
            let shape = match info.shape[..] {
                [outputs, inputs, 1, 1] if name.contains(".attentions.") => vec![outputs, inputs],
                _ => info.shape.clone(),
            };
            let mut entry = Entry::whole(info);
            entry.shape = shape;
            return Some(("vae", vec![(name, entry)]));
        }
        let (component, is_open, prefix) = match self.kind {
            Kind::V1 => ("text_encoder", false, "cond_stage_model.transformer."),
            Kind::V2 => ("text_encoder", true, "cond_stage_model.model."),
            Kind::Xl if name.starts_with("conditioner.embedders.0.") => {
                ("text_encoder", false, "conditioner.embedders.0.transformer.")
            }
            Kind::Xl => ("text_encoder_2", true, "conditioner.embedders.1.model."),
            _ => ("text_encoder_2", true, "conditioner.embedders.0.model."),
        };
        let name = name.strip_prefix(prefix)?;
        if !is_open {
            return Some((component, whole(clip_name(name)?)));
        }
        let pieces: Option<Vec<(String, Entry)>> = open_clip_parts(name)
            .into_iter()
            .map(|part| Some((part.name.clone(), Entry::part(info, &part)?)))
            .collect();
        Some((component, pieces.filter(|pieces| !pieces.is_empty())?))
    }
}

/// Whether a tensor is one that nobody reads: tables that follow from the configuration, averages of weights during
/// training, CLIP's temperature and positions, the discriminator that the autoencoder was trained with; and of Stable
/// Diffusion 2's OpenCLIP the last layer, as it reads the states before it, and the projection.
fn left(name: &str) -> bool {
    const STARTS: [&str; 14] = [
        "model_ema.",
        "first_stage_model.loss.",
        "denoiser.",
        "cond_stage_model.model.transformer.resblocks.23.",
        "cond_stage_model.model.text_projection",
        "cond_stage_model.transformer.text_projection",
        "conditioner.embedders.0.transformer.text_projection",
        "alphas_cumprod",
        "sqrt_",
        "log_one_minus_alphas_cumprod",
        "posterior_",
        "betas",
        "logvar",
        "lvlb_weights",
    ];
    const ENDS: [&str; 3] = ["embeddings.position_ids", ".logit_scale", ".attn_mask"];
    // Markers without numbers; `configs` heeds the first two.
    const NAMES: [&str; 4] = [V_PREDICTION, ZERO_SNR, "global_step", "logit_scale"];
    STARTS.iter().any(|start| name.starts_with(start))
        || ENDS.iter().any(|end| name.ends_with(end))
        || NAMES.contains(&name)
}

/// An empty tensor by which trainers mark files of models that predict velocity.
pub(super) const V_PREDICTION: &str = "v_pred";

/// The same for models whose last noise level has no signal left.
pub(super) const ZERO_SNR: &str = "ztsnr";
