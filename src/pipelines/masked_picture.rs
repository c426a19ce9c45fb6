//! A picture and its mask, prepared for drawing, and how the result is combined with the original.

use super::{crop::around, pixels::at};
use crate::{
    generation::Mask,
    imaging::{GreyImage, RgbImage, composite, grey, resize},
};

/// The picture and the mask of a generation that redraws a part of a picture.
#[derive(Clone, Debug)]
pub(super) struct MaskedPicture {
    /// The picture that is drawn over: the original, resized to the size that is drawn, or the part of the original
    /// that `padding_mask_crop` selects, not resized.
    pub picture: RgbImage,
    /// The blurred mask, of the size of `picture`.
    pub mask: GreyImage,
    /// The original, and the part of it that `picture` shows, as [x, y, width, height]; `None` if `picture` shows the
    /// whole original.
    part: Option<(RgbImage, [u32; 4])>,
    /// Whether the original is restored where the mask is black.
    keep: bool,
}

impl MaskedPicture {
    /// Prepares the uploaded picture and mask for drawing in the size (H, W). As in diffusers, the mask is blurred in
    /// its own size, and then resized; with `padding_mask_crop` it is first resized to the size of the picture.
    pub fn new(whole: RgbImage, mask: RgbImage, settings: &Mask, [height, width]: [usize; 2]) -> MaskedPicture {
        let Some(padding) = settings.padding_mask_crop else {
            let picture = at(&whole, [height, width]);
            drop(whole);
            let blurred = grey(&mask, settings.mask_blur, settings.mask_invert);
            let mask = resize(&blurred, width as u32, height as u32);
            return MaskedPicture { picture, mask, part: None, keep: settings.keep_unmasked };
        };
        let mask = at(&mask, [whole.height as usize, whole.width as usize]);
        let mask = grey(&mask, settings.mask_blur, settings.mask_invert);
        let part = around(&mask, padding, [height, width]);
        let (picture, mask) = (whole.cropped(part), mask.cropped(part));
        MaskedPicture { picture, mask, part: Some((whole, part)), keep: true }
    }

    /// Combines the drawn picture with the original, which stays as it was outside the drawn part and where the mask is
    /// black. Returns the drawn picture unchanged if the request has neither `padding_mask_crop` nor `keep_unmasked`.
    pub fn complete(&self, drawn: RgbImage) -> RgbImage {
        let MaskedPicture { picture, mask, .. } = self;
        let over = |drawn: &RgbImage| composite(picture, &resize(drawn, picture.width, picture.height), mask);
        match &self.part {
            Some((whole, [x, y, ..])) => whole.clone().with_part([*x, *y], &over(&drawn)),
            None if self.keep => over(&drawn),
            None => drawn,
        }
    }
}
