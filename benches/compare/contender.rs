//! The process that runs latentd's networks for `benches/compare/compare.py`.
//!
//! Reads one JSON request per line, `{"do": "load", …}`, `{"do": "run", …}` or `{"do": "peak"}`, and writes one JSON
//! answer per line. Ends at the end of standard input.

use std::{
    collections::HashMap,
    hint::black_box,
    io::{BufRead, IsTerminal, Write},
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result, bail};
use candle_core::{DType, Device, Tensor, safetensors};
use latentd::{
    kernels::{Kernels, arena::Allocator, matrix::Matrix},
    models::{
        AutoencoderKl, FluxTransformer2DModel, T5EncoderModel, UNet2DConditionModel,
        adapters::RowAdapters,
        autoencoder_kl::{AutoencoderKlConfig, current_name},
        control_net::Residuals,
        flux_transformer2d::{FluxConditions, FluxTransformer2DConfig},
        pause::ToEnd,
        t5_encoder::T5Config,
        unet2d_condition::{Conditions, UNet2DConditionConfig},
    },
    weights::{ModelFolder, Weights},
};
use pulp::{Simd, WithSimd};
use rayon::ThreadPool;
use serde::Deserialize;
use serde_json::{Value, json};

/// The allocator of the server.
#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() -> Result<()> {
    if std::io::stdin().is_terminal() {
        eprintln!("`make compare` talks to this program; see benches/compare/README.md");
        return Ok(());
    }
    let threads = std::env::var("COMPARE_THREADS").map_or(Ok(0), |threads| threads.parse())?; // 0: one per core.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
    let mut contender = Contender { pool, loaded: None };
    for line in std::io::stdin().lock().lines() {
        let answer = serde_json::from_str(&line?).map_err(Into::into).and_then(|request| contender.answer(request));
        let answer = answer.unwrap_or_else(|error| json!({ "error": format!("{error:#}") }));
        let mut stdout = std::io::stdout().lock();
        writeln!(stdout, "{answer}")?;
        stdout.flush()?;
    }
    Ok(())
}

#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "lowercase")]
enum Request {
    /// `stored`: whether matrices stay in memory in the precision in which they are stored.
    Load {
        kind: Kind,
        folder: PathBuf,
        inputs: PathBuf,
        stored: bool,
    },
    Run {
        calls: usize,
        output: Option<PathBuf>,
    },
    Peak,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Unet,
    Vae,
    Flux,
    T5,
}

struct Contender {
    pool: ThreadPool,
    loaded: Option<(Network, Inputs)>,
}

enum Network {
    Unet(Box<UNet2DConditionModel>),
    Vae(Box<AutoencoderKl>),
    Flux(Box<FluxTransformer2DModel>),
    T5(Box<T5EncoderModel>),
}

/// The patches of the FLUX case, as in networks.py.
const GRID: [usize; 2] = [16, 32];

/// The tensors of the file of inputs, by name, and those of them that the networks take as numbers.
struct Inputs {
    tensors: HashMap<String, Tensor>,
    t: Vec<f32>,
    guidance: Vec<f32>,
    ids: Vec<Vec<u32>>,
}

impl Contender {
    fn answer(&mut self, request: Request) -> Result<Value> {
        let start = Instant::now();
        match request {
            Request::Load { kind, folder, inputs, stored } => {
                self.loaded = None;
                let network = self.pool.install(|| Network::load(kind, &folder, stored))?;
                self.loaded = Some((network, Inputs::load(&inputs)?));
                Ok(json!({ "seconds": start.elapsed().as_secs_f64() }))
            }
            Request::Run { calls, output } => {
                let (network, inputs) = self.loaded.as_ref().context("nothing is loaded")?;
                let (mut seconds, mut made) = (Vec::new(), None);
                for _ in 0..calls {
                    drop(made.take());
                    let start = Instant::now();
                    made = Some(self.pool.install(|| network.run(inputs))?);
                    seconds.push(start.elapsed().as_secs_f64());
                }
                if let (Some(path), Some(made)) = (output, made) {
                    safetensors::save(&HashMap::from([("output", made)]), path)?;
                }
                Ok(json!({ "seconds": seconds }))
            }
            Request::Peak => Ok(json!({ "fma": self.fma_gflops(), "gemm": self.gemm_gflops()? })),
        }
    }

    /// GFLOP/s of fused multiply-adds in registers: the best of 20 measurements.
    fn fma_gflops(&self) -> f64 {
        let rounds = 1_000_000;
        let best = (0..20).map(|_| {
            let start = Instant::now();
            let flops: usize = self.pool.broadcast(|_| multiply_adds(rounds)).iter().sum();
            flops as f64 / start.elapsed().as_secs_f64()
        });
        best.fold(0.0, f64::max) / 1e9
    }

    /// GFLOP/s of a product of two 2048 × 2048 matrices, one of them packed beforehand: the best of 5 measurements.
    fn gemm_gflops(&self) -> Result<f64> {
        let side = 2048;
        let random = || Tensor::randn(0f32, 1.0, (side, side), &Device::Cpu);
        let (left, right) = (random()?, Matrix::new(&random()?, None, Kernels::default())?);
        let mut best = f64::INFINITY;
        for _ in 0..5 {
            let start = Instant::now();
            black_box(self.pool.install(|| right.times(&left))?);
            best = best.min(start.elapsed().as_secs_f64());
        }
        Ok(2.0 * (side as f64).powi(3) / best / 1e9)
    }
}

