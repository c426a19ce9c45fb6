//! Pictures that steer a generation through ControlNets.

use serde::{Deserialize, Serialize};

use super::{Fields, InputImage, Rules, field::Bounds, table};

/// One of a request's `controls` (Zhang et al. 2023, arXiv:2302.05543).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Control {
    /// Which ControlNet of the catalogue.
    pub model: String,
    pub image: InputImage,
    /// How strongly it acts, 0 to 2.
    pub scale: f64,
    /// It acts on the steps that lie wholly between these shares of them.
    pub start: f64,
    pub end: f64,
    /// Only where the prompt is followed, and less on coarse structure.
    pub guess_mode: bool,
    #[serde(default)]
    pub preprocess: Preprocess,
}

/// What is done to the picture before the network sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Preprocess {
    /// Nothing: it is a map of edges, depth, a pose, a scribble, segments … already.
    #[default]
    None,
    /// Edges, as OpenCV's `Canny` finds them with the thresholds 100 and 200.
    Canny,
}

impl Control {
    /// The most of one request.
    pub(super) const MOST: usize = 4;

    pub(super) fn read(fields: &mut Fields, on: &Bounds<'_>, rules: &dyn Rules) -> Vec<Control> {
        let controls = fields.list(&table::CONTROLS, |fields| Control::of(fields, on, rules));
        controls.into_iter().flatten().flatten().collect()
    }

    fn of(fields: &mut Fields, on: &Bounds<'_>, rules: &dyn Rules) -> Option<Control> {
        let model: Option<String> = fields.required(&table::CONTROL_MODEL, on, "the name of a ControlNet");
        if let Some(Err((code, detail))) = model.as_ref().map(|name| rules.check_control(on.card, name)) {
            fields.error("model", code, detail);
        }
        let image = InputImage::read(fields, &table::CONTROL_IMAGE);
        if image.is_none() {
            fields.error("image", "required", "is required: what the ControlNet sees");
        }
        let control = Control {
            model: model.unwrap_or_default(),
            image: image.clone().unwrap_or_else(InputImage::stand_in),
            scale: fields.get_or_default(&table::CONTROL_SCALE, on),
            start: fields.get_or_default(&table::CONTROL_START, on),
            end: fields.get_or_default(&table::CONTROL_END, on),
            guess_mode: fields.get_or_default(&table::CONTROL_GUESS_MODE, on),
            preprocess: fields.get_or_default(&table::CONTROL_PREPROCESS, on),
        };
        if control.start >= control.end && !fields.is_faulty("start") && !fields.is_faulty("end") {
            let detail = format!("must be below end, {}, not {}", control.end, control.start);
            fields.error("start", "out_of_range", detail);
        }
        image.map(|_| control)
    }

    /// Whether it acts in call `call` of `calls`, counted from 0.
    pub fn acts(&self, call: usize, calls: usize) -> bool {
        let share = |call: usize| call as f64 / calls.max(1) as f64;
        share(call) >= self.start && share(call + 1) <= self.end
    }
}
