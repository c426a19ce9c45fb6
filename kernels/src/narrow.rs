//! Weight matrices that stay in memory in the number format of their file, and become float32 only within a product.

use std::{fmt, ops::Range};

use candle_core::Result;
use rayon::prelude::*;

use super::{
    arena, bf16,
    block::Block,
    format::Format,
    gemm::{DEPTH, Lines, PanelsRef, Product, WIDTH},
};

/// A (K, N) matrix of stored numbers in panels of 16 columns, like `Panels` of `gemm.rs`. Within a panel, the blocks of
/// the 16 columns alternate (`Format::widen_lanes`), so that a vector unit converts the numbers of one row in all
/// columns at once.
pub struct Narrow {
    pub(super) k: usize,
    pub(super) n: usize,
    format: Format,
    /// The factor by which the stored numbers are multiplied.
    scale: f32,
    /// ⌈N/16⌉ panels of 16 columns of K numbers. Each entry has one byte of each of the 16 columns.
    bytes: Vec<[u8; WIDTH]>,
}

/// Panels that are converted at a time: as many as the largest tile of a product has.
const GROUP: usize = 2;

impl Narrow {
    /// Packs a matrix that is stored as N rows of K numbers, in whole blocks. Each row becomes a column; `row_of`
    /// returns the row for a column.
    ///
    /// # Errors
    /// The bytes are not those of N rows.
    pub fn pack(
        format: Format,
        scale: f32,
        rows: &[u8],
        (k, n): (usize, usize),
        row_of: impl Fn(usize) -> usize + Sync,
    ) -> Result<Self> {
        let (Some(length), 1..) = (format.bytes(k), k) else {
            candle_core::bail!("rows of {k} numbers are no whole blocks of {format:?}");
        };
        if length.checked_mul(n) != Some(rows.len()) {
            candle_core::bail!("{} bytes for {n} rows of {k} numbers in {format:?}", rows.len());
        }
        let unit = format.unit();
        let mut bytes = vec![[0; WIDTH]; n.div_ceil(WIDTH) * length];
        bytes.par_chunks_exact_mut(length).enumerate().for_each(|(panel, packed)| {
            for (lane, column) in (panel * WIDTH..n.min((panel + 1) * WIDTH)).enumerate() {
                let row = &rows[row_of(column) * length..][..length];
                let units = packed.as_flattened_mut().chunks_exact_mut(unit).skip(lane).step_by(WIDTH);
                units.zip(row.chunks_exact(unit)).for_each(|(packed, bytes)| packed.copy_from_slice(bytes));
            }
        });
        Ok(Self { k, n, format, scale, bytes })
    }

    /// Packs the weight of a convolution, which is stored as (outputs, inputs, places), as a matrix of places · inputs
    /// lines and `outputs` columns. `places` is the number of positions of the kernel.
    ///
    /// # Errors
    /// The bytes are not those of the weight, or the numbers of a format with blocks would not stay together.
    pub fn pack_places(
        format: Format,
        scale: f32,
        stored: &[u8],
        [outputs, inputs, places]: [usize; 3],
    ) -> Result<Self> {
        if places == 1 {
            return Self::pack(format, scale, stored, (inputs, outputs), |row| row);
        }
        let ((1, unit), Some(k @ 1..)) = (format.block(), inputs.checked_mul(places)) else {
            candle_core::bail!("{inputs} inputs at {places} places cannot stay in {format:?}");
        };
        if k.checked_mul(unit).and_then(|length| length.checked_mul(outputs)) != Some(stored.len()) {
            candle_core::bail!("{} bytes for {outputs} rows of {k} numbers in {format:?}", stored.len());
        }
        let mut bytes = vec![[0; WIDTH]; outputs.div_ceil(WIDTH) * k * unit];
        bytes.par_chunks_exact_mut(k * unit).enumerate().for_each(|(panel, packed)| {
            let packed = packed.as_flattened_mut();
            for (lane, column) in (panel * WIDTH..outputs.min((panel + 1) * WIDTH)).enumerate() {
                let row = &stored[column * k * unit..][..k * unit];
                for (input, row) in row.chunks_exact(places * unit).enumerate() {
                    for (place, number) in row.chunks_exact(unit).enumerate() {
                        packed[((place * inputs + input) * WIDTH + lane) * unit..][..unit].copy_from_slice(number);
                    }
                }
            }
        });
        Ok(Self { k, n: outputs, format, scale, bytes })
    }

    /// Bytes that [`Narrow::pack`] keeps for a matrix; `None` if a row does not consist of whole blocks.
    pub fn size(format: Format, (k, n): (usize, usize)) -> Option<usize> {
        format.bytes(k)?.checked_mul(n.checked_next_multiple_of(WIDTH)?)
    }

    /// Whether `is_sound` holds for all numbers, which are passed in pieces.
    pub fn all(&self, is_sound: impl Fn(&[f32]) -> bool + Sync) -> bool {
        (0..self.n.div_ceil(WIDTH)).into_par_iter().all(|panel| {
            let mut values = vec![0.0; self.k.min(DEPTH) * WIDTH];
            self.pieces(0..self.k).all(|ks| {
                let values = &mut values[..ks.len() * WIDTH];
                self.widen(panel, &ks, values);
                is_sound(values)
            })
        })
    }

