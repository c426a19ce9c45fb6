//! The configuration of a HiFi-GAN vocoder.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    models::{
        configuration::{Fixed, WIDEST, between, entries, per_block, read, within},
        conv1d::ConvTranspose1d,
        demand::{Demand, bytes},
    },
    weights::LoadError,
};

/// The keys of `vocoder/config.json` that the network supports, with transformers' names and defaults.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct HifiGanConfig {
    /// M: frequencies of a spectrogram.
    pub model_in_dim: usize,
    /// Samples per second.
    pub sampling_rate: usize,
    /// Channels before the first level. Each level halves them.
    pub upsample_initial_channel: usize,
    /// How many times longer each level makes the sequence.
    pub upsample_rates: Vec<usize>,
    pub upsample_kernel_sizes: Vec<usize>,
    pub resblock_kernel_sizes: Vec<usize>,
    pub resblock_dilation_sizes: Vec<Vec<usize>>,
    pub leaky_relu_slope: f64,
    /// Whether spectrograms are normalized by the stored mean and scale.
    pub normalize_before: bool,
}

impl Default for HifiGanConfig {
    fn default() -> Self {
        Self {
            model_in_dim: 80,
            sampling_rate: 16_000,
            upsample_initial_channel: 512,
            upsample_rates: vec![4, 4, 4, 4],
            upsample_kernel_sizes: vec![8, 8, 8, 8],
            resblock_kernel_sizes: vec![3, 7, 11],
            resblock_dilation_sizes: vec![vec![1, 3, 5]; 3],
            leaky_relu_slope: 0.1,
            normalize_before: true,
        }
    }
}

const FIXED: &[Fixed] = &[
    ("architectures", &[r#"["SpeechT5HifiGan"]"#, "null"]),
    ("model_type", &[r#""hifigan""#, r#""speecht5_hifigan""#]),
    // Used in training only.
    ("initializer_range", &[]),
    // These keys tell how the file was saved. They have no effect, because the vocoder computes in float32.
    ("dtype", &[]),
    ("torch_dtype", &[]),
    ("transformers_version", &[]),
];

/// The longest supported kernel, several times the longest of published models.
const LONGEST_KERNEL: usize = 256;

impl HifiGanConfig {
    /// Reads the keys of the file at `path`.
    ///
    /// # Errors
    /// Names a key or value that the network does not support.
    pub fn read(path: &str, keys: &Map<String, Value>) -> Result<Self, LoadError> {
        let config: Self = read(path, keys, FIXED)?;
        let bad = |key: &str, reason: String| Err(LoadError::BadKey { path: path.into(), key: key.into(), reason });
        within(path, "model_in_dim", config.model_in_dim, WIDEST)?;
        within(path, "sampling_rate", config.sampling_rate, 1 << 20)?;
        within(path, "upsample_initial_channel", config.upsample_initial_channel, WIDEST)?;
        between(path, "leaky_relu_slope", config.leaky_relu_slope, 0.0, 1.0)?;
        let levels = config.upsample_rates.len();
        entries(path, "upsample_rates", levels, 8)?;
        per_block(path, "upsample_kernel_sizes", config.upsample_kernel_sizes.len(), levels)?;
        for (rate, kernel) in config.upsample_rates.iter().zip(&config.upsample_kernel_sizes) {
            within(path, "upsample_rates", *rate, 64)?;
            within(path, "upsample_kernel_sizes", *kernel, LONGEST_KERNEL)?;
            if kernel < rate {
                return bad(
                    "upsample_kernel_sizes",
                    format!("{kernel} is less than the rate {rate} of the same level"),
                );
            }
        }
        if config.channels(levels) == 0 || !config.upsample_initial_channel.is_multiple_of(1 << levels) {
            let reason = format!("{} cannot be halved {levels} times", config.upsample_initial_channel);
            return bad("upsample_initial_channel", reason);
        }
        let blocks = config.resblock_kernel_sizes.len();
        entries(path, "resblock_kernel_sizes", blocks, 8)?;
        per_block(path, "resblock_dilation_sizes", config.resblock_dilation_sizes.len(), blocks)?;
        for (kernel, dilations) in config.resblock_kernel_sizes.iter().zip(&config.resblock_dilation_sizes) {
            within(path, "resblock_kernel_sizes", *kernel, LONGEST_KERNEL)?;
            if kernel % 2 == 0 {
                let reason = format!("must be odd, not {kernel}: an even kernel changes the length");
                return bad("resblock_kernel_sizes", reason);
            }
            entries(path, "resblock_dilation_sizes", dilations.len(), 8)?;
            dilations.iter().try_for_each(|dilation| within(path, "resblock_dilation_sizes", *dilation, 256))?;
        }
        Ok(config)
    }

    /// The channels after `level` levels.
    pub(super) fn channels(&self, level: usize) -> usize {
        self.upsample_initial_channel >> level
    }

    /// Samples for each frame of a spectrogram. A waveform may have some samples more.
    pub fn samples_per_frame(&self) -> usize {
        self.upsample_rates.iter().product()
    }

    /// The number of samples of the waveform for this many frames.
    pub fn samples(&self, frames: usize) -> usize {
        self.lengths(frames).last().unwrap_or(frames)
    }

    /// The lengths of the sequence after each level.
    fn lengths(&self, frames: usize) -> impl Iterator<Item = usize> {
        let levels = self.upsample_rates.iter().zip(&self.upsample_kernel_sizes);
        levels.scan(frames, |length, (rate, kernel)| {
            *length = ConvTranspose1d::length(*length, *kernel, *rate);
            Some(*length)
        })
    }

    /// The demand of one row of this many frames. Memory holds the input of a level's residual blocks, their sum, and
    /// at most four sequences of the block that is computed.
    pub fn demand(&self, frames: usize) -> Demand {
        let taps = |kernel: usize, dilations: &[usize]| 2 * kernel * dilations.len();
        let blocks = self.resblock_kernel_sizes.iter().zip(&self.resblock_dilation_sizes);
        let taps: usize = blocks.map(|(kernel, dilations)| taps(*kernel, dilations)).sum();
        let sequence = |work: f64, length: usize, channels: usize| Demand {
            work: work * length as f64,
            bytes: bytes(6 * length * channels),
        };
        let first = self.channels(0);
        let mut demand = sequence((7 * self.model_in_dim * first) as f64, frames, first);
        for (i, length) in self.lengths(frames).enumerate() {
            let (inputs, outputs) = (self.channels(i), self.channels(i + 1));
            let up = self.upsample_kernel_sizes[i].div_ceil(self.upsample_rates[i]) * inputs * outputs;
            demand = demand.then(sequence((up + taps * outputs * outputs) as f64, length, outputs));
        }
        let last = self.channels(self.upsample_rates.len());
        demand.then(sequence((7 * last) as f64, self.samples(frames), last))
    }
}
