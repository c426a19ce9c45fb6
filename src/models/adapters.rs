//! LoRA adapters: low-rank changes of a network's layers for some rows of a batch (Hu et al. 2021, arXiv:2106.09685).

use std::{
    collections::HashMap,
    fmt,
    ops::Range,
    sync::{Arc, OnceLock},
};

use candle_core::{Result, Tensor};

use crate::{
    device::Device,
    kernels::{
        Kernels,
        conv2d::{Conv2d, Geometry},
        finish::Epilogue,
        matrix::Matrix,
    },
    weights::lora::{self, Lora},
};

/// The changes that one adapter file makes, by the path of the layer: `unet.conv_in`,
/// `text_encoder.encoder.layers.0.self_attn.q_proj` … An adapter is immutable, so threads can share it.
pub struct Adapter {
    layers: HashMap<String, LowRank>,
}

/// The change of one layer, of rank r: for the input x, the layer's output y becomes y + s·(x·down)·up.
#[derive(Debug)]
pub struct LowRank {
    down: Down,
    /// (r, out)
    up: Matrix,
    /// s
    scale: f64,
}

#[derive(Debug)]
enum Down {
    /// (in, r)
    Matrix(Matrix),
    /// The weight of a convolution, (kh·kw·in, r). The convolution `conv` is built at the first use, with the geometry
    /// of the layer that the adapter changes.
    Conv { weight: Tensor, kernel: (usize, usize), kernels: Kernels, conv: OnceLock<Conv2d> },
}

impl LowRank {
    /// The change of a linear layer: `down` (in, r), `up` (r, out), and `scale` s.
    ///
    /// # Errors
    /// The shapes do not fit.
    pub fn linear(down: &Tensor, up: &Tensor, scale: f64, kernels: Kernels) -> Result<LowRank> {
        let matrix = |tensor| Matrix::new(tensor, None, kernels);
        Ok(LowRank { down: Down::Matrix(matrix(down)?), up: matrix(up)?, scale })
    }

    /// The change of a convolution: `down` as a weight (kh·kw·in, r), `up` (r, out), and `scale` s.
    ///
    /// # Errors
    /// The shapes do not fit.
    pub fn conv(down: &Tensor, kernel: (usize, usize), up: &Tensor, scale: f64, kernels: Kernels) -> Result<LowRank> {
        let down = Down::Conv { weight: down.clone(), kernel, kernels: kernels.exact(), conv: OnceLock::new() };
        Ok(LowRank { down, up: Matrix::new(up, None, kernels)?, scale })
    }

    /// x (B, …, in), y (B, …, out) → y + scale·s·(x·down)·up, (B, …, out). `geometry` is the geometry of the layer if
    /// the layer is a convolution.
    pub(super) fn epilogue(&self, x: &Tensor, y: &Tensor, geometry: Option<Geometry>, scale: f64) -> Result<Tensor> {
        let down = match (&self.down, geometry) {
            (Down::Matrix(down), _) => down.times(x)?,
            (Down::Conv { weight, kernel, kernels, conv }, Some(geometry)) if geometry.kernel == *kernel => {
                let zeros = Tensor::zeros(weight.dim(1)?, weight.dtype(), weight.device())?;
                let made = || Conv2d::new(weight, &zeros, geometry, *kernels);
                match conv.get() {
                    Some(conv) => conv.forward(x)?,
                    // Two threads may both build the convolution; one of the two is kept.
                    None => {
                        let made = made()?;
                        conv.get_or_init(|| made).forward(x)?
                    }
                }
            }
            (Down::Conv { kernel, .. }, _) => candle_core::bail!("the kernel {kernel:?} does not fit its layer"),
        };
        self.up.times_with(&down.affine(self.scale * scale, 0.0)?, Epilogue::residual(y))?.to_dtype(y.dtype())
    }
}

impl Adapter {
    /// `layers` maps the paths of layers to their changes.
    pub fn new(layers: HashMap<String, LowRank>) -> Adapter {
        Adapter { layers }
    }

