//! The picture that a generation starts from, and its mask.

use serde::{Deserialize, Serialize};

use super::{
    Fields, InputImage, Limits, ModelCard, Task,
    field::{Bounds, Field},
    table,
};

/// A request's `image` with its mask and settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Source {
    pub image: InputImage,
    /// The other pictures, if `image` is a list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub further_images: Vec<InputImage>,
    #[serde(flatten)]
    pub hold: ImageInfluence,
    #[serde(flatten)]
    pub mask: Option<Mask>,
}

/// How strongly a generation depends on its `image`. The kind of model decides which setting applies.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ImageInfluence {
    /// The run covers this share at the end of the schedule, in (0, 1].
    Strength { strength: f64 },
    /// Guidance scale towards the picture, 1 to 10, for models that edit by instruction.
    Guidance { image_guidance_scale: f64 },
    /// The network sees the picture, and the prompt says what to do with it.
    Reference {},
}

/// A request's `mask`: the white part is redrawn, the black part stays.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mask {
    pub mask: InputImage,
    /// Standard deviation of the Gaussian that blurs the mask's edge, in pixels.
    pub mask_blur: u32,
    pub mask_invert: bool,
    /// If set, the white part and this many pixels around it are cut out, enlarged to the size of the request and
    /// redrawn. The result is scaled back and pasted into the picture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub padding_mask_crop: Option<u32>,
    /// Whether the black part is copied from `image`. Otherwise, the autoencoder decodes the black part and thereby
    /// changes it a little.
    pub keep_unmasked: bool,
}

impl Source {
    /// Maximum number of pictures in a list.
    pub const MOST_REFERENCES: usize = 4;

    /// Reads the fields about pictures. Fields that do not fit the model or each other are errors.
    pub(super) fn read(fields: &mut Fields, on: &Bounds<'_>) -> Option<Source> {
        let card = on.card;
        let mask = InputImage::read(fields, &table::MASK);
        let refers = card.tasks.contains(&Task::Edit) && mask.is_none();
        let (image, further_images) =
            InputImage::read_all(fields, if refers { card.most_pictures() } else { 1 }).unzip();
        let wanted = match (&image, &mask) {
            (None, _) => Task::TextToImage,
            (Some(_), None) => Task::ImageToImage,
            (Some(_), Some(_)) => Task::Inpaint,
        };
        let edits = card.image_guidance_scale.is_some();
        if image.is_some() && card.edits_beside && fields.take(table::STRENGTH.name).is_some() {
            let detail = "cannot be used: the model draws the result from noise";
            fields.error(table::STRENGTH.name, "conflict", detail);
        } else if edits || refers || image.is_none() {
            refuse_idle(fields, &table::STRENGTH);
        }
        if !edits || (image.is_none() && card.tasks.contains(&Task::TextToImage)) {
            refuse_idle(fields, &table::IMAGE_GUIDANCE_SCALE);
        }
        let fits = card.tasks.contains(&wanted)
            || ((edits || refers) && wanted == Task::ImageToImage)
            || (image.is_none() && !card.takes_prompt);
        if !fits {
            refuse(fields, card, wanted, mask.is_some());
        } else if mask.is_some() && image.is_none() {
            fields.error("mask", "conflict", "needs an image");
        }
        let mask = Mask::read(fields, mask, on);
        let usual = if mask.is_some() { 1.0 } else { 0.75 };
        let hold = match (edits, refers) {
            (true, _) => ImageInfluence::Guidance {
                image_guidance_scale: fields.get_or_default(&table::IMAGE_GUIDANCE_SCALE, on),
            },
            (false, true) => ImageInfluence::Reference {},
            (false, false) => ImageInfluence::Strength { strength: fields.get(&table::STRENGTH, on).unwrap_or(usual) },
        };
        Some(Source { image: image?, further_images: further_images.unwrap_or_default(), hold, mask })
    }

