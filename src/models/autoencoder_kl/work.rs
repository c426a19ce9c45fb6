//! Work and memory of an autoencoder's layers, and the stages of decoding.

use std::ops::Range;

use super::AutoencoderKlConfig;
use crate::models::demand::{Demand, attention, conv, resnet};

impl AutoencoderKlConfig {
    /// The demand of decoding one row of (h, w) latent pixels in one piece.
    pub fn decode_demand(&self, h: usize, w: usize) -> Demand {
        self.decode_layers(h, w).into_iter().fold(Demand::default(), Demand::then)
    }

    /// The demand of each layer of the decoder, in the order in which they run.
    pub(super) fn decode_layers(&self, h: usize, w: usize) -> Vec<Demand> {
        let channels = &self.block_out_channels;
        let (first, last) = (channels[0], channels.len() - 1);
        let (places, width) = (h * w, channels[last]);
        let mut layers = vec![conv(places, 3, self.latent_channels, width, places), resnet(places, width, width)];
        layers.extend(self.mid_block_add_attention.then(|| attention(places, width)));
        layers.push(resnet(places, width, width));
        for i in 0..=last {
            let (inputs, outputs) = (channels[(last - i + 1).min(last)], channels[last - i]);
            let places = places << (2 * i);
            layers.push(resnet(places, inputs, outputs));
            layers.extend((0..self.layers_per_block).map(|_| resnet(places, outputs, outputs)));
            layers.extend((i < last).then(|| conv(4 * places, 3, outputs, outputs, 4 * places)));
        }
        let places = places << (2 * last);
        layers.push(conv(places, 3, first, self.out_channels, 2 * places));
        layers
    }

    /// The demand of encoding one picture of (H, W) pixels.
    pub fn encode_demand(&self, [height, width]: [usize; 2]) -> Demand {
        let channels = &self.block_out_channels;
        let last = channels.len() - 1;
        let places = |level: usize| height.div_ceil(1 << level) * width.div_ceil(1 << level);
        let mut demand = conv(places(0), 3, self.in_channels, channels[0], places(0));
        for (i, outputs) in channels.iter().copied().enumerate() {
            for j in 0..self.layers_per_block {
                let inputs = if j == 0 { channels[i.saturating_sub(1)] } else { outputs };
                demand = demand.then(resnet(places(i), inputs, outputs));
            }
            if i < last {
                demand = demand.then(conv(places(i + 1), 3, outputs, outputs, places(i)));
            }
        }
        let (places, width) = (places(last), channels[last]);
        demand = demand.then(resnet(places, width, width));
        if self.mid_block_add_attention {
            demand = demand.then(attention(places, width));
        }
        demand.then(resnet(places, width, width)).then(conv(places, 3, width, 2 * self.latent_channels, 2 * places))
    }
}

/// Groups consecutive layers into stages of at most `quantum` work. A layer with more work is a stage of its own.
pub(in crate::models) fn stages(layers: &[Demand], quantum: f64) -> Vec<Stage> {
    let mut stages: Vec<Stage> = Vec::new();
    for (i, layer) in layers.iter().enumerate() {
        match stages.last_mut().filter(|stage| stage.demand.work + layer.work <= quantum) {
            Some(stage) => {
                stage.demand = stage.demand.then(*layer);
                stage.layers.end = i + 1;
            }
            None => stages.push(Stage { layers: i..i + 1, demand: *layer }),
        }
    }
    stages
}

/// Consecutive layers of a decoder that run as one call.
#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    pub layers: Range<usize>,
    /// The demand of one row.
    pub demand: Demand,
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
            let demands: Vec<Demand> = layers.iter().map(|work| Demand { work: *work, bytes: *work as u64 }).collect();
            let stages = stages(&demands, quantum);
            let in_order: Vec<usize> = stages.iter().flat_map(|stage| stage.layers.clone()).collect();
            prop_assert_eq!(in_order, (0..layers.len()).collect::<Vec<_>>());
            for (i, stage) in stages.iter().enumerate() {
                let work: f64 = layers[stage.layers.clone()].iter().sum();
                prop_assert!((stage.demand.work - work).abs() < 1e-9);
                prop_assert!(stage.layers.len() == 1 || work <= quantum + 1e-9, "{:?}", stage);
                if let Some(next) = stages.get(i + 1) {
                    prop_assert!(work + layers[next.layers.start] > quantum - 1e-9, "{:?} is not full", stage);
                }
            }
        }
    }

    #[test]
    fn decode_layers_are_those_of_the_decoder_and_attention_grows_with_the_square_of_the_places() {
        let config = AutoencoderKlConfig { block_out_channels: vec![8, 16], ..AutoencoderKlConfig::default() };
        let layers = config.decode_layers(2, 3);
        assert_eq!(
            layers.len(),
            1 + 3 + 3 + 2 + 1,
            "in, the middle, a block of two, an upsampling, a block of two, out"
        );
        assert_eq!(layers[0].work, (9 * 4 * 16 * 6) as f64);
        assert_eq!(layers[2].work, (4 * 16 * 16 * 6 + 2 * 16 * 6 * 6) as f64);
        assert_eq!(layers[6].work, (9 * 16 * 16 * 24) as f64);
        assert_eq!(layers[9].work, (9 * 8 * 3 * 24) as f64);
        let (small, large) = (config.encode_demand([64, 64]), config.encode_demand([128, 128]));
        assert!(large.work > 4.0 * small.work && large.bytes == 4 * small.bytes);
    }
}
