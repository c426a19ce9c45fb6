//! Describes a generation in the text format that AUTOMATIC1111's web interface introduced and that image tools read:
//! prompt, negative prompt, and one line of settings.

use serde_json::Value;

use crate::{
    diffusion::SamplerLabel,
    generation::{ControlUse, Draw, ImageInfluence, Mask, Preprocess, PromptSyntax, SeedMode},
};

/// The text for image `index` of a generation; `model` is the name of the model, and `approximations` has the names of
/// the approximations in use.
pub fn infotext(model: &str, draw: &Draw, approximations: &[&str], label: &SamplerLabel, index: u32) -> String {
    // LoRAs become tags after the prompt, as in the web interface. The form in which the request named them has no
    // effect.
    let tags = draw.loras.iter().map(|lora| format!("<lora:{}:{}>", lora.name, lora.scale));
    let text = |prompt: &str| match draw.prompt_syntax {
        PromptSyntax::Plain => escaped(prompt),
        PromptSyntax::Weighted => prompt.to_owned(),
    };
    let mut lines = vec![[text(&draw.prompt)].into_iter().chain(tags).collect::<Vec<_>>().join(" ")];
    if let Some(negative) = draw.negative_prompt.as_ref().filter(|negative| !negative.is_empty()) {
        lines.push(format!("Negative prompt: {}", text(negative)));
    }
    lines.push(settings(model, draw, approximations, label, index));
    lines.join("\n")
}

/// The seed of a result in the range that a request allows. `seed + index` can exceed the limit of 2⁶³ − 1, so
/// the top bit is removed. Torch's generator still gives the same numbers, because it uses only the low 32 bits.
pub(super) fn allowed(seed: u64) -> u64 {
    seed & i64::MAX as u64
}

fn settings(model: &str, draw: &Draw, approximations: &[&str], label: &SamplerLabel, index: u32) -> String {
    let mut settings = vec![("Steps", draw.steps.to_string()), ("Sampler", label.sampler.clone())];
    settings.extend(label.schedule_type.map(|word| ("Schedule type", word.to_owned())));
    settings.extend([
        ("CFG scale", draw.guidance_scale.to_string()),
        ("Seed", allowed(draw.seed_of(index)).to_string()),
        ("Size", format!("{}x{}", draw.width, draw.height)),
        ("Model", model.to_owned()),
    ]);
    settings.extend(label.eta.filter(|_| draw.eta != 0.0).map(|word| (word, draw.eta.to_string())));
    match draw.source.as_ref().map(|source| source.hold) {
        Some(ImageInfluence::Strength { strength }) => settings.push(("Denoising strength", strength.to_string())),
        Some(ImageInfluence::Guidance { image_guidance_scale }) => {
            settings.push(("Image CFG scale", image_guidance_scale.to_string()))
        }
        Some(ImageInfluence::Reference {}) | None => {}
    }
    settings.extend(draw.source.as_ref().and_then(|source| source.mask.as_ref()).into_iter().flat_map(mask));
    if let Some(refiner) = &draw.refiner {
        settings.push(("Refiner", refiner.model.clone()));
        settings.push(("Refiner switch at", refiner.switch_at.to_string()));
    }
    settings.extend(CONTROL_NETS.into_iter().zip(draw.controls.iter().map(control)));
    if draw.clip_skip > 0 {
        // The web interface counts the last layer as 1, and diffusers counts it as 0.
        settings.push(("Clip skip", (draw.clip_skip + 1).to_string()));
    }
    if draw.seed_mode == SeedMode::Batch {
        settings.push(("Batch size", draw.n.to_string()));
        settings.push(("Batch pos", index.to_string()));
    }
    if !approximations.is_empty() {
        settings.push(("Approximations", approximations.join(" ")));
    }
    // The noise equals the noise of torch's CPU generator; without this setting, the web interface would use a GPU
    // generator.
    settings.push(("RNG", "CPU".to_owned()));
    settings.push(("Version", format!("latentd {}", env!("CARGO_PKG_VERSION"))));
    let settings: Vec<String> = settings.iter().map(|(name, value)| format!("{name}: {}", quoted(value))).collect();
    settings.join(", ")
}

fn mask(mask: &Mask) -> Vec<(&'static str, String)> {
    let mut settings = Vec::new();
    if mask.mask_blur > 0 {
        settings.push(("Mask blur", mask.mask_blur.to_string()));
    }
    if mask.mask_invert {
        settings.push(("Mask mode", "Inpaint not masked".to_owned()));
    }
    if let Some(padding) = mask.padding_mask_crop {
        settings.push(("Inpaint area", "Only masked".to_owned()));
        settings.push(("Masked area padding", padding.to_string()));
    }
    settings
}

/// Names of the settings of ControlNets; a request has at most four ControlNets.
const CONTROL_NETS: [&str; 4] = ["ControlNet 0", "ControlNet 1", "ControlNet 2", "ControlNet 3"];

/// The settings of one ControlNet, written as the value of one setting.
fn control(control: &ControlUse) -> String {
    let module = match control.preprocess {
        Preprocess::None => "none",
        Preprocess::Canny => "canny",
    };
    let mode = if control.guess_mode { "ControlNet is more important" } else { "Balanced" };
    format!(
        "Module: {module}, Model: {}, Weight: {}, Guidance Start: {}, Guidance End: {}, Control Mode: {mode}",
        control.model, control.scale, control.start, control.end
    )
}

/// A plain prompt in the syntax of the web interface, where brackets without a backslash would change the weight of
/// words.
fn escaped(prompt: &str) -> String {
    let mut escaped = String::with_capacity(prompt.len());
    for letter in prompt.chars() {
        if matches!(letter, '(' | ')' | '[' | ']' | '\\') {
            escaped.push('\\');
        }
        escaped.push(letter);
    }
    escaped
}

/// The value of a setting, quoted as JSON if it contains a separator of the format: a comma, a colon or a line break.
fn quoted(value: &str) -> String {
    if value.contains([',', ':', '\n']) { Value::from(value).to_string() } else { value.to_owned() }
}
