//! A second model that draws the last steps.

use serde::{Deserialize, Serialize};

use super::{Fields, ModelCard, Rules, sdxl::share};

/// A request's `refiner`: SDXL's ensemble of experts (section 2.5 of Podell et al. 2023, arXiv:2307.01952).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refiner {
    pub model: String,
    /// After this share of the steps, between 0 and 1.
    pub switch_at: f64,
    /// `None` is the request's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub negative_prompt: Option<String>,
    pub aesthetic_score: f64,
    pub negative_aesthetic_score: f64,
}

impl Refiner {
    pub(super) fn read(fields: &mut Fields, card: &ModelCard, rules: &dyn Rules, max_chars: usize) -> Option<Refiner> {
        let refiner = fields.nested("refiner", |fields| {
            let model = fields.required_text("model", 128, "the name of a model");
            let other = model.as_ref().and_then(|name| rules.card(name));
            match (&model, &other) {
                (Some(name), None) => match rules.fault(name) {
                    Some(fault) => {
                        fields.error("model", "model_unavailable", format!("{name:?} cannot be used: {fault}"))
                    }
                    None => fields.error("model", "unknown_model", format!("{name:?} is not in the catalogue")),
                },
                (Some(name), Some(other)) if card.time_ids == 0 || !other.shares_latents_with(card) => {
                    let detail = format!("{name:?} cannot go on where the model {:?} leaves off", card.name);
                    fields.error("model", "unsupported_for_model", detail);
                }
                _ => {}
            }
            Refiner {
                model: model.unwrap_or_default(),
                switch_at: share(fields, "switch_at").unwrap_or(0.8),
                negative_prompt: fields.text("negative_prompt", max_chars),
                aesthetic_score: fields.number("aesthetic_score", 0.0, 10.0).unwrap_or(6.0),
                negative_aesthetic_score: fields.number("negative_aesthetic_score", 0.0, 10.0).unwrap_or(2.5),
            }
        })?;
        if fields.peek("denoising_end").is_some_and(|value| !value.is_null()) {
            fields.error("refiner", "conflict", "excludes denoising_end: switch_at says where the first model ends");
        }
        Some(refiner)
    }
}
