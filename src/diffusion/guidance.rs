//! Classifier-free guidance, and guidance for models that edit pictures.

use super::latents::Latents;

/// Classifier-free guidance `uncond + scale·(cond − uncond)` (Ho and Salimans 2022, arXiv:2207.12598), where a scale of
/// 1 means no guidance. Then `rescale` in `[0, 1]` moves the standard deviation of the result towards the standard
/// deviation of `cond`; 0 leaves the result as it is (section 3.4 of Lin et al. 2023, arXiv:2305.08891). All latents
/// are `(B, C, h, w)`.
pub fn guide(uncond: &Latents, cond: &Latents, scale: f64, rescale: f64) -> Latents {
    let guided = Latents::combine(&[(1.0 - scale, uncond), (scale, cond)]);
    if rescale == 0.0 {
        return guided;
    }
    let mut b = 0;
    guided.each_row(|row| {
        let (wanted, got) = (standard_deviation(cond.row(b)), standard_deviation(row));
        b += 1;
        if got > 0.0 {
            let factor = rescale * wanted / got + (1.0 - rescale);
            row.iter_mut().for_each(|x| *x = (factor * f64::from(*x)) as f32);
        }
    })
}

/// Scales each row of `guided` whose norm is larger than the norm of the same row of `cond`, down to the norm of that
/// row. Both are `(B, C, h, w)`.
pub fn limited(guided: Latents, cond: &Latents) -> Latents {
    let norm = |row: &[f32]| libm::sqrt(row.iter().map(|x| f64::from(*x) * f64::from(*x)).sum());
    let mut b = 0;
    guided.each_row(|row| {
        let (most, got) = (norm(cond.row(b)), norm(row));
        b += 1;
        if got > most {
            row.iter_mut().for_each(|x| *x = (most / got * f64::from(*x)) as f32);
        }
    })
}

/// `uncond + scale·(text − image) + image_scale·(image − uncond)`: equation 3 of Brooks et al. (2023),
/// arXiv:2211.09800, for a model that edits a picture by an instruction. `text` is the prediction given the instruction
/// and the picture, `image` given the picture alone, `uncond` given neither. All latents are `(B, C, h, w)`.
pub fn guide_edit(text: &Latents, image: &Latents, uncond: &Latents, scale: f64, image_scale: f64) -> Latents {
    Latents::combine(&[(scale, text), (image_scale - scale, image), (1.0 - image_scale, uncond)])
}

/// The unbiased standard deviation, as `torch.std`.
fn standard_deviation(row: &[f32]) -> f64 {
    let count = row.len() as f64;
    let mean = row.iter().map(|x| f64::from(*x)).sum::<f64>() / count;
    let squares: f64 = row.iter().map(|x| (f64::from(*x) - mean) * (f64::from(*x) - mean)).sum();
    libm::sqrt(squares / (count - 1.0))
}
