//! Latents: the state of a run, in CPU memory.

use super::error::Error;

/// Numbers of shape `(B, C, h, w)`, row-major `f32`.
#[derive(Debug, Clone, PartialEq)]
pub struct Latents {
    shape: [usize; 4],
    data: Vec<f32>,
}

impl Latents {
    /// Latents of this shape with these values.
    ///
    /// # Errors
    /// [`Error::Length`] unless `data` has exactly `B·C·h·w` values.
    pub fn new(shape: [usize; 4], data: Vec<f32>) -> Result<Latents, Error> {
        let len = shape.iter().try_fold(1usize, |len, n| len.checked_mul(*n));
        if len == Some(data.len()) {
            Ok(Latents { shape, data })
        } else {
            Err(Error::Length { shape, len: data.len() })
        }
    }

    /// Latents of this shape whose values `fill` sets; `fill` receives zeros.
    pub(super) fn filled(shape: [usize; 4], fill: impl FnOnce(&mut [f32])) -> Latents {
        let mut data = vec![0.0; shape.iter().product()];
        fill(&mut data);
        Latents { shape, data }
    }

    /// `[B, C, h, w]`.
    pub fn shape(&self) -> [usize; 4] {
        self.shape
    }

    /// All values, row-major.
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// The `(C, h, w)` values of image `b`, with `b < B`.
    pub fn row(&self, b: usize) -> &[f32] {
        let len = self.row_len();
        &self.data[b * len..(b + 1) * len]
    }

    pub fn into_data(self) -> Vec<f32> {
        self.data
    }

    pub fn is_finite(&self) -> bool {
        self.data.iter().all(|x| x.is_finite())
    }

    /// The linear combination `Σ k_i x_i` of latents of one shape. Each element is summed in `f64` in the order of the
    /// terms and rounded once.
    ///
    /// # Panics
    /// If there are no terms, or if their shapes differ. Callers first check the shapes of latents that a network or a
    /// recipe returned.
    pub fn combine(terms: &[(f64, &Latents)]) -> Latents {
        let shape = terms[0].1.shape;
        assert!(terms.iter().all(|(_, x)| x.shape == shape), "latents of different shapes were combined");
        let element = |i| terms.iter().map(|(k, x)| k * f64::from(x.data[i])).sum::<f64>() as f32;
        Latents { shape, data: (0..terms[0].1.data.len()).map(element).collect() }
    }

    /// `k x`.
    pub fn scale(&self, k: f64) -> Latents {
        Latents::combine(&[(k, self)])
    }

    /// Applies `f` to each number in `f64` and rounds the result once.
    pub(super) fn map(&self, f: impl Fn(f64) -> f64) -> Latents {
        Latents { shape: self.shape, data: self.data.iter().map(|x| f((*x).into()) as f32).collect() }
    }

    /// Applies `f` to each pair of numbers in `f64` and rounds the result once.
    ///
    /// # Panics
    /// If the shapes differ.
    pub(super) fn zip(&self, other: &Latents, f: impl Fn(f64, f64) -> f64) -> Latents {
        assert!(self.shape == other.shape, "latents of different shapes were combined");
        let pairs = self.data.iter().zip(&other.data);
        Latents { shape: self.shape, data: pairs.map(|(a, b)| f((*a).into(), (*b).into()) as f32).collect() }
    }

    /// `mask · self + (1 − mask) · under`. The `mask` (h, w) is the same for every image and channel.
    ///
    /// # Panics
    /// If the shapes differ.
    pub fn masked(mut self, mask: &[f32], under: &Latents) -> Latents {
        let [_, _, h, w] = self.shape;
        assert!(self.shape == under.shape && mask.len() == h * w, "latents of different shapes were combined");
        let under = under.data.iter();
        for ((x, under), share) in self.data.iter_mut().zip(under).zip(mask.iter().cycle()) {
            *x = (1.0 - share) * under + share * *x;
        }
        self
    }

    /// Applies `change` to the `(C, h, w)` values of each image.
    pub(super) fn each_row(mut self, change: impl FnMut(&mut [f32])) -> Latents {
        let len = self.row_len().max(1);
        self.data.chunks_mut(len).for_each(change);
        self
    }

    fn row_len(&self) -> usize {
        self.shape[1..].iter().product()
    }
}
