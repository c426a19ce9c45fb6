//! The matrix unit of the processor computes what the other kernels compute. Turning it on concerns the whole process,
//! so its tests have a program of their own. On processors without a matrix unit they say so and check nothing.

use std::sync::OnceLock;

use candle_core::{Device, Tensor};
use latentd::kernels::{
    Kernels,
    attention::{Mask, Scores},
    bf16,
    format::Format,
    geglu::{Gate, Geglu},
    isa,
    matrix::Matrix,
    narrow::Narrow,
};
use proptest::prelude::*;

/// Whether the unit is there; turns it on.
fn is_there() -> bool {
    static IS_THERE: OnceLock<bool> = OnceLock::new();
    *IS_THERE.get_or_init(|| {
        let is_there = bf16::turn_on();
        if !is_there {
            println!("skipped: this processor has no matrix unit");
        }
        assert_eq!(isa() == "amx", is_there);
        is_there
    })
}

/// Numbers from -1 to 1 with all 24 bits of a float32's mantissa.
fn random(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let number = |_| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((state >> 16) as i32) as f32 / 2f32.powi(31)
    };
    (0..count).map(number).collect()
}

fn tensor(values: Vec<f32>, shape: &[usize]) -> Tensor {
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn values(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

fn bits(x: &Tensor) -> Vec<u32> {
    values(x).iter().map(|value| value.to_bits()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_product_is_as_exact_as_in_float32_and_a_row_is_the_same_in_every_batch(
        m in prop_oneof![1usize..40, 380usize..400],
        k in prop_oneof![1usize..70, 500usize..530, 1020usize..1060],
        n in prop_oneof![1usize..9, 30usize..70, 250usize..300],
        batch in 1usize..4,
        threads in 1usize..4,
        seed: u64,
    ) {
        if !is_there() {
            return Ok(());
        }
        let (x, w) = (random(batch * m * k, seed), random(k * n, !seed));
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let (left, matrix) = (tensor(x.clone(), &[batch, m, k]), tensor(w.clone(), &[k, n]));
        let matrix = Matrix::new(&matrix, None, Kernels::default()).unwrap();
        let made = pool.install(|| matrix.times(&left)).unwrap();
        for (at, made) in values(&made).into_iter().enumerate() {
            let terms = || (0..k).map(|i| f64::from(x[at / n * k + i]) * f64::from(w[i * n + at % n]));
            let (exact, size) = (terms().sum::<f64>(), terms().map(f64::abs).sum::<f64>());
            // Six sums for 32 products, each with a rounding error of at most 2⁻²⁴ of the sizes. A float32 sum, product
            // by product, can be wrong by k · 2⁻²⁴.
            let bound = (k as f64 / 4.0 + 8.0) * 2f64.powi(-24) * size;
            prop_assert!((f64::from(made) - exact).abs() <= bound, "{made} {exact} {bound}");
        }
        for b in 0..batch {
            let alone = matrix.times(&left.narrow(0, b, 1).unwrap()).unwrap();
            prop_assert_eq!(bits(&alone), bits(&made.narrow(0, b, 1).unwrap()));
        }
        let last = matrix.times(&left.narrow(1, m - 1, 1).unwrap().contiguous().unwrap()).unwrap();
        prop_assert_eq!(bits(&last), bits(&made.narrow(1, m - 1, 1).unwrap()), "a line alone");
    }

    #[test]
    fn stored_weights_give_the_bits_of_weights_in_float32(
        format in prop::sample::select(vec![Format::Bf16, Format::F16, Format::F8E4m3, Format::Q8_0, Format::Q4K]),
        m in 1usize..40,
        blocks in 1usize..4,
        n in 1usize..70,
        is_scaled: bool,
        seed: u64,
    ) {
        if !is_there() {
            return Ok(());
        }
        let k = if format == Format::Q4K { 256 * blocks } else { 32 * blocks + 512 };
        let stored: Vec<u8> = random(n * format.bytes(k).unwrap(), seed).iter().map(|value| (value.to_bits() >> 13) as u8 & 0xbf).collect();
        let scale = if is_scaled { 0.37 } else { 1.0 };
        let wide: Vec<f32> = format.widened(&stored).into_iter().map(|value| value * scale).collect();
        // With one more column, whose numbers have three planes, all numbers of the layer are multiplied with three.
        let longer = [&wide[..], &random(k, seed ^ 1)].concat();
        let longer = tensor(longer, &[n + 1, k]).t().unwrap().contiguous().unwrap();
        let longer = Matrix::new(&longer, None, Kernels::default()).unwrap();
        let wide = tensor(wide, &[n, k]).t().unwrap().contiguous().unwrap();
        let wide = Matrix::new(&wide, None, Kernels::default()).unwrap();
        let narrow = Matrix::narrow(Narrow::pack(format, scale, &stored, (k, n), |row| row).unwrap(), None).unwrap();
        let x = tensor(random(m * k, !seed), &[1, m, k]);
        let first = longer.times(&x).unwrap().narrow(2, 0, n).unwrap();
        prop_assert_eq!(bits(&wide.times(&x).unwrap()), bits(&first), "{:?}", format);
        prop_assert_eq!(bits(&wide.times(&x).unwrap()), bits(&narrow.times(&x).unwrap()), "{:?}", format);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn attention_is_as_exact_as_in_float32_and_a_query_is_the_same_in_every_batch(
        b in 1usize..3,
        n in prop_oneof![1usize..40, 60usize..140],
        m in prop_oneof![1usize..40, 250usize..530],
        heads in 1usize..3,
        d in prop_oneof![32usize..72, Just(128)],
        [is_causal, is_padded, is_biased] in any::<[bool; 3]>(),
        seed: u64,
    ) {
        if !is_there() {
            return Ok(());
        }
        let (m, width) = (if is_causal { n } else { m }, heads * d);
        let of = |length: usize, seed| tensor(random(b * length * width, seed), &[b, length, width]);
        let [q, k, v] = [of(n, seed), of(m, !seed), of(m, seed ^ 5)];
        let bias = tensor(random(heads * n * m, seed ^ 9), &[heads, n, m]);
        let keys: Vec<usize> = (0..b).map(|row| 1 + (seed as usize >> (8 * row)) % m).collect();
        let scores = Scores {
            mask: if is_causal { Mask::Causal } else { Mask::None },
            scale: Some(1.0),
            bias: is_biased.then_some(&bias),
            keys: is_padded.then_some(&keys[..]),
        };
        let made = Kernels::default().scored_attention(&q, &k, &v, heads, scores).unwrap();
        let reference = Kernels::REFERENCE.scored_attention(&q, &k, &v, heads, scores).unwrap();
        for (made, reference) in values(&made).into_iter().zip(values(&reference)) {
            prop_assert!((made - reference).abs() < 2e-5, "{made} {reference}");
        }
        // Without its padding and without the other queries, the last query of the last row has the same bits.
        let only = [if is_padded { keys[b - 1] } else { m }];
        let last = |x: &Tensor, from: usize, length: usize| {
            x.narrow(0, b - 1, 1).unwrap().narrow(1, from, length).unwrap().contiguous().unwrap()
        };
        let (k, v) = (last(&k, 0, only[0]), last(&v, 0, only[0]));
        let bias = bias.narrow(2, 0, only[0]).unwrap();
        let (first, queries) = if is_causal { (0, n) } else { (n - 1, 1) };
        let bias = bias.narrow(1, first, queries).unwrap().contiguous().unwrap();
        let alone = Scores { bias: is_biased.then_some(&bias), keys: is_padded.then_some(&only[..]), ..scores };
        let alone = Kernels::default().scored_attention(&last(&q, first, queries), &k, &v, heads, alone).unwrap();
        prop_assert_eq!(bits(&alone), bits(&last(&made, first, queries)));
    }
}

#[test]
fn attention_uses_it() {
    if !is_there() {
        return;
    }
    let x = tensor(random(2 * 40 * 64, 3), &[2, 40, 64]);
    let of = |kernels: Kernels| values(&kernels.attention(&x, &x, &x, 1, Mask::None).unwrap());
    let (unit, reference) = (of(Kernels::default()), of(Kernels::REFERENCE));
    assert!(unit.iter().zip(&reference).all(|(a, b)| (a - b).abs() < 1e-5));
    assert_ne!(unit, reference, "both computed without the unit");
}

#[test]
fn gated_layers_use_it_too() {
    if !is_there() {
        return;
    }
    let (k, n) = (96, 48);
    let (x, matrix, bias) = (random(20 * k, 1), random(k * 2 * n, 2), random(2 * n, 3));
    let (x, matrix, bias) = (tensor(x, &[1, 20, k]), tensor(matrix, &[k, 2 * n]), tensor(bias, &[2 * n]));
    let of = |kernels| values(&Geglu::new(&matrix, &bias, Gate::GeluTanh, kernels).unwrap().times(&x).unwrap());
    let (unit, reference) = (of(Kernels::default()), of(Kernels::REFERENCE));
    assert!(unit.iter().zip(&reference).all(|(a, b)| (a - b).abs() < 1e-4));
    assert_ne!(unit, reference, "both computed without the unit");
}

#[test]
fn numbers_that_are_not_finite_are_not_hidden() {
    if !is_there() {
        return;
    }
    for wrong in [f32::INFINITY, f32::NAN] {
        let mut x = random(64, 5);
        x[40] = wrong;
        let matrix = Matrix::new(&tensor(random(64 * 16, 6), &[64, 16]), None, Kernels::default()).unwrap();
        let made = matrix.times(&tensor(x, &[1, 1, 64])).unwrap();
        assert!(values(&made).iter().all(|value| !value.is_finite()));
    }
}
