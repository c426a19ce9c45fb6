//! Sums written over their first operand.

use candle_core::{CpuStorage, InplaceOp2, Layout, Result, Tensor};
use rayon::prelude::*;

use super::storage::{floats, floats_mut};

/// x (B, …, C) + v, where v is (C) or, one vector per row of the batch, (B, C).
///
/// `x` is given away and its memory reused, so no other tensor may share it.
pub fn add_channels(x: Tensor, v: &Tensor) -> Result<Tensor> {
    if x.device().is_cpu() {
        x.inplace_op2(v, &AddChannels)?;
        return Ok(x);
    }
    match v.dims() {
        [b, c] => {
            let mut dims = vec![1; x.rank()];
            (dims[0], dims[x.rank() - 1]) = (*b, *c);
            x.broadcast_add(&v.reshape(dims)?)
        }
        _ => x.broadcast_add(v),
    }
}

/// x + y, of one shape. `x` is given away and its memory reused, so no other tensor may share it.
pub fn add(x: Tensor, y: &Tensor) -> Result<Tensor> {
    if !x.device().is_cpu() || !x.is_contiguous() || !y.is_contiguous() {
        return x + y;
    }
    x.inplace_op2(y, &Add)?;
    Ok(x)
}

const GRAIN: usize = 1 << 14;

struct AddChannels;

impl InplaceOp2 for AddChannels {
    fn name(&self) -> &'static str {
        "add_channels"
    }

    fn cpu_fwd(&self, x: &mut CpuStorage, x_layout: &Layout, v: &CpuStorage, v_layout: &Layout) -> Result<()> {
        let (x_dims, v_dims) = (x_layout.dims(), v_layout.dims());
        let (x, v) = (floats_mut(x, x_layout)?, floats(v, v_layout)?);
        let (batch, channels) = match (x_dims, v_dims) {
            ([b, .., c], [b_v, c_v]) if b == b_v && c == c_v => (*b, *c),
            ([.., c], [c_v]) if c == c_v => (1, *c),
            _ => candle_core::bail!("add_channels: {v_dims:?} to {x_dims:?}"),
        };
        if x.is_empty() {
            return Ok(());
        }
        x.par_chunks_mut(x.len() / batch).zip(v.par_chunks(channels)).for_each(|(x, v)| {
            x.par_chunks_mut(channels).with_min_len(GRAIN.div_ceil(channels)).for_each(|x| {
                x.iter_mut().zip(v).for_each(|(x, v)| *x += v);
            });
        });
        Ok(())
    }
}

struct Add;

impl InplaceOp2 for Add {
    fn name(&self) -> &'static str {
        "add_over"
    }

    fn cpu_fwd(&self, x: &mut CpuStorage, x_layout: &Layout, y: &CpuStorage, y_layout: &Layout) -> Result<()> {
        if x_layout.shape() != y_layout.shape() {
            candle_core::bail!("add: {:?} to {:?}", y_layout.shape(), x_layout.shape());
        }
        let (x, y) = (floats_mut(x, x_layout)?, floats(y, y_layout)?);
        x.par_chunks_mut(GRAIN).zip(y.par_chunks(GRAIN)).for_each(|(x, y)| {
            x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn one_vector_for_all_or_one_per_row() {
        let x = || Tensor::arange(0f32, 12.0, &Device::Cpu).unwrap().reshape((2, 2, 3)).unwrap();
        let v = Tensor::new(&[[10f32, 20., 30.], [40., 50., 60.]], &Device::Cpu).unwrap();
        let all = add_channels(x(), &v.get(0).unwrap()).unwrap();
        assert_eq!(all.to_vec3::<f32>().unwrap()[1], [[16., 27., 38.], [19., 30., 41.]]);
        let each = add_channels(x(), &v).unwrap();
        assert_eq!(each.to_vec3::<f32>().unwrap()[1], [[46., 57., 68.], [49., 60., 71.]]);
        assert!(add_channels(x(), &v.t().unwrap().contiguous().unwrap()).is_err());
        assert_eq!(add(x(), &x()).unwrap().to_vec3::<f32>().unwrap()[0][1], [6., 8., 10.]);
    }
}
