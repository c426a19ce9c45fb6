//! The search for the scale, the contrast and the place of a watermark.

use super::{
    Detected, code,
    detect::{self, Candidate},
    layout::{Layout, TILE},
    plane::Plane,
};

/// The maximum number of candidates that are decoded. A candidate that is no watermark passes the check with a
/// probability of 2⁻³².
const ATTEMPTS: usize = 32;
/// The maximum number of candidates that are decoded for one assumed size, so that attempts are left for other sizes.
const ATTEMPTS_PER_SIZE: usize = 4;

/// The contrasts that the search assumes, in relation to the contrast of the marked picture.
const GAINS: &[f32] = &[1.0, 0.95, 1.05, 0.9, 1.1, 1.075, 1.025];
/// The amounts by which the search sharpens a picture that may have become softer when its size was halved.
const SHARPENINGS: &[f32] = &[0.06, 0.12, 0.0, 0.2];

/// Widths that pictures often have when they are marked, in pixels.
const WIDTHS: [usize; 24] = [
    128, 192, 256, 320, 384, 448, 512, 576, 640, 704, 768, 832, 896, 960, 1024, 1088, 1152, 1216, 1280, 1344, 1408,
    1536, 1792, 2048,
];
/// The maximum number of pixels of a picture that is tried with [`WIDTHS`], because each try resizes the whole picture.
const MAX_PIXELS: usize = 1 << 21;

/// The watermark of a picture, if the search finds one. The search assumes one size after the other for the picture at
/// the time when it was marked: its present size, twice this size, half of this size, and then each of [`WIDTHS`].
/// Except with [`WIDTHS`], parts of the picture may have been cropped away.
pub(super) fn search(picture: &Plane) -> Option<Detected> {
    let mut search = Search { layout: Layout::new(), attempts: ATTEMPTS };
    let found = search.look(&picture.middle(640, 1), 1.0, GAINS);
    found.or_else(|| search.half(picture)).or_else(|| search.double(picture)).or_else(|| search.resized(picture))
}

struct Search {
    layout: Layout,
    /// How many candidates may still be decoded.
    attempts: usize,
}

impl Search {
    /// Looks for a watermark, assuming that the picture was marked at twice its present size.
    fn half(&mut self, picture: &Plane) -> Option<Detected> {
        let part = picture.middle(256, 1);
        let look = |amount: &f32| {
            let plane = part.sharpened(*amount).resized(2 * part.width, 2 * part.height)?;
            self.look(&plane, 0.5, GAINS)
        };
        SHARPENINGS.iter().find_map(look)
    }

    /// Looks for a watermark, assuming that the picture was marked at half its present size.
    fn double(&mut self, picture: &Plane) -> Option<Detected> {
        let part = picture.middle(1280, 2);
        self.look(&part.resized(part.width / 2, part.height / 2)?, 2.0, GAINS)
    }

    /// Looks for a watermark, assuming that the picture was marked at one of [`WIDTHS`], with a height that is a
    /// multiple of 8, and that no part was cropped away.
    fn resized(&mut self, picture: &Plane) -> Option<Detected> {
        if picture.values.len() > MAX_PIXELS {
            return None;
        }
        let look = |marked: &usize| {
            let scale = picture.width as f32 / *marked as f32;
            let height = 8 * (picture.height as f32 / scale / 8.0 + 0.5) as usize;
            let is_whole = (height as f32 * scale - picture.height as f32).abs() < 0.75;
            // The other steps of the search have looked at these scales.
            if !is_whole || !(0.3..=3.0).contains(&scale) || [0.5, 1.0, 2.0].contains(&scale) {
                return None;
            }
            let sharpening = if scale < 1.0 { 0.06 } else { 0.0 };
            let plane = picture.sharpened(sharpening).resized(*marked, height)?;
            self.look(&plane.middle(320, 1), scale, &GAINS[..1])
        };
        WIDTHS.iter().find_map(look)
    }

    /// Looks for a watermark in a picture of the size that it had when it was marked, and decodes the candidates from
    /// the best to the worst.
    fn look(&mut self, plane: &Plane, scale: f32, gains: &[f32]) -> Option<Detected> {
        if plane.width < TILE / 2 || plane.height < TILE / 2 {
            return None;
        }
        let mut candidates = detect::candidates(plane, gains, &self.layout);
        candidates.sort_by(|one, other| other.shift.sum.total_cmp(&one.shift.sum));
        candidates.truncate(self.attempts.min(ATTEMPTS_PER_SIZE));
        self.attempts -= candidates.len();
        let decoded = |Candidate { shift, soft }: Candidate| Some((shift, code::decode(&soft)?));
        let (shift, decoded) = candidates.into_iter().find_map(decoded)?;
        let code::Decoded { payload, corrected } = decoded;
        Some(Detected { payload, corrected, score: shift.score, scale })
    }
}
