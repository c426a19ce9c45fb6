//! Fast products against exact ones, on each unit that the machine has. A unit that it lacks is named in the output.

use std::sync::{Mutex, PoisonError};

use candle_core::Tensor;
use proptest::{prelude::*, test_runner::TestCaseResult};

use super::{Unit, use_for_fast};
use crate::{
    Kernels,
    attention::Mask,
    conv2d::{Conv2d, Geometry},
    finish::Epilogue,
    format::Format,
    geglu::{Gate, Geglu},
    matrix::Matrix,
    narrow::Narrow,
    precision::Precision,
    random::Random,
};

/// Calls `test` with each unit of the machine in turn.
fn each_unit(test: impl Fn(Unit) -> TestCaseResult) -> TestCaseResult {
    /// The unit concerns the whole process.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _held = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    for unit in Unit::ALL {
        if !unit.is_available() {
            println!("skipped: this processor has no {}", unit.name());
            continue;
        }
        use_for_fast(Some(unit));
        let outcome = test(unit);
        use_for_fast(None);
        outcome?;
    }
    Ok(())
}

fn values(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

fn bits(x: &Tensor) -> Vec<u32> {
    values(x).into_iter().map(f32::to_bits).collect()
}

/// The error of `fast`, relative to the numbers of `exact`, as root mean squares.
fn error(exact: &Tensor, fast: &Tensor) -> f32 {
    let square = |values: Vec<f32>| values.iter().map(|value| value * value).sum::<f32>();
    (square(values(&(exact - fast).unwrap())) / square(values(exact))).sqrt()
}

/// Checks an operation on x (B, …) whose numbers have random signs: fast results differ from the exact ones, as rounding
/// to 8 bits does, and a row is the same alone and on any number of threads.
fn check(x: &Tensor, threads: usize, compute: impl Fn(&Tensor) -> Tensor + Sync) -> TestCaseResult {
    let fast = |x: &Tensor, threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| Precision::Fast.during(|| compute(x)))
    };
    let exact = compute(x);
    each_unit(|unit| {
        let together = fast(x, threads);
        let error = error(&exact, &together);
        prop_assert!(error > 1e-5 && error < 1e-2, "{unit:?}: {error}");
        for b in 0..x.dim(0).unwrap() {
            let row = |x: &Tensor| x.narrow(0, b, 1).unwrap();
            let alone = fast(&row(x).contiguous().unwrap(), 1);
            prop_assert_eq!(bits(&alone), bits(&row(&together)), "{:?}, row {}", unit, b);
        }
        Ok(())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn products(
        m in prop_oneof![4usize..40, 1500usize..1600],
        k in prop_oneof![16usize..70, 500usize..530, 1020usize..1060],
        n in prop_oneof![1usize..9, 30usize..70, 250usize..300],
        batch in 1usize..4, threads in 1usize..4, seed: u64,
    ) {
        let mut random = Random::new(seed);
        let mut random = |shape: &[usize]| random.normal(shape, 0.0);
        let (x, matrix) = (random(&[batch, m, k]), random(&[k, n]));
        let matrix = Matrix::new(&matrix, None, Kernels::default()).unwrap();
        check(&x, threads, |x| matrix.times(x).unwrap())?;
    }

    #[test]
    fn convolutions(
        (h, w) in (3usize..18, 3usize..40), inputs in 16usize..100, outputs in prop_oneof![1usize..20, 120usize..150],
        kernel in prop_oneof![Just((3usize, 3usize)), Just((1, 3)), Just((2, 5)), Just((1, 1))],
        pads in (0usize..2, 0usize..2, 0usize..2, 0usize..3), batch in 1usize..4, threads in 1usize..4, seed: u64,
    ) {
        let geometry = Geometry { kernel, stride: 1, top: pads.0, bottom: pads.1, left: pads.2, right: pads.3 };
        prop_assume!(w + geometry.left + geometry.right >= kernel.1);
        let mut random = Random::new(seed);
        let mut random = |shape: &[usize]| random.normal(shape, 0.0);
        let (x, bias) = (random(&[batch, h, w, inputs]), random(&[outputs]));
        let weight = random(&[kernel.0 * kernel.1 * inputs, outputs]);
        let conv = Conv2d::new(&weight, &bias, geometry, Kernels::default()).unwrap();
        check(&x, threads, |x| conv.forward(x).unwrap())?;
    }

    #[test]
    fn attention_and_gates(
        queries in 4usize..150, keys in prop_oneof![1usize..20, 250usize..300], d in 32usize..70, heads in 1usize..3,
        batch in 1usize..3, threads in 1usize..4, seed: u64,
    ) {
        let mut random = Random::new(seed);
        let mut random = |shape: &[usize]| random.normal(shape, 0.0);
        let x = random(&[batch, queries, heads * d]);
        let k = random(&[1, keys, heads * d]);
        let attend = |x: &Tensor| {
            let k = k.broadcast_as((x.dim(0).unwrap(), keys, heads * d)).unwrap().contiguous().unwrap();
            Kernels::default().attention(x, &k, &k, heads, Mask::None).unwrap()
        };
        if keys > 1 {
            check(&x, threads, attend)?;
        }
        let (matrix, bias) = (random(&[heads * d, 64]), random(&[64]));
        let geglu = Geglu::new(&matrix, &bias, Gate::Silu, Kernels::default()).unwrap();
        check(&x, threads, |x| geglu.times(x).unwrap())?;
    }

    #[test]
    fn weights_as_they_are_stored_give_the_bits_of_weights_in_float32(
        (h, w) in (3usize..12, 3usize..12), inputs in 16usize..80, outputs in 1usize..40, is_half: bool, seed: u64,
    ) {
        let mut random = Random::new(seed);
        let (x, bias) = (random.normal(&[2, h, w, inputs], 0.0), random.normal(&[outputs], 0.0));
        let format = if is_half { Format::F16 } else { Format::Bf16 };
        let (narrow, wide) = Narrow::random_places(&mut random, format, [outputs, inputs, 9]);
        let geometry = Geometry::square(3, 1, 1);
        let wide = Conv2d::new(&wide, &bias, geometry, Kernels::default()).unwrap();
        let narrow = Conv2d::narrow(narrow, &bias, geometry, Kernels::default()).unwrap();
        each_unit(|_| {
            let of = |conv: &Conv2d| Precision::Fast.during(|| bits(&conv.forward(&x).unwrap()));
            prop_assert_eq!(of(&wide), of(&narrow));
            Ok(())
        })?;
    }
}

#[test]
fn an_epilogue_is_added_to_the_rounded_product_of_a_convolution() {
    let mut random = Random::new(5);
    let mut random = |shape: &[usize]| random.normal(shape, 0.0);
    let (x, bias, weight) = (random(&[2, 5, 7, 32]), random(&[48]), random(&[9 * 32, 48]));
    let (rows, residual) = (random(&[2, 48]), random(&[2, 5, 7, 48]));
    let conv = Conv2d::new(&weight, &bias, Geometry::square(3, 1, 1), Kernels::default()).unwrap();
    each_unit(|_| {
        let (plain, with) = Precision::Fast.during(|| {
            let epilogue = Epilogue { per_sample: Some(&rows), residual: Some(&residual), ..Epilogue::default() };
            (conv.forward(&x).unwrap(), conv.forward_with(&x, epilogue).unwrap())
        });
        let expected = plain.broadcast_add(&rows.reshape((2, 1, 1, 48)).unwrap()).unwrap();
        prop_assert_eq!(bits(&(expected + &residual).unwrap()), bits(&with));
        Ok(())
    })
    .unwrap();
}

#[test]
fn rows_of_few_lines_are_exact() {
    let mut random = Random::new(7);
    let (x, matrix) = (random.normal(&[9, 3, 40], 0.0), random.normal(&[40, 20], 0.0));
    let matrix = Matrix::new(&matrix, None, Kernels::default()).unwrap();
    each_unit(|_| {
        let fast = Precision::Fast.during(|| matrix.times(&x).unwrap());
        prop_assert_eq!(bits(&fast), bits(&matrix.times(&x).unwrap()));
        Ok(())
    })
    .unwrap();
}

#[test]
fn without_a_unit_fast_products_are_exact() {
    let mut random = Random::new(6);
    let (x, matrix) = (random.normal(&[3, 40], 0.0), random.normal(&[40, 20], 0.0));
    let matrix = Matrix::new(&matrix, None, Kernels::default()).unwrap();
    // Other tests hold the unit meanwhile, so this one takes its turn.
    each_unit(|_| {
        use_for_fast(None);
        prop_assert_eq!(bits(&Precision::Fast.during(|| matrix.times(&x).unwrap())), bits(&matrix.times(&x).unwrap()));
        Ok(())
    })
    .unwrap();
}
