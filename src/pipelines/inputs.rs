//! The pictures that a generation begins with, as pixels.

use crate::imaging::RgbImage;

/// A generation's pictures, one for each that its request names.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    pub image: Option<RgbImage>,
    pub mask: Option<RgbImage>,
    /// One for each of the generation's `controls`.
    pub controls: Vec<RgbImage>,
}
