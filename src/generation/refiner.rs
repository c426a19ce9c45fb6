//! The refiner of a request: a second model that draws the last steps.

use serde::{Deserialize, Serialize};

use super::{Fields, Rules, field::Bounds, table};

/// A request's `refiner`: SDXL's ensemble of experts (section 2.5 of Podell et al. 2023, arXiv:2307.01952).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refiner {
    pub model: String,
    /// The share of the training timesteps after which the refiner takes over, counted from the noisiest; between 0 and
    /// 1.
    pub switch_at: f64,
    /// `None` uses the negative prompt of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub negative_prompt: Option<String>,
    pub aesthetic_score: f64,
    pub negative_aesthetic_score: f64,
}

impl Refiner {
    pub(super) fn read(fields: &mut Fields, on: &Bounds<'_>, rules: &dyn Rules) -> Option<Refiner> {
        let card = on.card;
        let refiner = fields.nested(&table::REFINER, |fields| {
            let model: Option<String> = fields.required(&table::REFINER_MODEL, on, "the name of a model");
            let other = model.as_ref().and_then(|name| rules.card(name));
            match (&model, &other) {
                (Some(name), None) => match rules.fault(name) {
                    Some(fault) => {
                        fields.error("model", "model_unavailable", format!("{name:?} cannot be used: {fault}"))
                    }
                    None => fields.error("model", "unknown_model", format!("{name:?} is not in the catalogue")),
                },
                (Some(name), Some(other)) if card.time_id_count == 0 || !other.shares_latents_with(card) => {
                    let detail = format!("{name:?} cannot refine the latents of the model {:?}", card.name);
                    fields.error("model", "unsupported_for_model", detail);
                }
                _ => {}
            }
            Refiner {
                model: model.unwrap_or_default(),
                switch_at: fields.get_or_default(&table::SWITCH_AT, on),
                negative_prompt: fields.get(&table::REFINER_NEGATIVE_PROMPT, on),
                aesthetic_score: fields.get_or_default(&table::REFINER_AESTHETIC_SCORE, on),
                negative_aesthetic_score: fields.get_or_default(&table::REFINER_NEGATIVE_AESTHETIC_SCORE, on),
            }
        })?;
        if fields.peek("denoising_end").is_some_and(|value| !value.is_null()) {
            fields.error("refiner", "conflict", "excludes denoising_end: switch_at says where the first model ends");
        }
        Some(refiner)
    }
}
