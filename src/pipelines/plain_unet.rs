//! The networks of a model that draws without text: a U-Net and its decoder or classifier.

use candle_core::Tensor;

use super::{Frame, LatentRgb, Loaded, NetworkError, byte, calls::PredictRow, unit_byte};
use crate::{
    device::Device,
    models::{
        NoisyClassifier, UNet2DModel, VqModel, demand::Demand, noisy_classifier::NoisyClassifierConfig, pause::ToEnd,
        unet2d::UNet2DConfig, vq_model::VqModelConfig,
    },
};

/// A U-Net, and what is needed to turn its samples into pictures.
#[derive(Debug)]
pub struct PlainUNet {
    pub unet: UNet2DModel,
    pub config: UNet2DConfig,
    /// The format of the U-Net's samples.
    pub output: Output,
    /// The classifier that guides samples to a class, if the model has one.
    pub classifier: Option<Classifier>,
    pub device: Device,
}

/// A classifier of noisy samples.
#[derive(Debug)]
pub struct Classifier {
    pub network: NoisyClassifier,
    pub config: NoisyClassifierConfig,
}

/// The format of a U-Net's samples.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a model has one of them")]
pub enum Output {
    /// Pictures with levels in [-1, 1].
    Signed,
    /// Pictures with levels in [0, 1].
    Unit,
    /// Latents that are quantized with a codebook before decoding.
    Codes(Codes),
}

/// A codebook with its decoder, and the linear map from latents to colors, for previews.
#[derive(Debug)]
pub struct Codes {
    network: VqModel,
    config: VqModelConfig,
    rgb: LatentRgb,
}

impl PlainUNet {
    /// The shape (C, h, w) of a sample for a picture of (H, W) pixels.
    pub fn sample_shape(&self, [height, width]: [usize; 2]) -> [usize; 3] {
        let scale = match &self.output {
            Output::Signed | Output::Unit => 1,
            Output::Codes(codes) => codes.config.scale(),
        };
        [self.config.in_channels, height / scale, width / scale]
    }

    /// The work and memory of one row of a prediction for samples of (h, w).
    pub fn predict_demand(&self, size: [usize; 2]) -> Demand {
        self.config.demand(size)
    }

    /// Computes raw predictions for samples (C, h, w) with their times and classes: (C, h, w), or (2C, h, w) if the
    /// network also predicts variances.
    ///
    /// # Errors
    /// A row does not fit the network.
    pub async fn predict(&self, shape: [usize; 3], rows: &[PredictRow]) -> Result<Vec<Vec<f32>>, NetworkError> {
        let predict = async {
            let samples = batch_of(rows.iter().map(|row| row.sample.as_slice()), shape, &self.device)?;
            let times: Vec<f32> = rows.iter().map(|row| row.t).collect();
            let classes: Option<Vec<u32>> = rows.iter().map(|row| row.class).collect();
            rows_of(&self.unet.forward(&samples, &times, classes.as_deref()).await?)
        };
        predict.await.map_err(NetworkError::of("unet"))
    }

    /// The work and memory of the classifier's gradient for one row; zero if there is no classifier.
    pub fn gradient_demand(&self) -> Demand {
        self.classifier.as_ref().map_or(Demand::default(), |classifier| classifier.config.demand())
    }

    /// Computes `∇ ln p(class | sample, time)` for samples (C, h, w) with their times and classes. Gradients are (C, h,
    /// w).
    ///
    /// # Errors
    /// A row does not fit the classifier or has no class, or the model has no classifier.
    pub async fn class_gradient(&self, shape: [usize; 3], rows: &[PredictRow]) -> Result<Vec<Vec<f32>>, NetworkError> {
        let gradient = async {
            let classes: Option<Vec<u32>> = rows.iter().map(|row| row.class).collect();
            let (Some(Classifier { network, .. }), Some(classes)) = (&self.classifier, classes) else {
                candle_core::bail!("the model has no classifier, or a row no class")
            };
            let samples = batch_of(rows.iter().map(|row| row.sample.as_slice()), shape, &self.device)?;
            let times: Vec<f32> = rows.iter().map(|row| row.t).collect();
            rows_of(&network.gradient(&samples, &times, &classes).await?)
        };
        gradient.await.map_err(NetworkError::of("classifier"))
    }