    /// Multiplies `a` by the lines `depth` and the panels `panels` of the matrix. Writes the product to `out`, or adds
    /// it to `out` if `add` is true. The bits are those of a product with the float32 numbers. `depth` begins at the
    /// start of a block of the format.
    pub(super) fn times(&self, a: Lines<'_>, depth: Range<usize>, panels: Range<usize>, out: Block<'_>, add: bool) {
        let mut scratch = arena::take(depth.len() * GROUP * WIDTH);
        let lines = out.lines();
        for first in panels.clone().step_by(GROUP) {
            let group = first..panels.end.min(first + GROUP);
            let values = &mut scratch[..depth.len() * WIDTH * group.len()];
            for (panel, values) in group.clone().zip(values.chunks_exact_mut(depth.len() * WIDTH)) {
                self.widen(panel, &depth, values);
            }
            let n = self.n.min(group.end * WIDTH) - first * WIDTH;
            let column = (first - panels.start) * WIDTH;
            // SAFETY: `out` is borrowed mutably, and this is its only part.
            let out = unsafe { out.part(0..lines, column..column + n) };
            let b = PanelsRef { k: depth.len(), n, values };
            let next =
                [group.end, group.end + 1].map(|panel| self.stored(panel.min(panels.end - 1), &depth).as_flattened());
            Product { a, b, depth: 0..depth.len(), panels: 0..group.len(), out, add, ahead: Some(next) }.run();
        }
    }

    /// The number of planes of each number, see [`super::bf16`].
    pub(super) fn planes(&self) -> usize {
        match self.format {
            Format::Bf16 | Format::F8E4m3 | Format::F8E5m2 if self.scale == 1.0 => 1,
            _ => bf16::PLANES,
        }
    }

    /// Sets steps of a panel of `right` to some lines of a panel; `at` is the panel of `right` and its first step. The
    /// first line begins a block. `values` is room for the lines.
    pub(super) fn split(
        &self,
        panel: usize,
        ks: &Range<usize>,
        right: &mut bf16::Right,
        at: (usize, usize),
        values: &mut [f32],
    ) {
        if self.format == Format::Bf16 && self.scale == 1.0 {
            return right.set(at.0, at.1, self.stored(panel, ks));
        }
        if self.format == Format::F16 && self.scale == 1.0 && right.set_half(at.0, at.1, self.stored(panel, ks)) {
            return;
        }
        let values = &mut values[..ks.len() * WIDTH];
        self.widen(panel, ks, values);
        right.split(at.0, at.1, values);
    }

    /// Divides lines of the matrix into the pieces that a product sums in registers at a time.
    fn pieces(&self, ks: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        ks.clone().step_by(DEPTH).map(move |first| first..ks.end.min(first + DEPTH))
    }

    /// Some lines of a panel. The first line begins a block.
    fn stored(&self, panel: usize, ks: &Range<usize>) -> &[[u8; WIDTH]] {
        let (numbers, length) = self.format.block();
        &self.bytes[(panel * self.k + ks.start) / numbers * length..][..ks.len() / numbers * length]
    }

    /// Converts some lines of a panel. The first line begins a block.
    pub(super) fn widen(&self, panel: usize, ks: &Range<usize>, values: &mut [f32]) {
        self.format.widen_lanes::<WIDTH>(self.stored(panel, ks), values.as_chunks_mut().0);
        if self.scale != 1.0 {
            values.iter_mut().for_each(|value| *value *= self.scale);
        }
    }
}

