//! The modules of a model that adapters can change.

use std::collections::{BTreeMap, HashMap};

use crate::weights::{
    ldm,
    original::{self, Slice},
};

/// A module that a tensor of a LoRA file belongs to.
#[derive(Clone, Debug)]
pub(super) struct Target<'a> {
    pub site: &'a str,
    /// If the tensor belongs to several modules: the rows of the up matrix for this one.
    pub slice: Option<Slice>,
}

/// The linear layers and convolutions of a model, which adapters can change.
#[derive(Clone, Debug, Default)]
pub struct Modules {
    /// The shape of each module's weight, by site (component and module).
    shapes: BTreeMap<String, Vec<usize>>,
    /// The sites by flat name: the component, a dot, and the module with `_` instead of every dot, as kohya writes it.
    flat: HashMap<String, String>,
    /// Number of ResNets in a block of the U-Net on the way down.
    layers: usize,
    /// Number of blocks of the transformer for two streams.
    blocks: usize,
}

impl Modules {
    /// Adds the modules of a component, such as `unet`, `transformer` or `text_encoder`, by the names and shapes of its
    /// tensors, as [`Weights::requested`](crate::weights::Weights::requested) returns them.
    pub fn add(&mut self, component: &str, tensors: &BTreeMap<String, Vec<usize>>) {
        for (name, shape) in tensors {
            let Some(module) = name.strip_suffix(".weight").filter(|module| !module.ends_with("_embedding")) else {
                continue;
            };
            if !matches!(shape.len(), 2 | 4) {
                continue; // A norm.
            }
            let site = format!("{component}.{module}");
            self.flat.insert(format!("{component}.{}", module.replace('.', "_")), site.clone());
            self.shapes.insert(site, shape.clone());
        }
        if component == "transformer" {
            let block = |name: &String| Some(ldm::number(name.strip_prefix("transformer_blocks.")?, '.')?.0 + 1);
            self.blocks = tensors.keys().filter_map(block).max().unwrap_or(0);
        }
        if component == "unet" {
            self.layers = ldm::unet_layers(tensors.keys().map(String::as_str));
        }
    }

    /// The shape of a site's weight: (out, in) or (out, in, kh, kw).
    pub fn shape(&self, site: &str) -> Option<&[usize]> {
        self.shapes.get(site).map(Vec::as_slice)
    }

    /// All sites.
    pub fn sites(&self) -> impl Iterator<Item = &str> {
        self.shapes.keys().map(String::as_str)
    }

    /// The component that denoises: `transformer` or `unet`.
    pub(super) fn denoiser(&self) -> &'static str {
        if self.shapes.keys().any(|site| site.starts_with("transformer.")) { "transformer" } else { "unet" }
    }

    /// The sites of a module of the denoiser. `module` is the name of the module in the original code, with dots or
    /// flattened. One module of the original code may stand for several modules of this model. `None` if no original
    /// code has a module of this name whose parts all exist in the model.
    pub(super) fn fused(&self, module: &str) -> Option<Vec<Target<'_>>> {
        let component = self.denoiser();
        let target = |slice: Slice| {
            let (site, _) = self.shapes.get_key_value(&format!("{component}.{}", slice.module))?;
            Some(Target { site, slice: Some(slice) })
        };
        let targets = |slices: Vec<Slice>| slices.into_iter().map(target).collect();
        original::slices(module, self.blocks).find_map(targets)
    }

    /// The site of a flattened module name in a component. The name is diffusers' name, or the name in the U-Net's
    /// original code.
    pub(super) fn flattened(&self, component: &str, module: &str) -> Option<&str> {
        let known = |module: &str| self.flat.get(&format!("{component}.{module}")).map(String::as_str);
        known(module).or_else(|| match component {
            "unet" => known(&ldm::unet_name(module, '_', self.layers)?),
            _ => None,
        })
    }

    /// The site of a dotted module name in a component. In newer text encoders, names lack `text_model`; and the output
    /// layer of an attention, `to_out.0`, is named `to_out` in old files.
    pub(super) fn dotted(&self, component: &str, module: &str) -> Option<&str> {
        let known = |site: String| self.shapes.get_key_value(&site).map(|(site, _)| site.as_str());
        known(format!("{component}.{module}"))
            .or_else(|| known(format!("{component}.text_model.{module}")))
            .or_else(|| known(format!("{component}.{module}.0")))
            .or_else(|| match component {
                "unet" => known(format!("unet.{}", ldm::unet_name(module, '.', self.layers)?)),
                _ => None,
            })
    }
}
