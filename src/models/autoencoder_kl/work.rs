use std::ops::Range;

/// What a layer does for one row, in multiplications.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Work {
    /// Places of its output for each latent pixel, along one side.
    scale: usize,
    per_place: usize,
    /// For each two places, in attention.
    per_pair: usize,
}

impl Work {
    /// Four projections of `channels`, and every place with every place.
    pub fn attention(scale: usize, channels: usize) -> Self {
        Self { scale, per_place: 4 * channels * channels, per_pair: 2 * channels }
    }

    /// For (h, w) latent pixels.
    pub fn at(self, h: usize, w: usize) -> f64 {
        let places = (self.scale * self.scale * h * w) as f64;
        places * (self.per_place as f64 + places * self.per_pair as f64)
    }
}

/// A convolution 3×3.
pub(super) fn conv(scale: usize, inputs: usize, outputs: usize) -> Work {
    Work { scale, per_place: 9 * inputs * outputs, per_pair: 0 }
}

/// Two convolutions, and one of a pixel where the width changes.
pub(super) fn resnet(scale: usize, inputs: usize, outputs: usize) -> Work {
    let shortcut = if inputs == outputs { 0 } else { inputs * outputs };
    Work { scale, per_place: 9 * outputs * (inputs + outputs) + shortcut, per_pair: 0 }
}

/// Layers that follow each other, in stages of about a `quantum` of work: as many layers as fit, or one that is larger.
pub(super) fn stages(layers: &[f64], quantum: f64) -> Vec<Stage> {
    let mut stages: Vec<Stage> = Vec::new();
    for (i, work) in layers.iter().enumerate() {
        match stages.last_mut().filter(|stage| stage.work + work <= quantum) {
            Some(stage) => {
                stage.work += work;
                stage.layers.end = i + 1;
            }
            None => stages.push(Stage { layers: i..i + 1, work: *work }),
        }
    }
    stages
}

/// Some layers of a decoder that run as one call.
#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    pub layers: Range<usize>,
    /// Multiplications for one row.
    pub work: f64,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn stages_are_all_layers_in_order_and_as_few_as_fit(
            layers in prop::collection::vec(0.0f64..10.0, 1..30),
            quantum in 0.0f64..25.0,
        ) {
            let stages = stages(&layers, quantum);
            let in_order: Vec<usize> = stages.iter().flat_map(|stage| stage.layers.clone()).collect();
            prop_assert_eq!(in_order, (0..layers.len()).collect::<Vec<_>>());
            for (i, stage) in stages.iter().enumerate() {
                let work: f64 = layers[stage.layers.clone()].iter().sum();
                prop_assert!((stage.work - work).abs() < 1e-9);
                prop_assert!(stage.layers.len() == 1 || work <= quantum + 1e-9, "{:?}", stage);
                if let Some(next) = stages.get(i + 1) {
                    prop_assert!(work + layers[next.layers.start] > quantum - 1e-9, "{:?} has room", stage);
                }
            }
        }
    }

    #[test]
    fn work_grows_with_the_places_and_attention_with_their_square() {
        assert_eq!(conv(1, 4, 8).at(2, 3), (9 * 4 * 8 * 6) as f64);
        assert_eq!(conv(2, 4, 8).at(2, 3), (9 * 4 * 8 * 24) as f64);
        assert_eq!(resnet(1, 4, 8).at(1, 1), (9 * 4 * 8 + 9 * 8 * 8 + 4 * 8) as f64);
        assert_eq!(resnet(1, 8, 8).at(1, 1), (2 * 9 * 8 * 8) as f64);
        assert_eq!(Work::attention(1, 5).at(2, 2), (4 * 25 * 4 + 2 * 5 * 16) as f64);
    }
}
