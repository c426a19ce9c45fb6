//! Work and memory of a call of the U-Net, layer by layer in the order of `forward`.

use super::UNetSpatioTemporalConfig;
use crate::models::demand::{Demand, clip_transformer, conv, of_frames, resnet, temporal_resnet};

/// The demand of the layers so far, and the skips in memory.
struct Walk {
    so_far: Demand,
    frames: usize,
    /// Floats of each skip that is still in memory.
    skips: Vec<usize>,
}

impl Walk {
    fn take(&mut self, layer: Demand) {
        self.so_far = self.so_far.then(layer.beside(self.skips.iter().sum()));
    }

    fn conv(&mut self, places: usize, inputs: usize, outputs: usize, input_places: usize) {
        self.take(of_frames(self.frames, conv(places, 3, inputs, outputs, input_places)));
    }

    fn resnet(&mut self, places: usize, inputs: usize, outputs: usize) {
        self.take(of_frames(self.frames, resnet(places, inputs, outputs)));
        self.take(temporal_resnet(places, self.frames, outputs));
    }

    fn keep(&mut self, places: usize, channels: usize) {
        self.skips.push(self.frames * places * channels);
    }
}

impl UNetSpatioTemporalConfig {
    /// The demand of one clip of `frames` frames of (h, w) latent pixels.
    pub fn demand(&self, frames: usize, [h, w]: [usize; 2]) -> Demand {
        let places = |level: usize| h.div_ceil(1 << level) * w.div_ceil(1 << level);
        let (channels, last) = (&self.block_out_channels, self.block_out_channels.len() - 1);
        let transformer = |walk: &mut Walk, level| {
            let kind = self.transformer(level);
            walk.take(clip_transformer(places(level), frames, kind.channels, kind.layers));
        };
        let mut walk = Walk { so_far: Demand::default(), frames, skips: Vec::new() };
        walk.conv(h * w, self.in_channels, channels[0], h * w);
        walk.keep(h * w, channels[0]);
        for i in 0..=last {
            let (inputs, outputs) = (channels[i.saturating_sub(1)], channels[i]);
            for j in 0..self.layers_per_block.at(i) {
                walk.resnet(places(i), if j == 0 { inputs } else { outputs }, outputs);
                if self.down_block_types[i].is_attended() {
                    transformer(&mut walk, i);
                }
                walk.keep(places(i), outputs);
            }
            if i < last {
                walk.conv(places(i + 1), outputs, outputs, places(i));
                walk.keep(places(i + 1), outputs);
            }
        }
        walk.resnet(places(last), channels[last], channels[last]);
        transformer(&mut walk, last);
        walk.resnet(places(last), channels[last], channels[last]);
        for i in 0..=last {
            let level = last - i;
            let (outputs, previous) = (channels[level], channels[(level + 1).min(last)]);
            let layers = self.layers_per_block.at(level) + 1;
            for j in 0..layers {
                let below = if j == 0 { previous } else { outputs };
                let skipped = if j + 1 == layers { channels[level.saturating_sub(1)] } else { outputs };
                walk.resnet(places(level), below + skipped, outputs);
                walk.skips.pop();
                if self.up_block_types[i].is_attended() {
                    transformer(&mut walk, level);
                }
            }
            if i < last {
                walk.conv(places(level - 1), outputs, outputs, places(level - 1));
            }
        }
        walk.conv(h * w, channels[0], self.out_channels, 2 * h * w);
        walk.so_far
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_grows_with_the_frames_and_a_little_more_and_with_the_places() {
        let config = UNetSpatioTemporalConfig::default();
        let of = |frames, size| config.demand(frames, size);
        let (one, eight) = (of(1, [24, 40]), of(8, [24, 40]));
        assert!(eight.work > 8.0 * one.work && eight.work < 8.1 * one.work, "attention between frames is small");
        assert!(eight.bytes > 7 * one.bytes && eight.bytes < 9 * one.bytes);
        assert!(of(8, [48, 80]).work > 4.0 * eight.work);
    }
}