    /// Converts the LoRA `read` to tensors in the layout of the device's kernels.
    pub fn of(read: Lora, device: &Device) -> Result<Adapter> {
        let (kernels, precision, device) = (device.kernels(), device.precision().dtype(), device.candle());
        let layer = |(site, low): (String, lora::LowRank)| {
            let (rank, inputs, outputs) = (low.rank, low.inputs, low.outputs);
            let up = Tensor::from_vec(low.up, (outputs, rank), device)?.to_dtype(precision)?.t()?.contiguous()?;
            let (kh, kw) = low.kernel;
            let scale = f64::from(low.scale);
            let change = if low.kernel == (1, 1) {
                let down = Tensor::from_vec(low.down, (rank, inputs), device)?.to_dtype(precision)?;
                let down = down.t()?.contiguous()?;
                LowRank::linear(&down, &up, scale, kernels)?
            } else {
                // (r, in, kh, kw) → (kh·kw·in, r)
                let down = Tensor::from_vec(low.down, (rank, inputs, kh, kw), device)?.permute((2, 3, 1, 0))?;
                let down = down.to_dtype(precision)?.contiguous()?.reshape((kh * kw * inputs, rank))?;
                LowRank::conv(&down, low.kernel, &up, scale, kernels)?
            };
            // The sites of text encoders have `text_model` between encoder and module; the paths of layers do not.
            Ok((site.replacen(".text_model.", ".", 1), change))
        };
        Ok(Adapter { layers: read.sites.into_iter().map(layer).collect::<Result<_>>()? })
    }
}

impl fmt::Debug for Adapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Adapter({} layers)", self.layers.len())
    }
}

/// Adapters in the order in which they apply, each with its strength. Cheap to clone. Two sets are equal if both are
/// empty or both share the same list.
#[derive(Clone, Debug, Default)]
pub struct AdapterSet(Option<Arc<[Weighted]>>);

/// An adapter and its strength.
type Weighted = (Arc<Adapter>, f32);

/// Changes of one layer with their strengths.
type Changes<'a> = Vec<(&'a LowRank, f64)>;

