//! Times each kernel at the shapes of Stable Diffusion 1.5 and of the embedded model, and linear layers of FLUX.1 whose
//! weights stay as they are stored: `cargo bench --profile dev --bench kernels`.
//!
//! Criterion prints time and throughput in elements. For convolutions, products and attention, an element is one
//! floating-point operation (a multiply-add counts as two); for other kernels, one written value. `-- conv` runs the
//! benchmarks whose names contain `conv`.

use candle_core::{Device, Result, Tensor};
use criterion::{BenchmarkGroup, Criterion, Throughput, measurement::WallTime};
use latentd::kernels::{
    Kernels,
    arena::Allocator,
    attention::Mask,
    conv2d::{Conv2d, Geometry},
    finish::Epilogue,
    format::Format,
    geglu::{Gate, Geglu},
    group_norm::Then,
    matrix::Matrix,
    narrow::Narrow,
    winograd::{TileSize, Use},
};

/// The allocator of the server.
#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// The kernels of the server.
const KERNELS: Kernels = Kernels::Packed(Use::Auto);

fn main() {
    let mut criterion = Criterion::default().configure_from_args().sample_size(10);
    for of in [Shapes::sd15(), Shapes::embedded()] {
        let mut group = criterion.benchmark_group(of.model);
        convolutions(&mut group, &of);
        products(&mut group, &of);
        attentions(&mut group, &of);
        the_rest(&mut group, &of);
        group.finish();
    }
    stored_weights(&mut criterion);
    criterion.final_summary();
}

/// Shapes of the layers of a model.
struct Shapes {
    model: &'static str,
    /// (side of the map, input channels, output channels).
    convolutions: &'static [(usize, usize, usize)],
    /// (side of the map, channels, heads).
    transformers: &'static [(usize, usize, usize)],
    /// (tokens of a prompt, width of a token's embedding).
    context: (usize, usize),
}

impl Shapes {
    fn sd15() -> Self {
        Self {
            model: "sd15",
            convolutions: &[(64, 320, 320), (64, 960, 320), (32, 640, 640), (16, 1280, 1280), (8, 1280, 1280)],
            transformers: &[(64, 320, 8), (32, 640, 8), (16, 1280, 8)],
            context: (77, 768),
        }
    }

    fn embedded() -> Self {
        Self {
            model: "embedded",
            convolutions: &[(8, 64, 64), (8, 128, 64), (4, 128, 128)],
            transformers: &[(8, 64, 2), (4, 128, 4)],
            context: (77, 128),
        }
    }
}

/// Rows of the batch.
const ROWS: usize = 2;

/// Products with a weight of FLUX.1 in float32 and in formats of files, for as many tokens as a picture of 512 × 512
/// and its prompt have, and for one line, such as the vector that modulates a block.
fn stored_weights(criterion: &mut Criterion) {
    const FORMATS: [Format; 7] =
        [Format::Bf16, Format::F16, Format::F8E4m3, Format::Q8_0, Format::Q6K, Format::Q5_0, Format::Q4K];
    let (k, n) = (3072, 3072);
    let mut group = criterion.benchmark_group("flux");
    for lines in [1, 64, 1024] {
        let x = numbers(&[1, lines, k]);
        let work = 2 * lines * k * n;
        let wide = matrix(k, n);
        measure(&mut group, &format!("linear {lines} F32"), work, || wide.times(&x));
        for format in FORMATS {
            let length = format.bytes(k).expect("whole blocks") * n;
            // Bytes from which every format makes small numbers.
            let stored: Vec<u8> = (0..length).map(|i| (i * 37 % 251) as u8 & 0x2f).collect();
            let narrow = Narrow::pack(format, 1.0, &stored, (k, n), |row| row).expect("the shapes fit");
            let narrow = Matrix::narrow(narrow, None).expect("the shapes fit");
            measure(&mut group, &format!("linear {lines} {format:?}"), work, || narrow.times(&x));
        }
    }
    group.finish();
}

type Group<'a> = BenchmarkGroup<'a, WallTime>;

