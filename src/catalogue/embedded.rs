//! The model that is compiled into the program, and its add-ons.

use std::borrow::Cow;

use rust_embed::RustEmbed;

use crate::weights::ModelFolder;

/// The name of the embedded model in the API.
pub(super) const NAME: &str = "emoji";

#[derive(RustEmbed)]
#[folder = "models/emoji"]
struct Files;

/// Files that were trained for the embedded model: LoRAs, a textual inversion, a ControlNet and a tiny decoder; see
/// `models/emoji-companions/README.md`.
#[derive(RustEmbed)]
#[folder = "models/emoji-companions"]
struct AddOns;

/// LoRAs by name, each with its folder.
const LORAS: [(&str, &str); 3] =
    [("emoji-flat", "flat-lora"), ("emoji-lcm", "lcm-lora"), ("emoji-pixel", "pixel-lora")];

/// Textual inversions by name, each with its folder.
const EMBEDDINGS: [(&str, &str); 1] = [("teal", "teal-embedding")];

/// ControlNets by name, each with its folder.
const CONTROL_NETS: [(&str, &str); 1] = [("emoji-canny", "controlnet-canny")];

/// The folder `models/emoji` of the repository, compiled in, so that the server works from any directory and offline.
/// Its tiny decoder is one of the add-ons, since diffusers' layout has no place for a tiny decoder.
pub fn folder() -> ModelFolder {
    let tiny = AddOns::iter().filter(|path| path.starts_with("vae_tiny/"));
    ModelFolder::embedded(NAME, Files::iter().chain(tiny), |path| {
        let file = Files::get(path).or_else(|| AddOns::get(path).filter(|_| path.starts_with("vae_tiny/")));
        file.map(|file| file.data)
    })
}

/// The embedded LoRAs: the name and the content of each.
pub(super) fn loras() -> impl Iterator<Item = (&'static str, Cow<'static, [u8]>)> {
    files(&LORAS, "pytorch_lora_weights.safetensors")
}

/// The embedded textual inversions: the name and the content of each.
pub(super) fn embeddings() -> impl Iterator<Item = (&'static str, Cow<'static, [u8]>)> {
    files(&EMBEDDINGS, "learned_embeds.safetensors")
}

/// The embedded ControlNets: the name of each, its subfolder, and the folder that contains this subfolder.
pub(super) fn control_nets() -> impl Iterator<Item = (&'static str, &'static str, ModelFolder)> {
    let folder =
        || ModelFolder::embedded("emoji-companions", AddOns::iter(), |path| AddOns::get(path).map(|file| file.data));
    let present = CONTROL_NETS.iter().filter(|(_, part)| AddOns::get(&format!("{part}/config.json")).is_some());
    present.map(move |(name, part)| (*name, *part, folder()))
}

fn files(
    names: &'static [(&'static str, &'static str)],
    file: &'static str,
) -> impl Iterator<Item = (&'static str, Cow<'static, [u8]>)> {
    names.iter().filter_map(move |(name, folder)| Some((*name, AddOns::get(&format!("{folder}/{file}"))?.data)))
}
