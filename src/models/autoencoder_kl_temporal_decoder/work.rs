//! Work and memory of the layers of the decoder.

use super::AutoencoderKlTemporalDecoderConfig;
use crate::models::demand::{Demand, attention, conv, of_frames, resnet, temporal_resnet};

impl AutoencoderKlTemporalDecoderConfig {
    /// The demand of decoding one clip of `frames` frames of (h, w) latent pixels.
    pub fn decode_demand(&self, frames: usize, size: [usize; 2]) -> Demand {
        self.decode_layers(frames, size).into_iter().fold(Demand::default(), Demand::then)
    }

    /// The demand of encoding one picture of (H, W) pixels.
    pub fn encode_demand(&self, size: [usize; 2]) -> Demand {
        self.pictures.encode_demand(size)
    }

    /// The demand of each layer of the decoder, in the order in which they run.
    pub(super) fn decode_layers(&self, frames: usize, [h, w]: [usize; 2]) -> Vec<Demand> {
        let sizes = &self.pictures;
        let (channels, last) = (&sizes.block_out_channels, sizes.block_out_channels.len() - 1);
        let (places, width) = (h * w, channels[last]);
        let each = |layer| of_frames(frames, layer);
        let block = |places, inputs, outputs| {
            each(resnet(places, inputs, outputs)).then(temporal_resnet(places, frames, outputs))
        };
        let mut layers = vec![each(conv(places, 3, sizes.latent_channels, width, places)), block(places, width, width)];
        if sizes.layers_per_block > 1 {
            layers.extend([each(attention(places, width)), block(places, width, width)]);
        }
        for i in 0..=last {
            let ((inputs, outputs), places) = (self.widths(i), places << (2 * i));
            layers.push(block(places, inputs, outputs));
            layers.extend((0..sizes.layers_per_block).map(|_| block(places, outputs, outputs)));
            layers.extend((i < last).then(|| each(conv(4 * places, 3, outputs, outputs, 4 * places))));
        }
        let places = places << (2 * last);
        layers.push(each(conv(places, 3, channels[0], sizes.out_channels, 2 * places)));
        layers
    }
}
