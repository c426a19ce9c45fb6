//! Guidance away from the prediction of a network without some of its layers.

use serde::{Deserialize, Serialize};

use super::{Fields, field::Bounds, table};

/// Skip-layer guidance: adds `scale · (cond − skipped)` to the guided prediction, where `skipped` is the conditional
/// prediction of the network without the listed layers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SkipLayerGuidance {
    /// The layers that are left out, by index; at least one.
    #[serde(rename = "skip_guidance_layers")]
    pub layers: Vec<u32>,
    #[serde(rename = "skip_layer_guidance_scale")]
    pub scale: f64,
    /// Skip-layer guidance acts on the network calls with an index i, counted from 0, for which `steps · start < i <
    /// steps · stop`.
    #[serde(rename = "skip_layer_guidance_start")]
    pub start: f64,
    #[serde(rename = "skip_layer_guidance_stop")]
    pub stop: f64,
}

impl SkipLayerGuidance {
    /// Reads the fields. `None` if the request lists no layers.
    pub(super) fn read(fields: &mut Fields, on: &Bounds<'_>) -> Option<SkipLayerGuidance> {
        let layers: Option<Vec<u32>> = fields.get(&table::SKIP_GUIDANCE_LAYERS, on);
        let settings =
            [&table::SKIP_LAYER_GUIDANCE_SCALE, &table::SKIP_LAYER_GUIDANCE_START, &table::SKIP_LAYER_GUIDANCE_STOP];
        let Some(layers) = layers else {
            for field in settings {
                if fields.take(field.name).is_some() && !fields.is_faulty(table::SKIP_GUIDANCE_LAYERS.name) {
                    fields.error(field.name, "conflict", "needs skip_guidance_layers");
                }
            }
            return None;
        };
        let [scale, start, stop]: [f64; 3] = settings.map(|field| fields.get_or_default(field, on));
        Some(SkipLayerGuidance { layers, scale, start, stop })
    }

    /// Whether skip-layer guidance acts on the network call `call`, counted from 0, of a run of `steps` steps.
    pub fn covers(&self, call: usize, steps: usize) -> bool {
        let (call, steps) = (call as f64, steps as f64);
        call > steps * self.start && call < steps * self.stop
    }
}
