//! The pictures that a generation starts from, as pixels.

use super::PipelineError;
use crate::{generation::ImageField, imaging::RgbImage};

/// The uploaded pictures of a generation.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    image: Option<RgbImage>,
    mask: Option<RgbImage>,
    controls: Vec<RgbImage>,
}

impl Inputs {
    /// Stores the picture of a field. Pictures of `controls` must be stored in the order of the request.
    pub fn put(&mut self, place: ImageField, picture: RgbImage) {
        match place {
            ImageField::Image => self.image = Some(picture),
            ImageField::Mask => self.mask = Some(picture),
            ImageField::Control(_) => self.controls.push(picture),
        }
    }

    /// The picture of a field.
    ///
    /// # Errors
    /// [`PipelineError::MissingInput`] if the picture was not stored.
    pub(super) fn of(&self, place: ImageField) -> Result<&RgbImage, PipelineError> {
        let found = match place {
            ImageField::Image => self.image.as_ref(),
            ImageField::Mask => self.mask.as_ref(),
            ImageField::Control(i) => self.controls.get(i),
        };
        found.ok_or(PipelineError::MissingInput(place.name()))
    }
}
