//! Sorts the tensors of a single file into the components of its folder.

use std::collections::{BTreeMap, HashMap};

use super::{Kind, TextEncoder, outline::highest};
use crate::weights::{
    LoadError, TensorMismatch,
    header::{Header, Info},
    ldm::{clip_name, controlnet_name, open_clip_parts, unet_name, vae_name},
    tensors::Entry,
};

/// The tensors of a file by component and diffusers name.
pub(super) struct Parts {
    components: BTreeMap<&'static str, HashMap<String, Entry>>,
    /// The names of tensors that belong to no network and are not read.
    pub left: Vec<String>,
}

/// The prefixes of an autoencoder's tensors. Other names belong to averages and counters of the training and to the
/// discriminator. `quantize.` is listed so that an autoencoder with a codebook, which is another network, is refused
/// and not ignored.
const AUTOENCODER: [&str; 5] = ["encoder.", "decoder.", "quant_conv.", "post_quant_conv.", "quantize."];

/// The prefixes of CLIP's text encoder. The temperature, the projection and the vision encoder of CLIP, which some
/// files have, are not used.
const CLIP: [&str; 6] = [
    "text_model.embeddings.",
    "text_model.encoder.",
    "text_model.final_layer_norm.",
    "embeddings.",
    "encoder.",
    "final_layer_norm.",
];

/// The prefixes of OpenCLIP's text encoder.
const OPEN_CLIP: [&str; 5] =
    ["transformer.", "token_embedding.", "positional_embedding", "ln_final.", "text_projection"];

/// The name of a ControlNet's component. A ControlNet is a folder of its own.
pub(super) const CONTROLNET: &str = "controlnet";

impl Parts {
    /// Assigns every tensor of the file to a component. A tensor outside of the networks is ignored, as in diffusers
    /// and the web interfaces.
    ///
    /// # Errors
    /// A tensor within a network has no counterpart in diffusers, or two tensors have the same counterpart;
    /// [`TensorMismatch`] lists them as unused.
    pub fn sort(path: &str, header: &Header, kind: Kind) -> Result<Self, LoadError> {
        let names = Names::of(header, kind);
        let mut parts: BTreeMap<&'static str, HashMap<String, Entry>> = BTreeMap::new();
        let mut strange = TensorMismatch { component: path.into(), ..TensorMismatch::default() };
        let mut left = Vec::new();
        for (name, info) in &header.tensors {
            if !names.is_of_a_network(name) {
                left.push(name.clone());
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
        if strange.is_empty() { Ok(Self { components: parts, left }) } else { Err(Box::new(strange).into()) }
    }

    pub fn is_control_net(&self) -> bool {
        self.components.contains_key(CONTROLNET)
    }

    /// The tensors of a component. A ControlNet has only one component, which is returned for every name.
    pub fn of(&self, component: &str) -> Option<&HashMap<String, Entry>> {
        self.components.get(CONTROLNET).or_else(|| self.components.get(component))
    }
}

/// The counts that are needed to translate the numbers in names.
struct Names {
    kind: Kind,
    /// ResNets in a block of the U-Net.
    layers: usize,
    /// Blocks of the autoencoder's encoder, and of its decoder.
    levels: usize,
    /// The number in the name of the last convolution of the embedding of a ControlNet's hint.
    hints: usize,
}

impl Names {
    fn of(header: &Header, kind: Kind) -> Self {
        let names = || header.tensors.keys().map(String::as_str);
        let unet = match kind {
            Kind::ControlNet { prefix } => prefix,
            _ => "model.diffusion_model.",
        };
        // The first row that halves the map ends the first block.
        let is_op = |row: &usize| header.tensors.contains_key(&format!("{unet}input_blocks.{row}.0.op.weight"));
        let layers = (1..64).find(is_op).map_or(2, |row| row - 1);
        let levels = highest(names(), "first_stage_model.decoder.up.").map_or(0, |level| level + 1);
        let hints = highest(names(), &format!("{unet}input_hint_block.")).unwrap_or(0);
        Self { kind, layers, levels, hints }
    }

    /// Whether a network may need the tensor. Such a tensor is read or refused, but not ignored.
    fn is_of_a_network(&self, name: &str) -> bool {
        let within = |prefix: &str, parts: &[&str]| {
            name.strip_prefix(prefix).is_some_and(|rest| parts.iter().any(|part| rest.starts_with(part)))
        };
        // `position_ids` are not needed: these integers follow from the configuration.
        if name.ends_with("embeddings.position_ids") {
            return false;
        }
        match self.kind {
            Kind::DiffusersControlNet => return true,
            Kind::ControlNet { prefix } => return name.starts_with(prefix),
            Kind::Checkpoint(_) => {}
        }
        if name.starts_with("model.diffusion_model.") || within("first_stage_model.", &AUTOENCODER) {
            return true;
        }
        self.kind.text_encoders().iter().any(|encoder| {
            let parts = if encoder.is_open { &OPEN_CLIP[..] } else { &CLIP };
            within(encoder.prefix, parts) && !within(encoder.prefix, encoder.unread)
        })
    }

    /// The component of a tensor, and the entries for the whole tensor or its parts.
    fn place(&self, name: &str, info: &Info) -> Option<(&'static str, Vec<(String, Entry)>)> {
        let whole = |name: String| vec![(name, Entry::whole(info))];
        match self.kind {
            Kind::DiffusersControlNet => return Some((CONTROLNET, whole(name.to_owned()))),
            Kind::ControlNet { prefix } => {
                let name = controlnet_name(name.strip_prefix(prefix)?, self.layers, self.hints)?;
                return Some((CONTROLNET, whole(name)));
            }
            Kind::Checkpoint(_) => {}
        }
        if let Some(name) = name.strip_prefix("model.diffusion_model.") {
            return Some(("unet", whole(unet_name(name, '.', self.layers)?)));
        }
        if let Some(name) = name.strip_prefix("first_stage_model.") {
            let name = vae_name(name, self.levels)?;
            // In early files, attention consists of 1 × 1 convolutions.
            let shape = match info.shape[..] {
                [outputs, inputs, 1, 1] if name.contains(".attentions.") => vec![outputs, inputs],
                _ => info.shape.clone(),
            };
            let mut entry = Entry::whole(info);
            entry.shape = shape;
            return Some(("vae", vec![(name, entry)]));
        }
        let encoders = self.kind.text_encoders();
        let found = encoders.iter().find_map(|encoder| Some((encoder, name.strip_prefix(encoder.prefix)?)));
        let (TextEncoder { component, is_open, .. }, name) = found?;
        if !*is_open {
            return Some((*component, whole(clip_name(name)?)));
        }
        let pieces: Option<Vec<(String, Entry)>> = open_clip_parts(name)
            .into_iter()
            .map(|part| Some((part.name.clone(), Entry::part(info, &part)?)))
            .collect();
        Some((*component, pieces.filter(|pieces| !pieces.is_empty())?))
    }
}