fn convolutions(group: &mut Group<'_>, of: &Shapes) {
    for &(side, inputs, outputs) in of.convolutions {
        let x = numbers(&[ROWS, side, side, inputs]);
        let mut case = |name: &str, kernel: usize, stride: usize, winograd: Use| {
            let geometry = Geometry::square(kernel, stride, kernel / 2);
            let (weight, bias) = (numbers(&[kernel * kernel * inputs, outputs]), numbers(&[outputs]));
            let conv = Conv2d::new(&weight, &bias, geometry, Kernels::Packed(winograd)).expect("the shapes fit");
            let places = (side / stride) * (side / stride);
            let work = 2 * ROWS * places * kernel * kernel * inputs * outputs;
            measure(group, &format!("{name} {side}² {inputs}→{outputs}"), work, || conv.forward(&x));
        };
        case("conv 3×3", 3, 1, Use::Auto);
        case("conv 3×3 direct", 3, 1, Use::Off);
        case("conv 3×3 winograd 4×4", 3, 1, Use::Always(TileSize::Four));
        case("conv 3×3 half", 3, 2, Use::Off);
        case("conv 1×1", 1, 1, Use::Off);
    }
}

fn products(group: &mut Group<'_>, of: &Shapes) {
    for &(side, channels, _) in of.transformers {
        let x = numbers(&[ROWS, side * side, channels]);
        let (linear, work) = (matrix(channels, channels), 2 * ROWS * side * side * channels * channels);
        measure(group, &format!("linear {side}² {channels}"), work, || linear.times(&x));
        measure(group, &format!("linear and residual {side}² {channels}"), work, || {
            linear.times_with(&x, Epilogue::residual(&x))
        });
        let (weight, bias) = (numbers(&[channels, 8 * channels]), numbers(&[8 * channels]));
        let geglu = Geglu::new(&weight, &bias, Gate::GeluErf, KERNELS).expect("the shapes fit");
        measure(group, &format!("linear and geglu {side}² {channels}"), 8 * work, || geglu.times(&x));
    }
}

fn attentions(group: &mut Group<'_>, of: &Shapes) {
    for &(side, channels, heads) in of.transformers {
        let tokens = side * side;
        let q = numbers(&[ROWS, tokens, channels]);
        for (name, keys) in [("attention self", tokens), ("attention cross", of.context.0)] {
            let (k, v) = (numbers(&[ROWS, keys, channels]), numbers(&[ROWS, keys, channels]));
            let work = 4 * ROWS * tokens * keys * channels;
            let name = format!("{name} {side}² {channels} in {heads} heads");
            measure(group, &name, work, || KERNELS.attention(&q, &k, &v, heads, Mask::None));
        }
    }
    let (tokens, width) = of.context;
    let q = numbers(&[ROWS, tokens, width]);
    let work = 4 * ROWS * tokens * tokens * width;
    measure(group, "attention of the text encoder", work, || KERNELS.attention(&q, &q, &q, width / 64, Mask::Causal));
}

fn the_rest(group: &mut Group<'_>, of: &Shapes) {
    for &(side, channels, _) in of.transformers {
        let map = numbers(&[ROWS, side, side, channels]);
        let (weight, bias) = (numbers(&[channels]), numbers(&[channels]));
        let places = ROWS * side * side;
        let at = format!("{side}² {channels}");
        measure(group, &format!("group norm, silu {at}"), places * channels, || {
            KERNELS.group_norm(&map, 16, &weight, &bias, 1e-5, Then::Silu)
        });
        measure(group, &format!("layer norm {at}"), places * channels, || {
            KERNELS.layer_norm(&map, &weight, &bias, 1e-5)
        });
        measure(group, &format!("silu {at}"), places * channels, || KERNELS.silu(&map));
        measure(group, &format!("upsample {at}"), 4 * places * channels, || KERNELS.nearest(&map, 2 * side, 2 * side));
    }
}

/// Times one kernel. `work` is the number of elements per call.
fn measure(group: &mut Group<'_>, name: &str, work: usize, run: impl Fn() -> Result<Tensor>) {
    group.throughput(Throughput::Elements(work as u64));
    group.bench_function(name, |bencher| bencher.iter(|| run().expect("the shapes fit")));
}

fn matrix(inputs: usize, outputs: usize) -> Matrix {
    Matrix::new(&numbers(&[inputs, outputs]), Some(&numbers(&[outputs])), KERNELS).expect("the shapes fit")
}

/// Values from -1 to about 1. None is zero, because some processors compute faster with zeros.
fn numbers(shape: &[usize]) -> Tensor {
    let count: usize = shape.iter().product();
    let values: Vec<f32> = (0..count).map(|i| ((i % 9973) as f32 * 1.7 + 0.3).sin() + 1e-3).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).expect("as many numbers as the shape has")
}
