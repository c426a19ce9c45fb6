//! Tests of the reference kernels: their gradients with respect to their inputs are compared with finite differences,
//! and the rows of a batch with the same rows alone.

use candle_core::{Result, Tensor, Var};

use super::{
    Kernels,
    attention::Mask,
    conv2d::{Conv2d, Geometry},
    finish::Epilogue,
    geglu::{Gate, Geglu},
    group_norm::Then,
    matrix::Matrix,
    random::Random,
    rotary::Pairs,
};

type Kernel<'a> = &'a dyn Fn(&Tensor) -> Result<Tensor>;

/// The inputs have two rows; the maps are not square.
#[test]
fn gradients_of_reference_kernels_are_those_of_finite_differences() {
    const REFERENCE: Kernels = Kernels::REFERENCE;
    let mut random = Random::new(7);
    let mut numbers = |shape: &[usize]| random.normal(shape, 0.0);
    let (map, tokens, text) = (numbers(&[2, 6, 4, 8]), numbers(&[2, 5, 8]), numbers(&[2, 3, 8]));
    let (scale, shift, rows) = (numbers(&[8]), numbers(&[8]), numbers(&[2, 8]));
    let matrix = Matrix::new(&numbers(&[8, 8]), Some(&shift), REFERENCE).unwrap();
    let geglu = Geglu::new(&numbers(&[8, 12]), &numbers(&[12]), Gate::GeluErf, REFERENCE).unwrap();
    let conv = |geometry: Geometry, weight: &Tensor| Conv2d::new(weight, &shift, geometry, REFERENCE).unwrap();
    let weight = (numbers(&[72, 8]) * 0.3).unwrap();
    let (inner, down) = (conv(Geometry::square(3, 1, 1), &weight), conv(Geometry::square(3, 2, 1), &weight));
    let epilogue = Epilogue { per_sample: Some(&rows), residual: Some(&map), ..Epilogue::default() };

    let of_maps: [(&str, Kernel<'_>); 10] = [
        ("silu", &|x| REFERENCE.silu(x)),
        ("gelu_erf", &|x| REFERENCE.gelu_erf(x)),
        ("quick_gelu", &|x| REFERENCE.quick_gelu(x)),
        ("soft_clamp", &|x| REFERENCE.soft_clamp(x, 3.0)),
        ("nearest", &|x| REFERENCE.nearest(x, 12, 7)),
        ("group_norm", &|x| REFERENCE.group_norm(x, 4, &scale, &shift, 1e-5, Then::Silu)),
        ("layer_norm", &|x| REFERENCE.layer_norm(x, &scale, &shift, 1e-5)),
        ("conv2d", &|x| inner.forward_with(x, epilogue)),
        ("conv2d in steps of two", &|x| down.forward(x)),
        ("a skip connection", &|x| inner.forward_with(x, Epilogue::residual(x))),
    ];
    for (name, kernel) in of_maps {
        compare(name, &map, kernel);
    }
    let (row, angles) = (numbers(&[2, 1, 8]), numbers(&[2, 5, 2]));
    let (cos, sin) = (angles.cos().unwrap(), angles.sin().unwrap());
    let of_tokens: [(&str, Kernel<'_>); 11] = [
        ("matrix", &|x| matrix.times_with(x, Epilogue { per_sample: Some(&rows), ..Epilogue::default() })),
        ("geglu", &|x| geglu.times(x)),
        ("attention to itself", &|x| REFERENCE.attention(x, x, x, 2, Mask::None)),
        ("attention to those before", &|x| REFERENCE.attention(x, x, x, 2, Mask::Causal)),
        ("attention from others", &|x| REFERENCE.attention(&text, x, x, 4, Mask::None)),
        ("rms_norm", &|x| REFERENCE.rms_norm(x, &scale, 1e-6)),
        ("modulated_norm", &|x| REFERENCE.modulated_norm(x, &row, &row, 1e-5)),
        ("gated_sum", &|x| REFERENCE.gated_sum(x, x, &row)),
        ("rotary of neighbors", &|x| REFERENCE.rotary(x, &cos, &sin, Pairs::Neighbors)),
        ("rotary of halves", &|x| REFERENCE.rotary(x, &cos, &sin, Pairs::Halves)),
        ("attention to others", &|x| REFERENCE.attention(x, &text, &text, 1, Mask::None)),
    ];
    for (name, kernel) in of_tokens {
        compare(name, &tokens, kernel);
    }
}

/// With these shapes, candle's products and convolutions depend on the number of rows: few lines, and one line for each
/// row.
#[test]
fn a_row_has_the_same_bits_in_every_batch() {
    const REFERENCE: Kernels = Kernels::REFERENCE;
    const BATCH: usize = 5;
    let mut random = Random::new(3);
    let mut numbers = |shape: &[usize]| random.normal(shape, 0.0);
    let bias = numbers(&[40]);
    let matrix = Matrix::new(&numbers(&[70, 40]), Some(&bias), REFERENCE).unwrap();
    let geglu = Geglu::new(&numbers(&[70, 80]), &numbers(&[80]), Gate::GeluErf, REFERENCE).unwrap();
    let conv = |weight: &Tensor, geometry| Conv2d::new(weight, &bias, geometry, REFERENCE).unwrap();
    let inner = conv(&numbers(&[9 * 70, 40]), Geometry::square(3, 1, 1));
    let pointwise = conv(&numbers(&[70, 40]), Geometry::square(1, 1, 0));
    let (vector, line, map) = (numbers(&[BATCH, 70]), numbers(&[BATCH, 3, 70]), numbers(&[BATCH, 4, 2, 70]));

    let of_rows: [(&str, &Tensor, Kernel<'_>); 8] = [
        ("a vector by a matrix", &vector, &|x| matrix.times(x)),
        ("lines by a matrix", &line, &|x| matrix.times(x)),
        ("a map by a matrix", &map, &|x| matrix.times(x)),
        ("geglu", &line, &|x| geglu.times(x)),
        ("a convolution", &map, &|x| inner.forward(x)),
        ("a pointwise convolution", &map, &|x| pointwise.forward(x)),
        ("attention", &line, &|x| REFERENCE.attention(x, x, x, 7, Mask::None)),
        ("attention to those before", &line, &|x| REFERENCE.attention(x, x, x, 2, Mask::Causal)),
    ];
    let bits = |x: &Tensor| -> Vec<u32> {
        x.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
    };
    for (name, x, kernel) in of_rows {
        let together = kernel(x).unwrap();
        for row in 0..BATCH {
            let of = |x: &Tensor| x.narrow(0, row, 1).unwrap();
            assert_eq!(bits(&kernel(&of(x)).unwrap()), bits(&of(&together)), "{name}, row {row}");
        }
    }
}

/// Compares the gradient of a weighted sum of the kernel's results with finite differences of this sum, for some
/// elements of x.
fn compare(name: &str, x: &Tensor, kernel: &dyn Fn(&Tensor) -> Result<Tensor>) {
    const STEP: f32 = 1e-2;
    let x = Var::from_tensor(x).unwrap();
    let made = kernel(x.as_tensor()).unwrap();
    let weights = Random::new(11).normal(made.dims(), 0.0);
    let sum = |made: &Tensor| (made * &weights).unwrap().sum_all().unwrap();
    let grads = sum(&made).backward().unwrap();
    let gradient = grads.get(&x).unwrap_or_else(|| panic!("{name}: no gradient"));
    let gradient: Vec<f32> = gradient.flatten_all().unwrap().to_vec1().unwrap();
    let values: Vec<f32> = x.flatten_all().unwrap().to_vec1().unwrap();
    let largest = gradient.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    for place in (0..values.len()).step_by(values.len().div_ceil(16)) {
        let moved = |by: f32| {
            let mut values = values.clone();
            values[place] += by;
            let x = Tensor::from_vec(values, x.shape(), x.device()).unwrap();
            f64::from(sum(&kernel(&x).unwrap()).to_scalar::<f32>().unwrap())
        };
        let difference = (moved(STEP) - moved(-STEP)) / f64::from(2.0 * STEP);
        let error = (f64::from(gradient[place]) - difference).abs();
        assert!(error < 2e-2 * f64::from(1.0 + largest), "{name} at {place}: {} and {difference}", gradient[place]);
    }
}
