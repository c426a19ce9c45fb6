//! Classifier-free guidance.

use super::latents::Latents;

/// `uncond + scale·(cond − uncond)`, the guidance of Ho and Salimans (2022), arXiv:2207.12598, in the convention in
/// which a scale of 1 means off.  Then `rescale` in `[0, 1]`, 0 means off, pulls the result back towards the spread of
/// `cond` (section 3.4 of Lin et al. 2023, arXiv:2305.08891).  All `(B, C, h, w)`, of one shape.
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

/// `uncond + scale·(text − image) + image_scale·(image − uncond)`: equation 3 of Brooks et al. (2023), arXiv:2211.09800, for a
/// model that is told how to change a picture.  `text` has seen the instruction and the picture, `image` the picture,
/// `uncond` neither; all `(B, C, h, w)`, of one shape.
pub fn guide_edit(text: &Latents, image: &Latents, uncond: &Latents, scale: f64, image_scale: f64) -> Latents {
    Latents::combine(&[(scale, text), (image_scale - scale, image), (1.0 - image_scale, uncond)])
}

/// Unbiased, as `torch.std`.
fn standard_deviation(row: &[f32]) -> f64 {
    let count = row.len() as f64;
    let mean = row.iter().map(|x| f64::from(*x)).sum::<f64>() / count;
    let squares: f64 = row.iter().map(|x| (f64::from(*x) - mean) * (f64::from(*x) - mean)).sum();
    libm::sqrt(squares / (count - 1.0))
}