impl fmt::Debug for Narrow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Narrow({}, {}, {:?})", self.k, self.n, self.format)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};
    use proptest::prelude::*;

    use super::*;
    use crate::{Kernels, finish::Epilogue, matrix::Matrix, random::Random};

    const FORMATS: [Format; 14] = [
        Format::F16,
        Format::Bf16,
        Format::F8E4m3,
        Format::F8E5m2,
        Format::Q4_0,
        Format::Q4_1,
        Format::Q5_0,
        Format::Q5_1,
        Format::Q8_0,
        Format::Q2K,
        Format::Q3K,
        Format::Q4K,
        Format::Q5K,
        Format::Q6K,
    ];

    impl Narrow {
        /// A random weight of a convolution as it is stored, and as a tensor (places · inputs, outputs) of float32.
        pub(crate) fn random_places(random: &mut Random, format: Format, sizes: [usize; 3]) -> (Narrow, Tensor) {
            let [outputs, inputs, places] = sizes;
            let values: Vec<f32> = random.normal(&[outputs * inputs * places], 0.0).to_vec1().unwrap();
            let number = |value: f32| {
                // The upper two bits of an exponent stay clear, so that no number is infinite.
                let [low, .., high] = value.to_bits().to_le_bytes();
                [low, high & 0xbf]
            };
            let stored: Vec<u8> = values.into_iter().flat_map(number).collect();
            let numbers = format.widened(&stored);
            let of = |at: usize| {
                let (place, input, output) = (at / outputs / inputs, at / outputs % inputs, at % outputs);
                numbers[(output * inputs + input) * places + place]
            };
            let wide = Tensor::from_iter((0..numbers.len()).map(of), &Device::Cpu).unwrap();
            let wide = wide.reshape((places * inputs, outputs)).unwrap();
            (Narrow::pack_places(format, 1.0, &stored, sizes).unwrap(), wide)
        }
    }

    /// Rows of arbitrary bytes without infinities: the upper two bits of every byte are cleared, so that no float16 has
    /// the largest exponent.
    fn rows(format: Format, k: usize, n: usize, seed: u64) -> Vec<u8> {
        let mut state = seed;
        let byte = |_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as u8 & 0xbf
        };
        (0..n * format.bytes(k).unwrap()).map(byte).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn a_product_has_the_bits_of_the_product_in_float32(
            at in 0..FORMATS.len(),
            m in prop_oneof![Just(1usize), 2usize..9, 90usize..200],
            blocks in prop_oneof![1usize..4, 16usize..20],
            n in prop_oneof![1usize..9, 30usize..70, 250usize..300],
            threads in 1usize..4,
            is_scaled: bool,
            seed: u64,
        ) {
            let format = FORMATS[at];
            let k = if format.block().0 == 256 { blocks.min(5) * 256 } else { blocks * 32 + 32 % format.block().0.max(2) };
            let k = k - k % format.block().0;
            let stored = rows(format, k, n, seed);
            let scale = if is_scaled { 0.37 } else { 1.0 };
            let mut random = Random::new(seed);
            let mut random = |shape: &[usize]| random.normal(shape, 0.0);
            let (x, bias, residual) = (random(&[2, m, k]), random(&[n]), random(&[2, m, n]));
            let values: Vec<f32> = format.widened(&stored).into_iter().map(|value| value * scale).collect();
            let wide = Tensor::from_vec(values, (n, k), &Device::Cpu).unwrap().t().unwrap().contiguous().unwrap();
            let narrow = Narrow::pack(format, scale, &stored, (k, n), |row| row).unwrap();
            prop_assert!(narrow.all(|values| values.iter().all(|value| value.is_finite())));
            let wide = Matrix::new(&wide, Some(&bias), Kernels::default()).unwrap();
            let narrow = Matrix::narrow(narrow, Some(&bias)).unwrap();
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let bits = |matrix: &Matrix| -> Vec<u32> {
                let y = pool.install(|| matrix.times_with(&x, Epilogue::residual(&residual))).unwrap();
                y.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
            };
            prop_assert_eq!(bits(&wide), bits(&narrow), "{:?}, {}×{}×{}", format, m, k, n);
        }
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let pack = |k, n, bytes: usize| Narrow::pack(Format::Q8_0, 1.0, &vec![0; bytes], (k, n), |row| row);
        assert!(pack(32, 3, 3 * 34).is_ok());
        assert!(pack(33, 3, 3 * 34).is_err() && pack(32, 3, 3 * 34 - 1).is_err() && pack(0, 3, 0).is_err());
        let places = |format, bytes: usize| Narrow::pack_places(format, 1.0, &vec![0; bytes], [3, 32, 9]);
        assert!(places(Format::F16, 3 * 32 * 9 * 2).is_ok() && places(Format::F16, 3 * 32 * 9 * 2 + 1).is_err());
        assert!(places(Format::Q8_0, 3 * 9 * 34).is_err(), "the numbers of a block are at several places");
        let bias = Tensor::zeros(4, candle_core::DType::F32, &Device::Cpu).unwrap();
        assert!(Matrix::narrow(pack(32, 3, 3 * 34).unwrap(), Some(&bias)).is_err());
    }

    #[test]
    fn a_number_that_is_not_finite_is_found() {
        let mut stored = vec![0u8; 40 * 64];
        stored[2 * (17 * 64 / 2 + 5) + 1] = 0x7f;
        let narrow = Narrow::pack(Format::Bf16, 1.0, &stored, (32, 40), |row| row).unwrap();
        assert!(narrow.all(|values| values.iter().all(|value| value.is_finite())), "a large number");
        stored[2 * (17 * 64 / 2 + 5)] = 0x80;
        let narrow = Narrow::pack(Format::Bf16, 1.0, &stored, (32, 40), |row| row).unwrap();
        assert!(!narrow.all(|values| values.iter().all(|value| value.is_finite())));
    }

    #[test]
    fn a_matrix_takes_the_bytes_that_are_planned() {
        for (format, k, n) in [(Format::Q4K, 512, 40), (Format::Bf16, 30, 16), (Format::Q8_0, 32, 1)] {
            let narrow = Narrow::pack(format, 1.0, &rows(format, k, n, 1), (k, n), |row| row).unwrap();
            assert_eq!(Narrow::size(format, (k, n)), Some(narrow.bytes.len() * WIDTH));
        }
        assert_eq!(Narrow::size(Format::Q4K, (100, 3)), None);
    }
}
