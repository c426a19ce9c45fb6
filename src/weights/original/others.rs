//! The networks beside the transformer in a file with a whole model, as ComfyUI writes it.

use std::collections::BTreeMap;

use super::Original;
use crate::weights::{
    header::Info,
    ldm::{number, vae_name},
};

/// A network that a file may have beside its transformer.
#[derive(Debug)]
pub(in crate::weights) struct Other {
    /// Its folder in diffusers' layout.
    pub component: &'static str,
    /// The name of its weights in that folder.
    pub file: &'static str,
    /// The prefix of its tensors.
    pub prefix: &'static str,
    /// Tensors, without the prefix, that diffusers' network does not have.
    unused: &'static [&'static str],
}

impl Other {
    pub const fn text_encoder(component: &'static str, prefix: &'static str) -> Other {
        Other { component, file: "model.safetensors", prefix, unused: &[] }
    }

    /// A CLIP text encoder without a projection.
    pub const fn plain_clip(component: &'static str, prefix: &'static str) -> Other {
        Other { unused: &["text_projection.weight"], ..Other::text_encoder(component, prefix) }
    }

    pub const fn autoencoder(prefix: &'static str) -> Other {
        Other { component: "vae", file: "diffusion_pytorch_model.safetensors", prefix, unused: &[] }
    }
}

impl Original {
    /// The networks that a file with these tensors contains in addition to the transformer. If the names of the
    /// transformer's tensors have no prefix, the file contains no other network.
    pub fn others(self, tensors: &BTreeMap<String, Info>) -> Vec<&'static Other> {
        let has = |other: &&Other| tensors.keys().any(|name| name.starts_with(other.prefix));
        let others = self.code.others.iter().filter(|_| !self.prefix.is_empty());
        others.filter(has).collect()
    }

    /// The names of the tensors that belong to no network, and of the tensors that their network does not use.
    pub fn left(self, tensors: &BTreeMap<String, Info>) -> Vec<String> {
        let others = self.others(tensors);
        let takes = |other: &&Other, name: &str| {
            name.strip_prefix(other.prefix).is_some_and(|name| !other.unused.contains(&name))
        };
        let is_left = |name: &&String| {
            let is_unused = name.strip_prefix(self.prefix).is_some_and(|own| self.code.unused.contains(&own));
            is_unused || self.is_beside(name) && !others.iter().any(|other| takes(other, name))
        };
        tensors.keys().filter(is_left).cloned().collect()
    }

    /// Removes the tensors that do not belong to a component of a file with a whole model. Returns the network, unless
    /// the component is the transformer.
    pub fn retain(self, component: &str, tensors: &mut BTreeMap<String, Info>) -> Option<&'static Other> {
        let other = self.others(tensors).into_iter().find(|other| other.component == component);
        match other {
            Some(other) => tensors.retain(|name, _| {
                let name = name.strip_prefix(other.prefix);
                name.is_some_and(|name| !other.unused.contains(&name))
            }),
            None => tensors.retain(|name, _| !self.is_beside(name)),
        }
        other
    }
}

impl Other {
    /// The names and shapes in diffusers' layout of the tensors of this network; the error names a tensor that is not
    /// known.
    pub fn renamed(&self, tensors: &BTreeMap<String, Info>) -> Result<Vec<(String, Vec<usize>)>, String> {
        let level =
            |name: &String| Some(number(name.strip_prefix(self.prefix)?.strip_prefix("decoder.up.")?, '.')?.0 + 1);
        let levels = tensors.keys().filter_map(level).max().unwrap_or(0);
        let renamed = |(name, info): (&String, &Info)| {
            let own = name.strip_prefix(self.prefix).unwrap_or(name);
            if self.component != "vae" {
                return Ok((own.to_owned(), info.shape.clone()));
            }
            let own = vae_name(own, levels).ok_or_else(|| name.clone())?;
            // Attention consists of 1 × 1 convolutions.
            let shape = match info.shape[..] {
                [outputs, inputs, 1, 1] if own.contains(".attentions.") => vec![outputs, inputs],
                _ => info.shape.clone(),
            };
            Ok((own, shape))
        };
        tensors.iter().map(renamed).collect()
    }
}
