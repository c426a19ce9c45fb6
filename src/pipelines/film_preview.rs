//! Cheap previews of films: the middle frame of an estimate, by a linear map from latents to colors.

use super::{Frame, LatentRgb};

/// The linear map of a model of films, and how its sampler orders the latents.
#[derive(Clone, Debug)]
pub struct FilmPreview {
    pub map: LatentRgb,
    pub order: FilmOrder,
}

/// The order of the latents of a film.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilmOrder {
    /// (F, C, h, w)
    FramesOutside,
    /// (C, F, h, w)
    ChannelsOutside,
}

impl FilmPreview {
    /// The preview of the latent frame ⌊F / 2⌋ of an estimate of (F · C, h, w) or (C · F, h, w), with w × h pixels;
    /// `None` if F is 0 or the estimate has another shape.
    pub fn frame(&self, estimate: &[f32], [rows, h, w]: [usize; 3]) -> Option<Frame> {
        let (c, plane) = (self.map.weight.len(), h * w);
        let f = rows.checked_div(c)?;
        if f == 0 || rows != f * c || estimate.len() != rows * plane {
            return None;
        }
        let row = |channel| match self.order {
            FilmOrder::FramesOutside => f / 2 * c + channel,
            FilmOrder::ChannelsOutside => channel * f + f / 2,
        };
        let latents: Vec<f32> =
            (0..c).flat_map(|channel| estimate[row(channel) * plane..][..plane].iter().copied()).collect();
        Some(self.map.frame(&latents, [c, h, w]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frame 1 of 3 has the level 1 in its first channel, which is red.
    #[test]
    fn the_preview_is_the_middle_frame_in_both_orders() {
        let map = LatentRgb { weight: vec![[1.0, -1.0, -1.0], [0.0; 3]], bias: [0.0; 3] };
        let (h, w) = (1, 2);
        for (order, row) in [(FilmOrder::FramesOutside, 2), (FilmOrder::ChannelsOutside, 1)] {
            let preview = FilmPreview { map: map.clone(), order };
            let mut estimate = vec![0.0; 6 * h * w];
            estimate[row * h * w..][..h * w].fill(1.0);
            assert_eq!(preview.frame(&estimate, [6, h, w]), Some(Frame::picture(2, 1, vec![255, 0, 0, 255, 0, 0])));
            assert_eq!(preview.frame(&estimate, [5, h, w]), None, "no whole number of frames");
            assert_eq!(preview.frame(&[], [0, h, w]), None);
        }
    }
}
