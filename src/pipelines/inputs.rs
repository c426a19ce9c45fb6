//! The pictures that a generation begins with, as pixels.

use super::PipelineError;
use crate::{generation::Place, imaging::RgbImage};

/// A generation's pictures, one for each that its request names.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    image: Option<RgbImage>,
    mask: Option<RgbImage>,
    controls: Vec<RgbImage>,
}

impl Inputs {
    /// Puts a picture in its place; those of the generation's `controls` come in their order.
    pub fn put(&mut self, place: Place, picture: RgbImage) {
        match place {
            Place::Image => self.image = Some(picture),
            Place::Mask => self.mask = Some(picture),
            Place::Control(_) => self.controls.push(picture),
        }
    }

    /// The picture in this place.
    ///
    /// # Errors
    /// [`PipelineError::MissingInput`].
    pub(super) fn of(&self, place: Place) -> Result<&RgbImage, PipelineError> {
        let found = match place {
            Place::Image => self.image.as_ref(),
            Place::Mask => self.mask.as_ref(),
            Place::Control(i) => self.controls.get(i),
        };
        found.ok_or(PipelineError::MissingInput(place.name()))
    }
}