    /// The work and memory of decoding one row of (h, w) latents; zero if the samples are pictures.
    pub fn decode_demand(&self, [h, w]: [usize; 2]) -> Demand {
        match &self.output {
            Output::Signed | Output::Unit => Demand::default(),
            Output::Codes(codes) => codes.config.decode_demand(h, w),
        }
    }

    /// Decodes latents (C, h, w) to pictures.
    ///
    /// # Errors
    /// The samples are pictures already, or do not fit the codebook.
    pub async fn decode(&self, shape: [usize; 3], rows: &[Vec<f32>]) -> Result<Vec<Frame>, NetworkError> {
        match &self.output {
            Output::Codes(codes) => codes.decode(shape, rows, &self.device).await,
            Output::Signed | Output::Unit => Err(NetworkError::new("vqvae", "the samples of this model are pictures")),
        }
    }
}

impl Output {
    /// Converts a sample (3, h, w) to a picture; `None` if the samples are latents.
    pub fn frame(&self, sample: &[f32], [_, h, w]: [usize; 3]) -> Option<Frame> {
        let level: fn(f32) -> u8 = match self {
            Output::Signed => byte,
            Output::Unit => unit_byte,
            Output::Codes(_) => return None,
        };
        let plane = h * w;
        let pixels = (0..3 * plane).map(|i| level(sample[i % 3 * plane + i / 3]));
        Some(Frame::picture(w, h, pixels.collect()))
    }
}

impl Codes {
    /// `preview` is the map for previews. If it is `None` or does not fit the channels, the map is fitted on decoded
    /// random latents.
    ///
    /// # Errors
    /// The decoder failed.
    pub fn new(
        network: VqModel,
        config: VqModelConfig,
        preview: Option<LatentRgb>,
        device: &Device,
    ) -> Result<Codes, NetworkError> {
        let channels = config.embedding_width();
        let mut codes = Codes { network, config, rgb: LatentRgb { weight: Vec::new(), bias: [0.0; 3] } };
        codes.rgb = match preview.filter(|map| map.weight.len() == channels) {
            Some(map) => map,
            None => LatentRgb::fit(channels, |latents| {
                let [_, c, h, w] = latents.shape();
                codes.decode([c, h, w], &[latents.data().to_vec()], device).to_end()
            })?,
        };
        Ok(codes)
    }

    async fn decode(&self, shape: [usize; 3], rows: &[Vec<f32>], device: &Device) -> Result<Vec<Frame>, NetworkError> {
        let decode = async {
            let latents = batch_of(rows.iter().map(Vec::as_slice), shape, device)?;
            let codes = self.network.quantize(&(latents / self.config.scaling_factor)?)?;
            let pictures = self.network.decode(&codes).await?.permute((0, 2, 3, 1))?.contiguous()?;
            let (_, height, width, _) = pictures.dims4()?;
            let frame = |levels: Vec<f32>| Frame::picture(width, height, levels.into_iter().map(byte).collect());
            Ok(rows_of(&pictures)?.into_iter().map(frame).collect())
        };
        decode.await.map_err(NetworkError::of("vqvae"))
    }
}

impl Loaded for PlainUNet {
    fn rgb_preview(&self, estimate: &[f32], shape: [usize; 3]) -> Option<Frame> {
        match &self.output {
            Output::Codes(codes) => Some(codes.rgb.frame(estimate, shape)),
            pixels => pixels.frame(estimate, shape),
        }
    }
}

/// Joins rows of (C, h, w) to a batch (B, C, h, w).
fn batch_of<'a>(
    rows: impl Iterator<Item = &'a [f32]>,
    [c, h, w]: [usize; 3],
    device: &Device,
) -> candle_core::Result<Tensor> {
    let data: Vec<f32> = rows.flatten().copied().collect();
    let b = data.len() / (c * h * w).max(1);
    Tensor::from_vec(data, (b, c, h, w), device.candle())
}

/// The numbers of each row of a batch.
fn rows_of(batch: &Tensor) -> candle_core::Result<Vec<Vec<f32>>> {
    batch.flatten_from(1)?.to_vec2()
}