impl Network {
    fn load(kind: Kind, folder: &Path, stored: bool) -> Result<Self> {
        let folder = ModelFolder::open(folder)?;
        let keys = |part: &str| -> Result<_> {
            let path = format!("{part}/config.json");
            let keys = folder.json(&path)?;
            Ok((path, keys))
        };
        let as_it_is = |name: &str, shape: &[usize]| (name.to_owned(), shape.to_vec());
        let (host, stem) = (latentd::device::Device::host(), "diffusion_pytorch_model");
        let kept = |weights: Weights| if stored { weights.with_stored_matrices() } else { weights };
        let (network, weights) = match kind {
            Kind::Unet => {
                let (path, keys) = keys("unet")?;
                let config = UNet2DConditionConfig::read(&path, &keys)?;
                let weights = Weights::open(&folder, "unet", stem, &host, as_it_is)?;
                (Self::Unet(Box::new(UNet2DConditionModel::new(&config, &weights))), weights)
            }
            Kind::Vae => {
                let (path, keys) = keys("vae")?;
                let config = AutoencoderKlConfig::read(&path, &keys)?;
                let weights = Weights::open(&folder, "vae", stem, &host, current_name)?;
                (Self::Vae(Box::new(AutoencoderKl::new(&config, &weights))), weights)
            }
            Kind::Flux => {
                let (path, keys) = keys("transformer")?;
                let config = FluxTransformer2DConfig::read(&path, &keys)?;
                let weights = kept(Weights::open(&folder, "transformer", stem, &host, as_it_is)?);
                (Self::Flux(Box::new(FluxTransformer2DModel::new(&config, &weights))), weights)
            }
            Kind::T5 => {
                let (path, keys) = keys("text_encoder")?;
                let config = T5Config::read(&path, &keys)?;
                let weights = kept(Weights::open(&folder, "text_encoder", "model", &host, as_it_is)?);
                (Self::T5(Box::new(T5EncoderModel::new(&config, &weights)?)), weights)
            }
        };
        weights.finish()?;
        Ok(network)
    }

    fn run(&self, inputs: &Inputs) -> Result<Tensor> {
        match self {
            Self::Unet(unet) => {
                let conditions = Conditions::plain(&inputs.t, inputs.of("text")?);
                Ok(unet.forward(inputs.of("sample")?, &conditions, Residuals::NONE).to_end()?)
            }
            Self::Vae(vae) => Ok(vae.decode(inputs.of("sample")?).to_end()?),
            Self::Flux(flux) => {
                let conditions = FluxConditions {
                    t: &inputs.t,
                    guidance: Some(&inputs.guidance),
                    text: inputs.of("text")?,
                    pooled: inputs.of("pooled")?,
                    adapters: RowAdapters::NONE,
                };
                Ok(flux.forward(inputs.of("sample")?, GRID, conditions).to_end()?)
            }
            Self::T5(t5) => {
                let rows: Vec<&[u32]> = inputs.ids.iter().map(Vec::as_slice).collect();
                Ok(t5.forward(&rows, None).to_end()?)
            }
        }
    }
}

impl Inputs {
    fn load(path: &Path) -> Result<Self> {
        let mut tensors = safetensors::load(path, &Device::Cpu)?;
        let ids = tensors.remove("ids").map(|ids| ids.to_dtype(DType::U32)?.to_vec2()).transpose()?;
        if let Some((name, _)) = tensors.iter().find(|(_, tensor)| tensor.dtype() != DType::F32) {
            bail!("{name} is not float32");
        }
        let mut numbers =
            |name: &str| tensors.remove(name).map(|x| x.to_vec1()).transpose().map(Option::unwrap_or_default);
        let (t, guidance) = (numbers("t")?, numbers("guidance")?);
        Ok(Self { tensors, t, guidance, ids: ids.unwrap_or_default() })
    }

    fn of(&self, name: &str) -> Result<&Tensor> {
        self.tensors.get(name).with_context(|| format!("no {name}"))
    }
}

/// Computes multiply-adds in the widest registers that the library's kernels use, and returns the number of FLOPs.
fn multiply_adds(rounds: usize) -> usize {
    #[cfg(target_arch = "x86_64")]
    if let Some(avx512) = pulp::x86::V4::try_new() {
        return Simd::vectorize(avx512, MultiplyAdds { rounds });
    }
    #[cfg(target_arch = "x86_64")]
    if let Some(avx2) = pulp::x86::V3::try_new() {
        return Simd::vectorize(avx2, MultiplyAdds { rounds });
    }
    #[cfg(target_arch = "aarch64")]
    if let Some(neon) = pulp::aarch64::Neon::try_new() {
        return Simd::vectorize(neon, MultiplyAdds { rounds });
    }
    MultiplyAdds { rounds }.with_simd(pulp::Scalar::new())
}

struct MultiplyAdds {
    rounds: usize,
}

impl WithSimd for MultiplyAdds {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> usize {
        // Twelve independent sums hide the latency of a multiply-add and fit into the registers.
        let mut sums = [simd.splat_f32s(black_box(0.5)); 12];
        let (factor, summand) = (simd.splat_f32s(black_box(0.999)), simd.splat_f32s(black_box(0.001)));
        for _ in 0..self.rounds {
            for sum in &mut sums {
                *sum = simd.mul_add_f32s(*sum, factor, summand);
            }
        }
        for sum in &sums {
            black_box(simd.reduce_sum_f32s(*sum));
        }
        2 * self.rounds * sums.len() * S::F32_LANES
    }
}
