//! The search for the scale, the contrast and the place of a watermark.

use super::{
    Detected, code,
    detect::{self, Candidate},
    layout::{Layout, TILE},
    plane::Plane,
};

/// Candidates that are decoded at most. Each passes the check by chance with a probability of 2⁻³².
const ATTEMPTS: usize = 16;

/// A size of the picture in relation to its size when it was marked, and how thoroughly to look there.
struct Hypothesis {
    scale: f32,
    /// The part in the middle that is read, in pixels of the marked picture.
    side: usize,
    gains: &'static [f32],
    /// Amounts by which the picture is sharpened, because making it smaller made it softer.
    sharpenings: &'static [f32],
}

/// Contrasts in relation to the marked picture.
const GAINS: &[f32] = &[1.0, 0.95, 1.05, 0.9, 1.1, 1.075, 1.025];

const HYPOTHESES: &[Hypothesis] = &[
    Hypothesis { scale: 1.0, side: 640, gains: GAINS, sharpenings: &[0.0] },
    Hypothesis { scale: 0.5, side: 512, gains: GAINS, sharpenings: &[0.06, 0.12, 0.0, 0.2] },
    Hypothesis { scale: 2.0, side: 640, gains: GAINS, sharpenings: &[0.0] },
];

/// The watermark of a picture, if it has one.
pub(super) fn search(picture: &Plane) -> Option<Detected> {
    let layout = Layout::new();
    let mut attempts = ATTEMPTS;
    for hypothesis in HYPOTHESES {
        let mut candidates = candidates(picture, hypothesis, &layout);
        candidates.sort_by(|one, other| other.shift.score.total_cmp(&one.shift.score));
        for candidate in candidates.iter().take(attempts.min(ATTEMPTS / 2)) {
            attempts -= 1;
            if let Some(decoded) = code::decode(&candidate.soft) {
                return Some(Detected {
                    payload: decoded.payload,
                    corrected: decoded.corrected,
                    score: candidate.shift.score,
                    scale: hypothesis.scale,
                });
            }
        }
    }
    None
}

fn candidates(picture: &Plane, hypothesis: &Hypothesis, layout: &Layout) -> Vec<Candidate> {
    let Hypothesis { scale, side, gains, sharpenings } = hypothesis;
    let part = picture.middle((*side as f32 * scale) as usize);
    let [width, height] = [part.width, part.height].map(|side| (side as f32 / scale + 0.5) as usize);
    if width < TILE / 2 || height < TILE / 2 {
        return Vec::new();
    }
    let mut candidates = Vec::new();
    for sharpening in *sharpenings {
        let part = if *sharpening > 0.0 { &part.sharpened(*sharpening) } else { &part };
        let plane = if *scale == 1.0 { part } else { &part.resized(width, height) };
        candidates.extend(detect::candidates(plane, gains, layout));
    }
    candidates
}
