//! The LoRAs of a generation, from the field `loras` and from the prompt.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{
    Fields, Rules, Shown,
    field::Bounds,
    prompt::lora_tags,
    table::{LORA_NAME, LORA_SCALE, LORAS},
};

/// A LoRA (Hu et al. 2021, arXiv:2106.09685) with its scale.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoraUse {
    /// The name of a LoRA in the catalogue.
    pub name: String,
    /// The factor of the LoRA's change of the weights, -4 to 4.
    pub scale: f64,
}

impl LoraUse {
    pub const MAX_SCALE: f64 = 4.0;
    pub const MAX_NAME_CHARS: usize = 128;
    /// Maximum number of LoRAs of one generation.
    pub const MOST: usize = 8;

    /// Reads the field `loras` and the LoRA tags of the prompt; returns the prompt without tags, and the LoRAs. If a
    /// LoRA is named several times, its scales are added, and it keeps its first position in the list.
    pub(super) fn read(
        fields: &mut Fields,
        prompt: String,
        on: &Bounds<'_>,
        rules: &dyn Rules,
    ) -> (String, Vec<LoraUse>) {
        let (mut all, card) = (Vec::new(), on.card);
        let in_field = fields.list(&LORAS, |lora| {
            let named: Option<String> = lora.required(&LORA_NAME, on, "the name of a LoRA");
            let scale = lora.get_or_default(&LORA_SCALE, on);
            match named {
                None => {}
                Some(name) => match rules.check_lora(card, &name) {
                    Ok(()) => return Some(LoraUse { name, scale }),
                    Err((code, detail)) => lora.error("name", code, detail),
                },
            }
            None
        });
        in_field.into_iter().flatten().flatten().for_each(|lora| add(&mut all, lora));
        let (text, tags) = lora_tags(&prompt);
        // A prompt may have many tags, so each name is checked only once, and the number of checked names is at most
        // the maximum number of LoRAs.
        let mut unusable = BTreeSet::new();
        let mut too_many = false;
        for tag in tags {
            match tag {
                Ok(lora) if unusable.contains(&lora.name) => {}
                Ok(lora) if all.iter().any(|other: &LoraUse| other.name == lora.name) => add(&mut all, lora),
                Ok(_) if all.len() + unusable.len() >= LoraUse::MOST => too_many = true,
                Ok(lora) => match rules.check_lora(card, &lora.name) {
                    Ok(()) => add(&mut all, lora),
                    Err((code, detail)) => {
                        fields.error("prompt", code, format!("names a LoRA: {detail}"));
                        unusable.insert(lora.name);
                    }
                },
                Err(detail) => fields.error("prompt", "invalid_value", detail),
            }
        }
        if too_many {
            fields.error("loras", "out_of_range", format!("and the prompt must name at most {} LoRAs", LoraUse::MOST));
        }
        for LoraUse { name, scale } in &all {
            if scale.abs() > LoraUse::MAX_SCALE {
                let detail = format!("must be between -4 and 4 for {name:?}, not {} altogether", Shown(*scale));
                fields.error("loras", "out_of_range", detail);
            }
        }
        (text, all)
    }
}

fn add(all: &mut Vec<LoraUse>, lora: LoraUse) {
    match all.iter_mut().find(|other| other.name == lora.name) {
        Some(other) => other.scale += lora.scale,
        None => all.push(lora),
    }
}
