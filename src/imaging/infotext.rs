//! A generation as the lines of text that image tools read from the files of pictures, a habit that AUTOMATIC1111's web
//! interface began: the prompt, the negative prompt, then one line of settings.

use serde_json::Value;

use super::metadata::seed;
use crate::{
    diffusion::SamplerLabel,
    generation::{Generation, Hold, SeedMode},
};

pub fn infotext(generation: &Generation, label: &SamplerLabel, index: u32) -> String {
    // The prompt's tags for LoRAs, as those tools write them, whichever way the request named them.
    let tags = generation.loras.iter().map(|lora| format!("<lora:{}:{}>", lora.name, lora.scale));
    let mut lines = vec![[generation.prompt.clone()].into_iter().chain(tags).collect::<Vec<_>>().join(" ")];
    if let Some(negative) = generation.negative_prompt.as_ref().filter(|negative| !negative.is_empty()) {
        lines.push(format!("Negative prompt: {negative}"));
    }
    lines.push(settings(generation, label, index));
    lines.join("\n")
}

fn settings(generation: &Generation, label: &SamplerLabel, index: u32) -> String {
    let mut settings = vec![("Steps", generation.steps.to_string()), ("Sampler", label.sampler.clone())];
    settings.extend(label.schedule_type.map(|word| ("Schedule type", word.to_owned())));
    settings.extend([
        ("CFG scale", generation.guidance_scale.to_string()),
        ("Seed", seed(generation, index).to_string()),
        ("Size", format!("{}x{}", generation.width, generation.height)),
        ("Model", generation.model.clone()),
    ]);
    if generation.eta != 0.0 {
        settings.push(("Eta", generation.eta.to_string()));
    }
    match generation.source.as_ref().map(|source| source.hold) {
        Some(Hold::Strength { strength }) => settings.push(("Denoising strength", strength.to_string())),
        Some(Hold::Guidance { image_guidance_scale }) => {
            settings.push(("Image CFG scale", image_guidance_scale.to_string()))
        }
        None => {}
    }
    if generation.clip_skip > 0 {
        // These tools count the last layer as 1, diffusers counts it as 0.
        settings.push(("Clip skip", (generation.clip_skip + 1).to_string()));
    }
    if generation.seed_mode == SeedMode::Batch {
        settings.push(("Batch size", generation.n.to_string()));
        settings.push(("Batch pos", index.to_string()));
    }
    let approximations = generation.approximations();
    if !approximations.is_empty() {
        settings.push(("Approximations", approximations.join(" ")));
    }
    // Noise is torch's for the CPU; without a word these tools draw a GPU's.
    settings.push(("RNG", "CPU".to_owned()));
    settings.push(("Version", format!("latentd {}", env!("CARGO_PKG_VERSION"))));
    let settings: Vec<String> = settings.iter().map(|(name, value)| format!("{name}: {}", quoted(value))).collect();
    settings.join(", ")
}

/// Commas and colons part the settings, so a value that has them stands in the quotes of JSON.
fn quoted(value: &str) -> String {
    if value.contains([',', ':', '\n']) { Value::from(value).to_string() } else { value.to_owned() }
}
