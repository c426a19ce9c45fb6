//! Pictures that steer a generation through ControlNets.

use serde::{Deserialize, Serialize};

use super::{Fields, InputImage, Rules, Shown, field::Bounds, table};

/// One entry of a request's `controls` (Zhang et al. 2023, arXiv:2302.05543).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ControlUse {
    /// The name of a ControlNet in the catalogue.
    pub model: String,
    pub image: InputImage,
    /// The factor of the ControlNet's residuals, 0 to 2.
    pub scale: f64,
    /// `start` and `end` are fractions of the run's denoiser calls, 0 to 1. The ControlNet acts in the calls that lie
    /// entirely between them.
    pub start: f64,
    pub end: f64,
    /// Whether the ControlNet acts only on the rows with the prompt, with factors that rise from 0.1 on the outermost
    /// feature maps to 1 on the innermost.
    pub guess_mode: bool,
    #[serde(default)]
    pub preprocess: Preprocess,
}

/// How the picture is processed before the ControlNet receives it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Preprocess {
    /// The picture is not processed, because it is already a map, such as edges, depth, a pose or segments.
    #[default]
    None,
    /// Edges, as OpenCV's `Canny` finds them with the thresholds 100 and 200.
    Canny,
}

impl ControlUse {
    /// Maximum number of `controls` in one request.
    pub const MOST: usize = 4;

    pub(super) fn read(fields: &mut Fields, on: &Bounds<'_>, rules: &dyn Rules) -> Vec<ControlUse> {
        let controls = fields.list(&table::CONTROLS, |fields| ControlUse::of(fields, on, rules));
        controls.into_iter().flatten().flatten().collect()
    }

    fn of(fields: &mut Fields, on: &Bounds<'_>, rules: &dyn Rules) -> Option<ControlUse> {
        let model: Option<String> = fields.required(&table::CONTROL_MODEL, on, "the name of a ControlNet");
        if let Some(Err((code, detail))) = model.as_ref().map(|name| rules.check_control(on.card, name)) {
            fields.error("model", code, detail);
        }
        let image = InputImage::read(fields, &table::CONTROL_IMAGE);
        if image.is_none() {
            fields.error("image", "required", "is required: what the ControlNet sees");
        }
        let control = ControlUse {
            model: model.unwrap_or_default(),
            image: image.clone().unwrap_or_else(InputImage::stand_in),
            scale: fields.get_or_default(&table::CONTROL_SCALE, on),
            start: fields.get_or_default(&table::CONTROL_START, on),
            end: fields.get_or_default(&table::CONTROL_END, on),
            guess_mode: fields.get_or_default(&table::CONTROL_GUESS_MODE, on),
            preprocess: fields.get_or_default(&table::CONTROL_PREPROCESS, on),
        };
        if control.start >= control.end && !fields.is_faulty("start") && !fields.is_faulty("end") {
            let detail = format!("must be below end ({}), not {}", Shown(control.end), Shown(control.start));
            fields.error("start", "out_of_range", detail);
        }
        image.map(|_| control)
    }

    /// Whether the ControlNet acts in the denoiser call with the index `call`, from 0, of a run with `calls` denoiser
    /// calls.
    pub fn acts(&self, call: usize, calls: usize) -> bool {
        let share = |call: usize| call as f64 / calls.max(1) as f64;
        share(call) >= self.start && share(call + 1) <= self.end
    }
}