    /// The share at the end of the schedule that the run covers, in (0, 1]; 1 for models that edit by instruction.
    pub fn strength(&self) -> f64 {
        match self.hold {
            ImageInfluence::Strength { strength } => strength,
            ImageInfluence::Guidance { .. } | ImageInfluence::Reference {} => 1.0,
        }
    }

    /// The sizes (width, height) in pixels of the pictures that a network with references sees, before they are
    /// cropped.
    pub fn references(&self) -> impl Iterator<Item = (u32, u32)> {
        [&self.image].into_iter().chain(&self.further_images).map(|image| (image.width, image.height))
    }

    /// Guidance scale towards the picture; 1 for models without such guidance.
    pub fn image_guidance_scale(&self) -> f64 {
        match self.hold {
            ImageInfluence::Strength { .. } | ImageInfluence::Reference {} => 1.0,
            ImageInfluence::Guidance { image_guidance_scale } => image_guidance_scale,
        }
    }

    /// The default (width, height) of a request with `image`: the size of `image`, scaled down to at most the number of
    /// pixels of the model's native size and to the longest side that the limits and the model allow, then rounded down
    /// to multiples of [`ModelCard::size_multiple`], but not below the model's smallest side.
    pub(super) fn size(&self, card: &ModelCard, limits: &Limits) -> (u32, u32) {
        let (width, height) = (f64::from(self.image.width), f64::from(self.image.height));
        let native = f64::from(card.default_width) * f64::from(card.default_height);
        let longest = card.max_side_pixels.map_or(limits.max_side_pixels, |own| own.min(limits.max_side_pixels));
        let scale = (native / (width * height)).sqrt().min(f64::from(longest) / width.max(height)).min(1.0);
        let side = |pixels: f64| {
            let pixels = (pixels * scale).round() as u32;
            (pixels - pixels % card.size_multiple).max(card.min_side_pixels.next_multiple_of(card.size_multiple))
        };
        (side(width), side(height))
    }
}

impl Mask {
    fn read(fields: &mut Fields, mask: Option<InputImage>, on: &Bounds<'_>) -> Option<Mask> {
        let Some(mask) = mask else {
            for field in [&table::MASK_BLUR, &table::MASK_INVERT, &table::PADDING_MASK_CROP, &table::KEEP_UNMASKED] {
                refuse_idle(fields, field);
            }
            return None;
        };
        Some(Mask {
            mask,
            mask_blur: fields.get_or_default(&table::MASK_BLUR, on),
            mask_invert: fields.get_or_default(&table::MASK_INVERT, on),
            padding_mask_crop: fields.get(&table::PADDING_MASK_CROP, on),
            keep_unmasked: fields.get_or_default(&table::KEEP_UNMASKED, on),
        })
    }
}

/// Refuses a field that has no effect in this request, so that clients notice.
fn refuse_idle(fields: &mut Fields, field: &Field) {
    if fields.take(field.name).is_some() {
        let detail = match field.name {
            "image_guidance_scale" => "needs an image, and a model whose guidance has a scale for the image",
            "strength" => "needs an image, and a model that starts from an image with added noise",
            _ => "needs a mask",
        };
        fields.error(field.name, "conflict", detail);
    }
}

fn refuse(fields: &mut Fields, card: &ModelCard, wanted: Task, has_mask: bool) {
    let name = &card.name;
    let needs = |what: &str| format!("is required: the model {name:?} {what}");
    match (wanted, card.tasks.first()) {
        (Task::TextToImage, Some(Task::Inpaint)) => {
            fields.error("image", "required", needs("fills in a part of a picture"));
            if !has_mask {
                fields.error("mask", "required", needs("fills in a part of a picture"));
            }
        }
        (Task::ImageToImage, Some(Task::Inpaint)) => {
            fields.error("mask", "required", needs("fills in a part of a picture"))
        }
        (Task::TextToImage, _) => fields.error("image", "required", needs("changes a picture")),
        (Task::Inpaint, _) => {
            fields.error("mask", "unsupported_for_model", format!("cannot be used with the model {name:?}"))
        }
        (_, _) => fields.error("image", "unsupported_for_model", format!("cannot be used with the model {name:?}")),
    }
}
