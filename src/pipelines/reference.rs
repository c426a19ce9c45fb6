//! Recipes of models that see pictures as further tokens: editing by a prompt, and inpainting.

use super::{
    Compute, FittedInputs, Frame, PipelineError, Reference,
    conditioning::{classifier_free, encode_prompts},
    guided::{Blend, Guided},
    latents::{encode, noise_of},
    pixels::{binarized, normalized},
    refine::finish,
    setup::Setup,
};
use crate::{
    diffusion::{Latents, sample},
    imaging::{RgbImage, resize},
};

/// The most pixels of a reference.
const MOST_PIXELS: u32 = 1024 * 1024;

/// Draws from noise; the network sees the request's pictures. For the same seed, the pictures equal those of diffusers'
/// `Flux2KleinPipeline`.
pub(super) async fn edit(setup: &Setup<'_, impl Compute>, inputs: &FittedInputs) -> Result<Vec<Frame>, PipelineError> {
    let text = encode_prompts(setup).await?;
    let mut references = Vec::with_capacity(inputs.references().len());
    for picture in inputs.references() {
        let picture = cropped(picture, setup.networks.spec().size_multiple as u32);
        references.push(reference(setup, &picture).await?);
    }
    if references.is_empty() {
        return Err(PipelineError::MissingInput("image"));
    }

    let schedule = &setup.stages.base;
    let mut noise = noise_of(setup.draw);
    let x = noise.draw(setup.shape()).scale(schedule.init_noise_sigma()); // (n, C, h, w)
    let branches = classifier_free(text, setup, Vec::new());
    let guided = Guided::new(setup, branches).showing(references).for_base_model(setup, inputs, schedule)?;
    let latents = sample(&guided, schedule, setup.draw.eta, x, &mut noise).await?;

    finish(setup, latents, &mut noise).await
}

/// Redraws what the mask covers, and restores the rest of the picture after every network call. The network sees the
/// whole picture. For the same seed, the pictures equal those of diffusers' `Flux2KleinInpaintPipeline`, except for the
/// pixels that `keep_unmasked` restores.
pub(super) async fn inpaint_with_reference(
    setup: &Setup<'_, impl Compute>,
    inputs: &FittedInputs,
) -> Result<Vec<Frame>, PipelineError> {
    let masked = inputs.masked()?;
    let text = encode_prompts(setup).await?;
    let (size, scale) = (setup.size(), setup.networks.spec().vae_scale_factor);
    let posterior = encode(setup.compute, normalized(&masked.picture, size), size).await?;

    let schedule = &setup.stages.base;
    let mut noise = noise_of(setup.draw);
    let shape = setup.shape();
    let x0 = Latents::new(shape, posterior.mean.repeat(shape[0]))?; // (n, C, h, w)
    let z = noise.draw(shape);
    let x = schedule.add_noise(&schedule.timeline()[0], &x0, &z);

    let reference = Reference { latents: posterior.mean, size: size.map(|side| side / scale) };
    let mask = halfway(&binarized(&masked.mask, size), size, scale); // (h, w)
    let branches = classifier_free(text, setup, Vec::new());
    let guided = Guided::new(setup, branches).showing(vec![reference]).for_base_model(setup, inputs, schedule)?;
    let guided = guided.blended(Blend { image: x0, noise: z, mask });
    let latents = sample(&guided, schedule, setup.draw.eta, x, &mut noise).await?;

    let drawn = finish(setup, latents, &mut noise).await?;
    Ok(drawn.into_iter().map(|Frame::Picture(drawn)| Frame::Picture(masked.complete(drawn))).collect())
}

/// Encodes a picture whose sides are multiples of the model's.
async fn reference(setup: &Setup<'_, impl Compute>, picture: &RgbImage) -> Result<Reference, PipelineError> {
    let size = [picture.height, picture.width].map(|side| side as usize);
    let posterior = encode(setup.compute, normalized(picture, size), size).await?;
    let scale = setup.networks.spec().vae_scale_factor;
    Ok(Reference { latents: posterior.mean, size: size.map(|side| side / scale) })
}

/// The picture, scaled down to at most [`MOST_PIXELS`].
pub(super) fn bounded(picture: RgbImage) -> RgbImage {
    let (width, height) = (picture.width, picture.height);
    if u64::from(width) * u64::from(height) <= u64::from(MOST_PIXELS) {
        return picture;
    }
    let scale = libm::sqrt(f64::from(MOST_PIXELS) / (f64::from(width) * f64::from(height)));
    let side = |side: u32| ((f64::from(side) * scale) as u32).max(1);
    resize(&picture, side(width), side(height))
}

/// The middle of the picture, with sides that are multiples of `multiple`. A side that is shorter than that is stretched
/// first.
fn cropped(picture: &RgbImage, multiple: u32) -> RgbImage {
    let (width, height) = (picture.width.max(multiple), picture.height.max(multiple));
    let picture = match (width, height) == (picture.width, picture.height) {
        true => picture.clone(),
        false => resize(picture, width, height),
    };
    let (inner_width, inner_height) = (width - width % multiple, height - height % multiple);
    picture.cropped([(width - inner_width) / 2, (height - inner_height) / 2, inner_width, inner_height])
}

/// Downsamples a mask (H, W) to (h, w) by torch's bilinear `interpolate`: the mean of the four pixels around the middle
/// of each square of `every` × `every` pixels, where `every` is even.
fn halfway(mask: &[f32], [height, width]: [usize; 2], every: usize) -> Vec<f32> {
    let middle = |i: usize| i * every + (every / 2).saturating_sub(1);
    let mean = |y: usize, x: usize| {
        let at = |dy: usize, dx: usize| mask[(y + dy).min(height - 1) * width + (x + dx).min(width - 1)];
        (at(0, 0) + at(0, 1) + at(1, 0) + at(1, 1)) / 4.0
    };
    let columns = width / every;
    (0..height / every * columns).map(|i| mean(middle(i / columns), middle(i % columns))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_a_picture_is_cut_out() {
        let pixels = (0..3 * 37 * 18).map(|i| (i / 3 % 37) as u8).collect();
        let picture = cropped(&RgbImage { width: 37, height: 18, pixels }, 16);
        assert_eq!((picture.width, picture.height), (32, 16));
        assert_eq!(picture.pixels[0], 2, "two columns are left out on the left, three on the right");
        let small = cropped(&RgbImage { width: 5, height: 40, pixels: vec![7; 3 * 200] }, 16);
        assert_eq!((small.width, small.height), (16, 32));
    }

    #[test]
    fn a_mask_is_the_mean_around_the_middle_of_each_square() {
        let mut mask = vec![0.0; 4 * 8];
        mask[8 + 1] = 1.0; // in the middle of the first square of 4 × 4 pixels
        mask[7] = 1.0; // in the corner of the second one
        assert_eq!(halfway(&mask, [4, 8], 4), [0.25, 0.0]);
    }

    #[test]
    fn a_reference_has_at_most_a_million_pixels() {
        let picture = |width, height| RgbImage { width, height, pixels: vec![0; (3 * width * height) as usize] };
        let large = bounded(picture(2048, 1024));
        assert_eq!((large.width, large.height), (1448, 724));
        assert_eq!(bounded(picture(1024, 1024)).width, 1024);
    }
}
