//! The pictures that a generation starts from, as pixels.

use super::{
    Loaded, NetworkError, PipelineError,
    antialiased::{CLIP_SIDE, antialiased},
    masked_picture::MaskedPicture,
    pixels::{at, bounded},
};
use crate::{
    generation::{Draw, Film, ImageField, ImageInfluence},
    imaging::RgbImage,
    models::{qwen3_vl::Picture, text_encoders::SeenPicture},
};

/// The uploaded pictures of a generation, in the sizes in which they were sent.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    image: Option<RgbImage>,
    /// If the request has a list of pictures: all pictures of the list except the first.
    further: Vec<RgbImage>,
    mask: Option<RgbImage>,
    controls: Vec<RgbImage>,
}

impl Inputs {
    /// Stores the picture of a field. Pictures of a list and pictures of `controls` must be stored in the order of the
    /// request.
    pub fn put(&mut self, place: ImageField, picture: RgbImage) {
        match place {
            ImageField::Image | ImageField::Reference(0) => self.image = Some(picture),
            ImageField::Reference(_) => self.further.push(picture),
            ImageField::Mask => self.mask = Some(picture),
            ImageField::Control(_) => self.controls.push(picture),
        }
    }

    /// Brings each picture to the size in which a network reads it, and drops the uploaded pictures, which may be far
    /// larger. Most pictures get the size that is drawn. References keep their own sizes up to a limit, the text
    /// encoder sees a picture in a size of its own, and `padding_mask_crop` crops a picture without resizing it. Takes
    /// seconds for the largest pictures. `sees`: whether the model's text encoder sees the picture.
    pub fn fitted(self, draw: &Draw, sees: bool) -> FittedInputs {
        let Inputs { image, further, mask, controls } = self;
        let size = [draw.height as usize, draw.width as usize];
        let controls = controls.into_iter().map(|picture| at(&picture, size)).collect();
        let settings = draw.source.as_ref().and_then(|source| source.mask.as_ref());
        match (image, mask, settings) {
            (Some(image), Some(mask), Some(settings)) => FittedInputs {
                masked: Some(MaskedPicture::new(image, mask, settings, size)),
                controls,
                ..FittedInputs::default()
            },
            // References keep their own sizes up to a limit.
            (Some(image), ..) if is_reference(draw) && !sees => {
                let references = [image].into_iter().chain(further).map(bounded).collect();
                FittedInputs { references, controls, ..FittedInputs::default() }
            }
            (image, ..) => {
                let seen = image.as_ref().filter(|_| sees).map(|image| SeenPicture::new(Picture::square(image)));
                FittedInputs { image: image.map(|image| at(&image, size)), seen, controls, ..FittedInputs::default() }
            }
        }
    }

    /// Brings the picture that a film begins with to the size of the film and, for models with an encoder of pictures,
    /// to the size that this encoder sees.
    ///
    /// # Errors
    /// The encoder cannot see the picture.
    pub fn fitted_to_film(self, film: &Film, networks: &dyn Loaded) -> Result<FittedInputs, NetworkError> {
        let size = [film.height as usize, film.width as usize];
        let Some(image) = self.image else { return Ok(FittedInputs::default()) };
        let for_encoder = match film.motion {
            Some(_) => Some(antialiased(&image, CLIP_SIDE)),
            None => networks.picture_for_encoder(&image)?,
        };
        Ok(FittedInputs { image: Some(at(&image, size)), for_encoder, ..FittedInputs::default() })
    }
}

fn is_reference(draw: &Draw) -> bool {
    draw.source.as_ref().is_some_and(|source| source.hold == ImageInfluence::Reference {})
}

/// The pictures of a generation in the sizes in which the networks read them; see [`Inputs::fitted`].
#[derive(Clone, Debug, Default)]
pub struct FittedInputs {
    /// In the size that is drawn.
    image: Option<RgbImage>,
    /// The input of CLIP's encoder of pictures, if a film begins with a picture and the model has such an encoder. For
    /// Stable Video Diffusion, these are pixels (3, side, side) in [0, 1]; for Wan, normalized pixels (side, side, 3).
    for_encoder: Option<Vec<f32>>,
    /// The picture for the text encoder.
    seen: Option<SeenPicture>,
    references: Vec<RgbImage>,
    masked: Option<MaskedPicture>,
    /// In the size that is drawn.
    controls: Vec<RgbImage>,
}

impl FittedInputs {
    /// The picture of a request without a mask, in the size that is drawn.
    ///
    /// # Errors
    /// [`PipelineError::MissingInput`] if the picture was not stored.
    pub(super) fn image(&self) -> Result<&RgbImage, PipelineError> {
        self.image.as_ref().ok_or(PipelineError::MissingInput("image"))
    }

    /// The picture that a film begins with, as the input of CLIP's encoder of pictures. For Stable Video Diffusion,
    /// these are pixels (3, side, side) in [0, 1]; for Wan, normalized pixels (side, side, 3).
    ///
    /// # Errors
    /// [`PipelineError::MissingInput`] if the picture was not stored.
    pub(super) fn for_encoder(&self) -> Result<&[f32], PipelineError> {
        self.for_encoder.as_deref().ok_or(PipelineError::MissingInput("image"))
    }

    /// The picture of a request as the text encoder sees it; `None` if the text encoder sees no pictures.
    pub(super) fn seen(&self) -> Option<&SeenPicture> {
        self.seen.as_ref()
    }

    /// The reference pictures of a request, in their own sizes up to a limit.
    pub(super) fn references(&self) -> &[RgbImage] {
        &self.references
    }

    /// The picture and the mask of a request.
    ///
    /// # Errors
    /// [`PipelineError::MissingInput`] if one of them was not stored.
    pub(super) fn masked(&self) -> Result<&MaskedPicture, PipelineError> {
        self.masked.as_ref().ok_or(PipelineError::MissingInput("mask"))
    }

    /// The picture of the ControlNet with this index in the request's `controls`.
    ///
    /// # Errors
    /// [`PipelineError::MissingInput`] if the picture was not stored.
    pub(super) fn control(&self, index: usize) -> Result<&RgbImage, PipelineError> {
        self.controls.get(index).ok_or(PipelineError::MissingInput("controls"))
    }
}
