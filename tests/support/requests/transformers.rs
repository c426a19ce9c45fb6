//! Draws the fields that models with transformers take.

use serde_json::{Value, json};

use super::Draw;

impl Draw<'_> {
    /// Whether the model takes the schedulers of flow matching only, or computes other noise levels with them.
    pub(super) fn is_of_flow_matching(&self) -> bool {
        self.can["default_scheduler"].as_str().is_some_and(|name| name.starts_with("flow"))
    }

    /// Sets the scheduler, and steps or a list of levels; returns the number of steps.
    pub(super) fn flow_schedule(&mut self, steps: u64) -> u64 {
        match self.random.whole(0, 9) {
            0 => self.set("sigmas", (0..steps).map(|i| 1.0 - i as f64 / steps as f64).collect::<Vec<_>>()),
            1 => self.set("timesteps", (0..steps).map(|i| 999 - i * 999 / steps).collect::<Vec<_>>()),
            _ => self.set("steps", steps),
        }
        match self.random.whole(0, 9) {
            0..3 if self.body.contains_key("steps") => {
                let name = self.random.pick(self.can["schedulers"].as_array().unwrap()).clone();
                self.set("scheduler", name);
            }
            3..5 => {
                let random = &mut self.random;
                let keys = json!({"shift": random.number(0.5, 6.0), "stochastic_sampling": random.chance(30)});
                self.set("scheduler", keys);
            }
            _ => {}
        }
        steps
    }

    /// Sets `image` to a picture or a list for a model that edits pictures, perhaps with a mask; returns the number of
    /// steps that remain to run.
    pub(super) fn references(&mut self, steps: u64) -> u64 {
        let pictures = &self.of.pictures;
        match self.random.whole(0, 5) {
            0..2 => return steps,
            2 => {
                let picture = self.random.pick(pictures).clone();
                self.set("image", picture);
            }
            3..5 => {
                let count = self.random.whole(1, self.most_pictures());
                let list: Vec<Value> = (0..count).map(|_| self.random.pick(pictures).clone()).collect();
                self.set("image", list);
            }
            _ => {
                let (image, mask) = (self.random.pick(pictures).clone(), self.random.pick(&self.of.masks).clone());
                self.set("image", image);
                self.set("mask", mask);
                self.maybe(30, "mask_blur", |random| random.whole(0, 16));
                self.maybe(50, "keep_unmasked", |random| random.chance(50));
                let strength = self.random.number(0.1, 1.0);
                self.set("strength", strength);
            }
        }
        steps
    }

    /// How many pictures `image` may list.
    fn most_pictures(&self) -> u64 {
        let kinds = self.takes["image"]["anyOf"].as_array().into_iter().flatten();
        kinds.filter_map(|kind| kind["maxItems"].as_u64()).max().expect("a model that edits takes lists of pictures")
    }

    pub(super) fn transformer(&mut self) {
        let most = self.takes["max_sequence_length"]["maximum"].as_u64().unwrap_or(1);
        // Most draws are short, so that they are fast.
        self.maybe(95, "max_sequence_length", |random| match random.chance(5) {
            true => most,
            false => *random.pick(&[1, 7, 16, 32, 33, 64]),
        });
        self.maybe(40, "true_guidance_scale", |random| random.number(0.0, 6.0));
        self.maybe(40, "cfg_normalization", |random| random.chance(50));
        self.maybe(40, "cfg_truncation", |random| random.number(0.0, 1.0));
        if self.takes("skip_guidance_layers") && self.random.chance(40) {
            let last = self.takes["skip_guidance_layers"]["items"]["maximum"].as_u64().unwrap();
            let first = self.random.whole(0, last);
            let end = self.random.whole(first, last);
            self.set("skip_guidance_layers", (first..=end).collect::<Vec<_>>());
            self.maybe(50, "skip_layer_guidance_scale", |random| random.number(0.0, 5.0));
            self.maybe(50, "skip_layer_guidance_start", |random| random.number(0.0, 0.5));
            self.maybe(50, "skip_layer_guidance_stop", |random| random.number(0.5, 1.0));
        }
    }
}