impl AdapterSet {
    pub fn new(adapters: Vec<(Arc<Adapter>, f32)>) -> AdapterSet {
        AdapterSet((!adapters.is_empty()).then(|| adapters.into()))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

impl PartialEq for AdapterSet {
    fn eq(&self, other: &AdapterSet) -> bool {
        match (&self.0, &other.0) {
            (None, None) => true,
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

/// The adapters of each row of a batch. The outputs of rows without adapters have the same bits as in a batch without
/// any adapters.
#[derive(Clone, Debug, Default)]
pub struct RowAdapters {
    /// Ranges of consecutive rows with equal sets, in ascending order. Rows without adapters are in no range.
    ranges: Vec<(Range<usize>, AdapterSet)>,
}

impl RowAdapters {
    /// No row has adapters.
    pub const NONE: &'static RowAdapters = &RowAdapters { ranges: Vec::new() };

    /// One set for each row, in the order of the rows.
    pub fn of<'a>(rows: impl IntoIterator<Item = &'a AdapterSet>) -> RowAdapters {
        let mut ranges: Vec<(Range<usize>, AdapterSet)> = Vec::new();
        for (row, set) in rows.into_iter().enumerate() {
            match ranges.last_mut().filter(|(_, last)| last == set) {
                Some((range, _)) => range.end = row + 1,
                None => ranges.push((row..row + 1, set.clone())),
            }
        }
        ranges.retain(|(_, set)| set.0.is_some());
        RowAdapters { ranges }
    }

    /// The ranges of rows whose adapters change `layer`, each with the changes that its adapters make.
    pub(super) fn changes<'a>(&'a self, layer: &str) -> Vec<(Range<usize>, Changes<'a>)> {
        let of_set = |set: &'a AdapterSet| -> Changes<'a> {
            let adapters = set.0.iter().flat_map(|adapters| adapters.iter());
            adapters.filter_map(|(adapter, scale)| Some((adapter.layers.get(layer)?, f64::from(*scale)))).collect()
        };
        let changes = self.ranges.iter().map(|(range, set)| (range.clone(), of_set(set)));
        changes.filter(|(_, changes)| !changes.is_empty()).collect()
    }

    /// x (B, …, in), y (B, …, out) → y plus the changes that the rows' adapters make to `layer`; y is the output of
    /// `layer` for x.
    pub(super) fn epilogue(&self, layer: &str, x: &Tensor, y: Tensor, geometry: Option<Geometry>) -> Result<Tensor> {
        if self.ranges.is_empty() {
            return Ok(y);
        }
        let changes = self.changes(layer);
        by_rows(y, changes, |rows, y, changes| {
            let x = narrowed(x, &rows)?;
            changes.into_iter().try_fold(y, |y, (change, scale)| change.epilogue(&x, &y, geometry, scale))
        })
    }
}

/// `rows` lists ranges of the rows of y (B, …), in ascending order. Replaces each of these ranges with the result of
/// `replace`; other rows stay unchanged.
pub(super) fn by_rows<T>(
    y: Tensor,
    rows: Vec<(Range<usize>, T)>,
    mut replace: impl FnMut(Range<usize>, Tensor, T) -> Result<Tensor>,
) -> Result<Tensor> {
    let batch = y.dim(0)?;
    let mut pieces = Vec::new();
    let mut done = 0;
    for (range, with) in rows {
        if done < range.start {
            pieces.push(y.narrow(0, done, range.start - done)?);
        }
        done = range.end;
        pieces.push(replace(range.clone(), narrowed(&y, &range)?, with)?);
    }
    match pieces.len() {
        0 => return Ok(y),
        _ if done < batch => pieces.push(y.narrow(0, done, batch - done)?),
        1 => return Ok(pieces.remove(0)),
        _ => {}
    }
    Tensor::cat(&pieces, 0)
}

/// A range of the rows of a batch, without a copy.
pub(super) fn narrowed(x: &Tensor, rows: &Range<usize>) -> Result<Tensor> {
    if rows.len() == x.dim(0)? { Ok(x.clone()) } else { x.narrow(0, rows.start, rows.len()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ones(shape: &[usize], value: f32) -> Tensor {
        Tensor::full(value, shape, &crate::device::HOST).unwrap()
    }

    fn set(scale: f32) -> AdapterSet {
        let change = LowRank::linear(&ones(&[3, 1], 1.0), &ones(&[1, 2], 0.5), 2.0, Kernels::default()).unwrap();
        AdapterSet::new(vec![(Arc::new(Adapter::new(HashMap::from([("layer".to_owned(), change)]))), scale)])
    }

    #[test]
    fn each_row_follows_its_own_adapters() {
        let (a, b, none) = (set(1.0), set(-2.0), AdapterSet::default());
        let rows = RowAdapters::of([&none, &a, &a, &none, &b]);
        assert_eq!(rows.ranges.iter().map(|(range, _)| range.clone()).collect::<Vec<_>>(), [1..3, 4..5]);
        let (x, y) = (ones(&[5, 4, 3], 1.0), ones(&[5, 4, 2], 10.0));
        let changed = rows.epilogue("layer", &x, y.clone(), None).unwrap();
        let first = |row: usize| changed.get(row).unwrap().to_vec2::<f32>().unwrap()[3][1];
        assert_eq!([0, 1, 2, 3, 4].map(first), [10.0, 13.0, 13.0, 10.0, 4.0]);
        let elsewhere = rows.epilogue("another layer", &x, y.clone(), None).unwrap();
        assert_eq!(elsewhere.flatten_all().unwrap().to_vec1::<f32>().unwrap(), vec![10.0; 40]);
        let all = RowAdapters::of([&a; 5]).epilogue("layer", &x, y, None).unwrap();
        assert_eq!(all.flatten_all().unwrap().to_vec1::<f32>().unwrap(), vec![13.0; 40]);
    }

    #[test]
    fn a_convolution_takes_the_geometry_of_its_layer() {
        let geometry = Geometry::square(3, 2, 1);
        let change = LowRank::conv(&ones(&[9, 1], 1.0), (3, 3), &ones(&[1, 1], 1.0), 1.0, Kernels::default()).unwrap();
        let adapter = Arc::new(Adapter::new(HashMap::from([("conv".to_owned(), change)])));
        let rows = RowAdapters::of([&AdapterSet::new(vec![(adapter, 1.0)])]);
        let (x, y) = (ones(&[1, 4, 4, 1], 1.0), ones(&[1, 2, 2, 1], 0.0));
        let changed = rows.epilogue("conv", &x, y.clone(), Some(geometry)).unwrap();
        assert_eq!(changed.flatten_all().unwrap().to_vec1::<f32>().unwrap(), [4.0, 6.0, 6.0, 9.0]);
        assert!(rows.epilogue("conv", &x, y, Some(Geometry::square(1, 1, 0))).is_err());
    }
}
