//! The residuals that ControlNets add to the maps of a U-Net.

use std::ops::Range;

use candle_core::{Result, Tensor};

use crate::models::adapters::by_rows;

/// Residuals of any number of ControlNets, each for some rows of a batch.
#[derive(Debug, Default)]
pub struct Residuals {
    parts: Vec<Part>,
}

/// The residuals of one ControlNet.
#[derive(Debug)]
struct Part {
    /// Indices of the rows, in ascending order.
    rows: Vec<usize>,
    /// One tensor for each skip, outermost first: (rows, h, w, C).
    down: Vec<Tensor>,
    mid: Tensor,
}

impl Residuals {
    /// No residuals.
    pub const NONE: &'static Residuals = &Residuals { parts: Vec::new() };

    /// Appends the residuals that a ControlNet computed for `rows`, which are in ascending order.
    pub fn push(&mut self, rows: Vec<usize>, (down, mid): (Vec<Tensor>, Tensor)) {
        self.parts.push(Part { rows, down, mid });
    }

    /// x (B, h, w, C), the output of the middle block → x plus the residuals.
    pub(in crate::models) fn onto_middle(&self, x: Tensor) -> Result<Tensor> {
        self.parts.iter().try_fold(x, |x, part| part.epilogue(x, &part.mid))
    }

    /// Adds the residuals to the skips, outermost first.
    pub(in crate::models) fn onto_skips(&self, skips: &mut [Tensor]) -> Result<()> {
        for part in &self.parts {
            if part.down.len() != skips.len() {
                candle_core::bail!("a ControlNet adds to {} maps, but the U-Net has {}", part.down.len(), skips.len());
            }
            for (skip, added) in skips.iter_mut().zip(&part.down) {
                *skip = part.epilogue(skip.clone(), added)?;
            }
        }
        Ok(())
    }
}

impl Part {
    /// Adds `added` to the part's rows of x. Other rows keep their bits.
    fn epilogue(&self, x: Tensor, added: &Tensor) -> Result<Tensor> {
        let mut ranges: Vec<(Range<usize>, usize)> = Vec::new();
        for (from, row) in self.rows.iter().enumerate() {
            match ranges.last_mut().filter(|(range, _)| range.end == *row) {
                Some((range, _)) => range.end += 1,
                None => ranges.push((*row..row + 1, from)),
            }
        }
        by_rows(x, ranges, |rows, x, from| &x + added.narrow(0, from, rows.len())?.to_dtype(x.dtype())?)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn each_row_gets_its_own_residuals() {
        let values = |values: &[f32]| Tensor::from_vec(values.to_vec(), (values.len(), 1, 1, 1), &Device::Cpu).unwrap();
        let mut residuals = Residuals::default();
        residuals.push(vec![1, 3, 4], (vec![values(&[10., 20., 30.])], values(&[1., 2., 3.])));
        residuals.push(vec![4], (vec![values(&[100.])], values(&[5.])));
        let mut skips = [values(&[0., 1., 2., 3., 4.])];
        residuals.onto_skips(&mut skips).unwrap();
        let floats = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(floats(&skips[0]), [0., 11., 2., 23., 134.]);
        assert_eq!(floats(&residuals.onto_middle(values(&[0.; 5])).unwrap()), [0., 1., 0., 2., 8.]);
        assert!(residuals.onto_skips(&mut [values(&[0.; 5]), values(&[0.; 5])]).is_err());
    }
}
