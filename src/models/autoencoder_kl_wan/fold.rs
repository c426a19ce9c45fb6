//! Squares of pixels as channels of one pixel. The order of the channels is (color, column, line).

use candle_core::{Result, Tensor};

/// x (F, H, W, C) → (F, H/patch, W/patch, C · patch²)
pub(super) fn fold(x: &Tensor, patch: usize) -> Result<Tensor> {
    if patch == 1 {
        return Ok(x.clone());
    }
    let (frames, height, width, c) = x.dims4()?;
    let (h, w) = (height / patch, width / patch);
    let x = x.reshape((frames, h, patch, w, patch, c))?.permute((0, 1, 3, 5, 4, 2))?.contiguous()?;
    x.reshape((frames, h, w, c * patch * patch))
}

/// The inverse of [`fold`]: x (F, h, w, C · patch²) → (F, h · patch, w · patch, C)
pub(super) fn unfold(x: &Tensor, patch: usize) -> Result<Tensor> {
    if patch == 1 {
        return Ok(x.clone());
    }
    let (frames, h, w, width) = x.dims4()?;
    let c = width / (patch * patch);
    let x = x.reshape((frames, h, w, c, patch, patch))?.permute((0, 1, 5, 2, 4, 3))?.contiguous()?;
    x.reshape((frames, h * patch, w * patch, c))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::random::Random;

    #[test]
    fn folding_keeps_every_level_and_puts_columns_before_lines() {
        let x = Random::new(1).normal(&[2, 4, 6, 3], 0.0);
        let folded = fold(&x, 2).unwrap();
        assert_eq!(folded.dims(), [2, 2, 3, 12]);
        let of = |x: &Tensor, i: [usize; 4]| {
            let line = x.get(i[0]).unwrap().get(i[1]).unwrap().get(i[2]).unwrap();
            line.get(i[3]).unwrap().to_scalar::<f32>().unwrap()
        };
        // Frame 1, line 2 + 1, column 4 + 0, color 2.
        assert_eq!(of(&folded, [1, 1, 2, 2 * 4 + 1]), of(&x, [1, 3, 4, 2]));
        let back = unfold(&folded, 2).unwrap();
        assert_eq!(
            back.flatten_all().unwrap().to_vec1::<f32>().unwrap(),
            x.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        );
    }
}
