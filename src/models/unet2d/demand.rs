//! Work and memory of a call of the U-Net, layer by layer in the order of `forward`.

use super::{
    configuration::UNet2DConfig,
    layout::{Block, Resampler},
};
use crate::models::demand::{Demand, attention, conv, resnet};

/// The demand of the layers so far, and the skips in memory.
struct Walk {
    so_far: Demand,
    /// Floats of each skip that is still in memory.
    skips: Vec<usize>,
}

impl Walk {
    fn take(&mut self, layer: Demand) {
        self.so_far = self.so_far.then(layer.beside(self.skips.iter().sum()));
    }

    fn attention(&mut self, block: &Block, places: usize) {
        self.take(attention(places, block.outputs));
    }

    /// Adds the layers at the end of a block, which turn maps of `before` places into maps of `after` places.
    fn resample(&mut self, block: &Block, before: usize, after: usize) {
        match block.resampler {
            Some(Resampler::Conv) => self.take(conv(after, 3, block.outputs, block.outputs, before.max(after))),
            Some(Resampler::Resnet(..)) => {
                // The first norm runs at the old size; the convolutions run at the new size.
                self.take(resnet(after, block.outputs, block.outputs).beside(2 * before * block.outputs));
            }
            None => {}
        }
    }
}

impl UNet2DConfig {
    /// The demand of one row of (h, w) places.
    pub fn demand(&self, [h, w]: [usize; 2]) -> Demand {
        let places = |level: usize| h.div_ceil(1 << level) * w.div_ceil(1 << level);
        let (channels, last) = (&self.block_out_channels, self.block_out_channels.len() - 1);
        let mut walk = Walk { so_far: Demand::default(), skips: Vec::new() };
        walk.take(conv(h * w, 3, self.in_channels, channels[0], h * w));
        walk.skips.push(h * w * channels[0]);
        for level in 0..=last {
            let block = self.down(level);
            for (j, layer) in block.resnets.iter().enumerate() {
                walk.take(resnet(places(level), layer.inputs, block.outputs));
                if j < block.attentions.len() {
                    walk.attention(&block, places(level));
                }
                walk.skips.push(places(level) * block.outputs);
            }
            if block.resampler.is_some() {
                walk.resample(&block, places(level), places(level + 1));
                walk.skips.push(places(level + 1) * block.outputs);
            }
        }
        if let Some(block) = self.middle() {
            for (j, layer) in block.resnets.iter().enumerate() {
                walk.take(resnet(places(last), layer.inputs, block.outputs));
                if j < block.attentions.len() {
                    walk.attention(&block, places(last));
                }
            }
        }
        for i in 0..=last {
            let (block, level) = (self.up(i), last - i);
            for (j, layer) in block.resnets.iter().enumerate() {
                walk.take(resnet(places(level), layer.inputs, block.outputs));
                walk.skips.pop();
                if j + block.attentions.len() >= block.resnets.len() {
                    walk.attention(&block, places(level));
                }
            }
            if block.resampler.is_some() {
                walk.resample(&block, places(level), places(level - 1));
            }
        }
        walk.take(conv(h * w, 3, channels[0], self.out_channels, 2 * h * w));
        walk.so_far
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_grows_with_the_places_and_attention_with_their_square() {
        let config = UNet2DConfig::default();
        let (small, large) = (config.demand([32, 32]), config.demand([64, 64]));
        assert!(large.work > 4.0 * small.work && large.work < 8.0 * small.work, "{small:?} {large:?}");
        assert_eq!(large.bytes, 4 * small.bytes);
    }
}
