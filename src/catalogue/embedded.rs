//! The model inside the program, and its companions.

use std::borrow::Cow;

use rust_embed::RustEmbed;

use crate::weights::ModelFolder;

/// The name of the embedded model in the API.
pub(super) const NAME: &str = "emoji";

#[derive(RustEmbed)]
#[folder = "models/emoji"]
struct Files;

/// What was trained for the embedded model beside it; `models/emoji-companions/README.md` is their card.
#[derive(RustEmbed)]
#[folder = "models/emoji-companions"]
struct Companions;

/// LoRAs by name, with the folders that they lie in.
const LORAS: [(&str, &str); 3] =
    [("emoji-flat", "flat-lora"), ("emoji-lcm", "lcm-lora"), ("emoji-pixel", "pixel-lora")];

/// Learned words.
const EMBEDDINGS: [(&str, &str); 1] = [("teal", "teal-embedding")];

/// ControlNets.
const CONTROL_NETS: [(&str, &str); 1] = [("emoji-canny", "controlnet-canny")];

/// The folder `models/emoji` of the repository, compiled in, so that the server draws from any folder and offline. Its tiny
/// decoder is among the companions, since diffusers' layout has no place for one.
pub(super) fn folder() -> ModelFolder {
    let tiny = Companions::iter().filter(|path| path.starts_with("vae_tiny/"));
    ModelFolder::embedded(NAME, Files::iter().chain(tiny), |path| {
        let file = Files::get(path).or_else(|| Companions::get(path).filter(|_| path.starts_with("vae_tiny/")));
        file.map(|file| file.data)
    })
}

/// The names of LoRAs, and their files.
pub(super) fn loras() -> impl Iterator<Item = (&'static str, Cow<'static, [u8]>)> {
    files(&LORAS, "pytorch_lora_weights.safetensors")
}

/// The names of learned words, and their files.
pub(super) fn embeddings() -> impl Iterator<Item = (&'static str, Cow<'static, [u8]>)> {
    files(&EMBEDDINGS, "learned_embeds.safetensors")
}

/// The names of ControlNets, and the parts of the folder that they are in.
pub(super) fn control_nets() -> impl Iterator<Item = (&'static str, &'static str, ModelFolder)> {
    let folder = || {
        ModelFolder::embedded("emoji-companions", Companions::iter(), |path| {
            Companions::get(path).map(|file| file.data)
        })
    };
    let present = CONTROL_NETS.iter().filter(|(_, part)| Companions::get(&format!("{part}/config.json")).is_some());
    present.map(move |(name, part)| (*name, *part, folder()))
}

fn files(
    names: &'static [(&'static str, &'static str)],
    file: &'static str,
) -> impl Iterator<Item = (&'static str, Cow<'static, [u8]>)> {
    names.iter().filter_map(move |(name, folder)| Some((*name, Companions::get(&format!("{folder}/{file}"))?.data)))
}
