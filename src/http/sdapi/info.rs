//! The JSON object that the field `info` of an answer contains as text.

use serde_json::{Value, json};

use crate::generation::{Draw, ImageInfluence, Record, Status, rfc3339};

/// What was drawn. `infotexts` are the texts with the settings that the files of the pictures contain. `notes` say what
/// the request asked for and did not get.
pub(super) fn object(record: &Record, draw: &Draw, infotexts: Vec<String>, notes: &[String]) -> Value {
    let artifacts = match &record.status {
        Status::Succeeded { artifacts } => &artifacts[..],
        _ => &[],
    };
    let seeds: Vec<u64> = artifacts.iter().map(|artifact| artifact.facts.seed()).collect();
    let negative = draw.negative_prompt.clone().unwrap_or_default();
    let strength = draw.source.as_ref().and_then(|source| match source.hold {
        ImageInfluence::Strength { strength } => Some(strength),
        ImageInfluence::Guidance { .. } | ImageInfluence::Reference {} => None,
    });
    let mut info = json!({
        "prompt": draw.prompt,
        "all_prompts": vec![&draw.prompt; seeds.len()],
        "negative_prompt": negative,
        "all_negative_prompts": vec![&negative; seeds.len()],
        "seed": draw.seed,
        "all_seeds": seeds,
        "subseed": draw.seed,
        "all_subseeds": seeds,
        "subseed_strength": 0,
        "width": draw.width,
        "height": draw.height,
        "sampler_name": setting(&infotexts, "Sampler"),
        "cfg_scale": draw.guidance_scale,
        "steps": draw.steps,
        "batch_size": draw.n,
        "restore_faces": false,
        "sd_model_name": record.job.model,
        "sd_model_hash": null,
        "denoising_strength": strength,
        "extra_generation_params": {},
        "index_of_first_image": 0,
        "infotexts": infotexts,
        "styles": [],
        "job_timestamp": rfc3339(record.created_at),
        "clip_skip": draw.clip_skip + 1,
        "version": format!("latentd {}", env!("CARGO_PKG_VERSION")),
        "generation": record.id,
        "notes": notes,
        "warnings": record.job.warnings,
    });
    if record.flagged().is_some() {
        info["flagged"] = artifacts.iter().map(|artifact| artifact.flagged).collect();
    }
    info
}

/// The setting of this name in the first of the texts.
fn setting(infotexts: &[String], name: &str) -> Option<String> {
    let parsed = super::png_info::settings(infotexts.first()?);
    parsed.get(name).and_then(Value::as_str).map(str::to_owned)
}
