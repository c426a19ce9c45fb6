//! Matrix products whose rows do not feel each other.

use candle_core::{Result, Tensor};

/// x (B, …, K) · matrix (K, N) → (B, …, N), where the bytes of row b do not depend on B or on the other rows.
///
/// The `gemm` crate under candle sums over k in one order for every element of its general kernel, whatever the tile the
/// element falls into, with these exceptions (read in gemm 0.19 and gemm-common 0.19, `gemm.rs`):
/// 1. a product with one row or one column, or with k ≤ 2, goes to kernels of its own, as does one whose right factor
///    is read along k (here only N = 1) if it is small;
/// 2. k is cut into pieces, and pieces of at most 512 if m ≤ 64 and n ≤ 64, but of a size computed from k and the cache
///    otherwise.
///
/// So all rows of a batch share one product where none of this can differ between one row of the batch and several,
/// a product of a single row being padded by a row of zeros. Elsewhere every row of the batch is a product
/// by itself, which costs packing the matrix again and some parallelism: small maps with few channels out and many in.
pub fn rows_times(x: &Tensor, matrix: &Tensor) -> Result<Tensor> {
    let (k, n) = matrix.dims2()?;
    let dims = x.dims();
    let (batch, m) = (dims[0], dims[1..dims.len() - 1].iter().product::<usize>());
    let shape = [&dims[..dims.len() - 1], &[n]].concat();
    let x = x.reshape((batch * m, k))?;
    if !x.device().is_cpu() {
        return x.matmul(matrix)?.reshape(shape);
    }
    let product = if !rows_may_share(m, k, n) {
        let rows = (0..batch)
            .map(|b| x.narrow(0, b * m, m)?.matmul(matrix))
            .collect::<Result<Vec<_>>>()?;
        Tensor::cat(&rows, 0)?
    } else if batch * m == 1 {
        x.pad_with_zeros(0, 0, 1)?.matmul(matrix)?.narrow(0, 0, 1)?
    } else {
        x.matmul(matrix)?
    };
    product.reshape(shape)
}

/// Whether products of m and of b·m rows sum in the same order; depends on the layer and on the shape of one row alone.
fn rows_may_share(m: usize, k: usize, n: usize) -> bool {
    n >= 2 && k > 2 && (k <= 512 || n > 64 || m > 64)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use proptest::prelude::*;

    use super::*;

    fn bits(x: &Tensor) -> Vec<u32> {
        x.flatten_all()
            .unwrap()
            .to_vec1::<f32>()
            .unwrap()
            .iter()
            .map(|x| x.to_bits())
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        #[test]
        fn a_row_is_the_same_in_every_company(
            m in prop_oneof![Just(1usize), 2usize..9, Just(64), Just(65), 60usize..200],
            k in prop_oneof![1usize..4, 5usize..70, Just(512), 513usize..1300],
            n in prop_oneof![1usize..9, Just(64), Just(65), 60usize..140],
            batch in 2usize..6,
        ) {
            let random = |shape: &[usize]| Tensor::randn(0f32, 1.0, shape, &Device::Cpu).unwrap();
            let (x, matrix) = (random(&[batch, m, k]), random(&[k, n]));
            let together = rows_times(&x, &matrix).unwrap();
            for b in 0..batch {
                let alone = rows_times(&x.narrow(0, b, 1).unwrap(), &matrix).unwrap();
                prop_assert_eq!(bits(&alone), bits(&together.narrow(0, b, 1).unwrap()), "m {} k {} n {}", m, k, n);
            }
            let difference = (together - x.broadcast_matmul(&matrix).unwrap()).unwrap();
            let largest = difference.abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar::<f32>().unwrap();
            prop_assert!(largest < 1e-3);
        }
    }
}
