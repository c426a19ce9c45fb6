//! The process that runs latentd's networks for `benches/compare/compare.py` and `benches/gpu/steps.py`.
//!
//! Reads one JSON request per line, `{"do": "load", …}`, `{"do": "run", …}`, `{"do": "rows"}` or `{"do": "peak"}`, and
//! writes one JSON answer per line. Ends at the end of standard input. It computes on the device that the variable
//! `COMPARE_DEVICE` names: `cpu` or, in a build with the feature, such as `cuda:0`. `COMPARE_MATRIX_UNIT=auto` is the
//! setting `kernels.matrix_unit`.

use std::{
    collections::HashMap,
    hint::black_box,
    io::{BufRead, IsTerminal, Write},
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result, bail};
use candle_core::{DType, Tensor, safetensors};
use latentd::{
    device::{Device, GpuKind, HOST, Precision},
    kernels::{self, Kernels, Rows, arena::Allocator, matrix::Matrix},
    models::{
        AutoencoderKl, FluxTransformer2DModel, T5EncoderModel, UNet2DConditionModel, UNetSpatioTemporalModel,
        adapters::RowAdapters,
        autoencoder_kl::{AutoencoderKlConfig, current_name},
        control_net::Residuals,
        flux_transformer2d::{FluxConditions, FluxTransformer2DConfig},
        pause::ToEnd,
        t5_encoder::T5Config,
        unet_spatio_temporal::{ClipConditions, UNetSpatioTemporalConfig},
        unet2d_condition::{Added, Conditions, UNet2DConditionConfig},
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
    if std::env::var("COMPARE_MATRIX_UNIT").is_ok_and(|unit| unit == "auto") && !kernels::bf16::turn_on() {
        bail!("this processor has no matrix unit");
    }
    let threads = std::env::var("COMPARE_THREADS").map_or(Ok(0), |threads| threads.parse())?; // 0: one per core.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
    let mut contender = Contender { pool, device: device()?, loaded: None };
    for line in std::io::stdin().lock().lines() {
        let answer = serde_json::from_str(&line?).map_err(Into::into).and_then(|request| contender.answer(request));
        let answer = answer.unwrap_or_else(|error| json!({ "error": format!("{error:#}") }));
        let mut stdout = std::io::stdout().lock();
        writeln!(stdout, "{answer}")?;
        stdout.flush()?;
    }
    Ok(())
}

fn device() -> Result<Device> {
    match std::env::var("COMPARE_DEVICE").as_deref() {
        Err(_) | Ok("cpu") => Ok(Device::host()),
        Ok(name) => {
            let index = name.strip_prefix("cuda:").context("COMPARE_DEVICE must be cpu or such as cuda:0")?;
            Ok(Device::gpu(GpuKind::Cuda, index.parse()?)?)
        }
    }
}

#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "lowercase")]
enum Request {
    Load {
        kind: Kind,
        folder: PathBuf,
        inputs: PathBuf,
        #[serde(default)]
        precision: Numbers,
        /// The rows that the reference kernels multiply together. Without this value, the device computes with its
        /// usual kernels.
        #[serde(default)]
        rows: Option<RowsOf>,
        /// Whether matrices stay in memory in the precision in which they are stored.
        #[serde(default)]
        stored: bool,
    },
    Run {
        calls: usize,
        output: Option<PathBuf>,
    },
    /// Compares the results for each row of the inputs alone with the results for all rows.
    Rows,
    Peak,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Numbers {
    #[default]
    F32,
    F16,
    Bf16,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RowsOf {
    Apart,
    Together,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Unet,
    Vae,
    Flux,
    T5,
    Svd,
}

struct Contender {
    pool: ThreadPool,
    device: Device,
    loaded: Option<(Network, Inputs)>,
}

enum Network {
    Unet(Box<UNet2DConditionModel>),
    Vae(Box<AutoencoderKl>),
    Flux(Box<FluxTransformer2DModel>),
    T5(Box<T5EncoderModel>),
    Svd(Box<UNetSpatioTemporalModel>),
}

/// The patches of the FLUX case, as in networks.py.
const GRID: [usize; 2] = [16, 32];

/// The tensors of the file of inputs, by name, and those of them that the networks take as numbers.
struct Inputs {
    /// The sample is on the host, from where each call takes it, as the engine does; the others are on the device.
    tensors: HashMap<String, Tensor>,
    t: Vec<f32>,
    guidance: Vec<f32>,
    ids: Vec<Vec<u32>>,
    added: Option<Added>,
    device: candle_core::Device,
}

impl Contender {
    fn answer(&mut self, request: Request) -> Result<Value> {
        let start = Instant::now();
        match request {
            Request::Load { kind, folder, inputs, precision, rows, stored } => {
                self.loaded = None;
                let device = match rows {
                    None => self.device.clone(),
                    Some(RowsOf::Apart) => self.device.clone().with_kernels(Kernels::Reference(Rows::Apart)),
                    Some(RowsOf::Together) => self.device.clone().with_kernels(Kernels::Reference(Rows::Together)),
                };
                let precision = match precision {
                    Numbers::F32 => Precision::F32,
                    Numbers::F16 => Precision::F16,
                    Numbers::Bf16 => Precision::Bf16,
                };
                let device = device.with_precision(Some(precision))?;
                let network = self.pool.install(|| Network::load(kind, &folder, &device, stored))?;
                self.loaded = Some((network, Inputs::load(&inputs, &device)?));
                self.device.release_memory();
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
            Request::Rows => {
                let (network, inputs) = self.loaded.as_ref().context("nothing is loaded")?;
                self.pool.install(|| compare_rows(network, inputs))
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
        let random = || Tensor::randn(0f32, 1.0, (side, side), &HOST);
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

/// The number of rows whose bits alone differ from those in the batch, and the largest difference, divided by the
/// largest number of the batch.
fn compare_rows(network: &Network, inputs: &Inputs) -> Result<Value> {
    let numbers = |x: &Tensor| -> Result<Vec<f32>> { Ok(x.flatten_all()?.to_vec1()?) };
    let (together, rows) = (network.run(inputs)?, inputs.of("sample")?.dim(0)?);
    let largest = numbers(&together)?.into_iter().fold(0f32, |largest, number| largest.max(number.abs()));
    let (mut different, mut most) = (0, 0f32);
    for row in 0..rows {
        let alone = numbers(&network.run(&inputs.row(row)?)?)?;
        let within = numbers(&together.narrow(0, row, 1)?)?;
        let pairs = || alone.iter().zip(&within);
        different += usize::from(pairs().any(|(a, b)| a.to_bits() != b.to_bits()));
        most = pairs().fold(most, |most, (a, b)| most.max((a - b).abs()));
    }
    Ok(json!({ "rows": rows, "different": different, "most": most / largest }))
}

impl Network {
    fn load(kind: Kind, folder: &Path, device: &Device, stored: bool) -> Result<Self> {
        let folder = ModelFolder::open(folder)?;
        let keys = |part: &str| -> Result<_> {
            let path = format!("{part}/config.json");
            let keys = folder.json(&path)?;
            Ok((path, keys))
        };
        let as_it_is = |name: &str, shape: &[usize]| (name.to_owned(), shape.to_vec());
        let stem = "diffusion_pytorch_model";
        let kept = |weights: Weights| if stored { weights.with_stored_matrices() } else { weights };
        let (network, weights) = match kind {
            Kind::Unet => {
                let (path, keys) = keys("unet")?;
                let config = UNet2DConditionConfig::read(&path, &keys)?;
                let weights = Weights::open(&folder, "unet", stem, device, as_it_is)?;
                let used = weights.in_precision(device.precision());
                (Self::Unet(Box::new(UNet2DConditionModel::new(&config, &used))), weights)
            }
            Kind::Vae => {
                let (path, keys) = keys("vae")?;
                let config = AutoencoderKlConfig::read(&path, &keys)?;
                let weights = Weights::open(&folder, "vae", stem, device, current_name)?;
                let used = weights.in_precision(device.precision());
                (Self::Vae(Box::new(AutoencoderKl::new(&config, &used))), weights)
            }
            Kind::Flux => {
                let (path, keys) = keys("transformer")?;
                let config = FluxTransformer2DConfig::read(&path, &keys)?;
                let weights = kept(Weights::open(&folder, "transformer", stem, device, as_it_is)?);
                (Self::Flux(Box::new(FluxTransformer2DModel::new(&config, &weights))), weights)
            }
            Kind::T5 => {
                let (path, keys) = keys("text_encoder")?;
                let config = T5Config::read(&path, &keys)?;
                let weights = kept(Weights::open(&folder, "text_encoder", "model", device, as_it_is)?);
                (Self::T5(Box::new(T5EncoderModel::new(&config, &weights)?)), weights)
            }
            Kind::Svd => {
                let (path, keys) = keys("unet")?;
                let config = UNetSpatioTemporalConfig::read(&path, &keys)?;
                let weights = Weights::open(&folder, "unet", stem, device, as_it_is)?;
                (Self::Svd(Box::new(UNetSpatioTemporalModel::new(&config, &weights))), weights)
            }
        };
        weights.finish()?;
        Ok(network)
    }

    /// The result in float32 on the host.
    fn run(&self, inputs: &Inputs) -> Result<Tensor> {
        let made = match self {
            Self::Unet(unet) => {
                let added = inputs.added.as_ref();
                let conditions = Conditions { added, ..Conditions::plain(&inputs.t, inputs.of("text")?) };
                unet.forward(&inputs.sample()?, &conditions, Residuals::NONE).to_end()?
            }
            Self::Vae(vae) => vae.decode(&inputs.sample()?).to_end()?,
            Self::Flux(flux) => {
                let conditions = FluxConditions {
                    t: &inputs.t,
                    guidance: Some(&inputs.guidance),
                    text: inputs.of("text")?,
                    pooled: inputs.of("pooled")?,
                    adapters: RowAdapters::NONE,
                };
                flux.forward(&inputs.sample()?, GRID, conditions).to_end()?
            }
            Self::T5(t5) => {
                let rows: Vec<&[u32]> = inputs.ids.iter().map(Vec::as_slice).collect();
                t5.forward(&rows, None).to_end()?
            }
            Self::Svd(unet) => {
                let sample = inputs.sample()?;
                let time_ids: Vec<f32> = inputs.of("motion")?.flatten_all()?.to_vec1()?;
                let vectors = inputs.of("vector")?.squeeze(1)?;
                let (t, frames) = (&inputs.t, sample.dim(0)?);
                let conditions = ClipConditions { t, time_ids: &time_ids, vectors: &vectors, frames };
                unet.forward(&sample, conditions).to_end()?
            }
        };
        Ok(made.to_dtype(DType::F32)?.to_device(&HOST)?)
    }
}

impl Inputs {
    fn load(path: &Path, device: &Device) -> Result<Self> {
        let mut tensors = safetensors::load(path, &HOST)?;
        let device = device.candle().clone();
        let ids = tensors.remove("ids").map(|ids| ids.to_dtype(DType::U32)?.to_vec2()).transpose()?;
        if let Some((name, _)) = tensors.iter().find(|(_, tensor)| tensor.dtype() != DType::F32) {
            bail!("{name} is not float32");
        }
        let mut numbers =
            |name: &str| tensors.remove(name).map(|x| x.to_vec1()).transpose().map(Option::unwrap_or_default);
        let (t, guidance) = (numbers("t")?, numbers("guidance")?);
        let added = match (tensors.remove("text_embeds"), tensors.remove("time_ids")) {
            (Some(text_embeds), Some(ids)) => Some(Added {
                text_embeds: Some(text_embeds.to_device(&device)?),
                time_ids: ids.flatten_all()?.to_vec1()?,
            }),
            _ => None,
        };
        for (_, tensor) in tensors.iter_mut().filter(|(name, _)| *name != "sample") {
            *tensor = tensor.to_device(&device)?;
        }
        Ok(Self { tensors, t, guidance, ids: ids.unwrap_or_default(), added, device })
    }

    fn of(&self, name: &str) -> Result<&Tensor> {
        self.tensors.get(name).with_context(|| format!("no {name}"))
    }

    /// The sample, on the device.
    fn sample(&self) -> Result<Tensor> {
        Ok(self.of("sample")?.to_device(&self.device)?)
    }

    /// One row of the inputs.
    fn row(&self, row: usize) -> Result<Self> {
        let of = |x: &Tensor| x.narrow(0, row, 1);
        let rows = self.of("sample")?.dim(0)?;
        let added = |added: &Added| -> Result<Added> {
            let ids = added.time_ids.chunks(added.time_ids.len() / rows).nth(row).context("the row is there")?;
            let text_embeds = added.text_embeds.as_ref().map(of).transpose()?;
            Ok(Added { text_embeds, time_ids: ids.to_vec() })
        };
        let number = |numbers: &[f32]| numbers.get(row).copied().into_iter().collect();
        let tensors = self.tensors.iter().map(|(name, tensor)| Ok((name.clone(), of(tensor)?)));
        Ok(Self {
            tensors: tensors.collect::<Result<_>>()?,
            t: number(&self.t),
            guidance: number(&self.guidance),
            ids: self.ids.get(row).cloned().into_iter().collect(),
            added: self.added.as_ref().map(added).transpose()?,
            device: self.device.clone(),
        })
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
