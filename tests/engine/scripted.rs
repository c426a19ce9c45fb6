//! Scripted networks: they have the faults and pauses that a test sets.

use std::sync::{Mutex, mpsc};

use candle_core::{DType, Device, Tensor};
use latentd::{
    diffusion::Noise,
    families::stable_diffusion::StableDiffusion,
    models::{
        autoencoder_kl::Tiles,
        demand::Demand,
        latent_diffusion::{Input, Part, Spec},
        text_encoders::{LearnedTokens, Tokens},
    },
    pipelines::{
        Activation, DenoiseRow, Denoised, Depth, Frame, LatentDiffusion, LatentRgb, Model, NetworkError, Networks,
        Posterior, TextEmbedding,
    },
};

/// The fault of a scripted network.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    Error,
    Panic,
    NotANumber,
    TooFewRows,
    /// A stack overflow in the tokenizer, for every seed.
    StackOverflow,
}

/// Networks that predict zeros, with a fault if a batch has the noise of seed 13. They decode in [`STAGES`] stages.
pub struct Scripted {
    fault: Option<Fault>,
    unlucky: f32,
    calls: Option<Mutex<Calls>>,
}

/// Reports each call when it begins. A call ends when the test sends to `go_on`.
struct Calls {
    begun: mpsc::Sender<Call>,
    go_on: mpsc::Receiver<()>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Denoise { side: usize },
    Decode { side: usize, stage: usize, rows: usize },
}

pub const STAGES: usize = 5;

impl Scripted {
    pub fn model(fault: Fault) -> Model {
        Scripted::of(Some(fault), None)
    }

    /// A model without faults, whose calls of the denoiser and of the decoder wait for `go_on`.
    pub fn watched() -> (Model, mpsc::Receiver<Call>, mpsc::Sender<()>) {
        let ((begun, calls), (next, go_on)) = (mpsc::channel(), mpsc::channel());
        (Scripted::of(None, Some(Mutex::new(Calls { begun, go_on }))), calls, next)
    }

    fn of(fault: Option<Fault>, calls: Option<Mutex<Calls>>) -> Model {
        let unlucky = Noise::per_image(&[13]).draw([1, 4, 8, 8]).data()[0];
        let latent_rgb = Some(LatentRgb { weight: vec![[0.1; 3]; 4], bias: [0.0; 3] });
        let networks = Box::new(LatentDiffusion { networks: Box::new(Scripted { fault, unlucky, calls }), latent_rgb });
        let family = StableDiffusion::NAME;
        Model {
            name: "scripted".to_owned(),
            key: "scripted".into(),
            family,
            device: latentd::device::Device::host(),
            networks,
        }
    }

    fn begin(&self, call: Call) {
        if let Some(calls) = &self.calls {
            let calls = calls.lock().unwrap();
            // If the test has dropped its ends of the channels, calls do not wait.
            if calls.begun.send(call).is_ok() {
                let _ = calls.go_on.recv();
            }
        }
    }
}

/// Recurses until the stack overflows.
fn deeper(depth: u64) -> u64 {
    let frame = std::hint::black_box([depth; 64]);
    if depth == u64::MAX { 0 } else { deeper(depth + 1) + std::hint::black_box(frame)[7] }
}

#[async_trait::async_trait]
impl Networks for Scripted {
    fn spec(&self) -> Spec {
        Spec {
            latent_channels: 4,
            vae_scale_factor: 8,
            sample_size: (8, 8),
            context_length: 2,
            context_width: 2,
            text_layers: 1,
            size_multiple: 8,
            tiny_decoder: false,
            input: Input::Latents,
            ..Spec::default()
        }
    }

    fn tokenize(&self, _prompts: &[&str], _: Option<u32>, _learned: &LearnedTokens) -> Tokens {
        if let Some(Fault::StackOverflow) = self.fault {
            deeper(0);
        }
        Tokens { ids: vec![vec![0, 1]], ..Tokens::default() }
    }

    async fn encode_text(&self, prompts: &[Tokens], _clip_skip: u32) -> Result<Vec<TextEmbedding>, NetworkError> {
        let hidden = || Tensor::zeros((2, 2), DType::F32, &Device::Cpu).unwrap();
        Ok(prompts.iter().map(|_| TextEmbedding { hidden: hidden(), pooled: None }).collect())
    }

    async fn denoise(
        &self,
        [_, side, _]: [usize; 3],
        _depth: Depth,
        rows: &[DenoiseRow],
    ) -> Result<Vec<Denoised>, NetworkError> {
        self.begin(Call::Denoise { side });
        let zeros = |row: &DenoiseRow| Denoised { prediction: vec![0.0; row.sample.len()], features: None };
        let mut answers: Vec<Denoised> = rows.iter().map(zeros).collect();
        let unlucky = rows.iter().position(|row| row.sample[0] == self.unlucky);
        if let (Some(row), Some(fault)) = (unlucky, self.fault) {
            match fault {
                Fault::Error => return Err(NetworkError::new("unet", "scripted")),
                Fault::Panic => panic!("scripted"),
                Fault::NotANumber => answers[row].prediction[5] = f32::NAN,
                Fault::TooFewRows => answers.truncate(rows.len() - 1),
                Fault::StackOverflow => {}
            }
        }
        Ok(answers)
    }

    async fn encode(&self, _shape: [usize; 2], _rows: &[Vec<f32>]) -> Result<Vec<Posterior>, NetworkError> {
        Err(NetworkError::new("vae_encoder", "there is none"))
    }

    /// The unit of work is one latent pixel of one row of the denoiser.
    fn demand(&self, part: Part) -> Demand {
        let work = match part {
            Part::Text { .. } => 1.0,
            Part::Denoise { size: [h, w], .. } => (h * w) as f64,
            Part::Encode { size: [h, w] } | Part::Decode { size: [h, w] } | Part::DecodeTiny { size: [h, w] } => {
                2.0 * (h * w) as f64
            }
        };
        Demand { work, bytes: 0 }
    }

    /// Latents above 64 × 64 are decoded in tiles of 64.
    fn tiles(&self, [h, w]: [usize; 2]) -> Tiles {
        if h * w > 64 * 64 { Tiles::new(h, w, 64) } else { Tiles::whole(h, w) }
    }

    fn decode_stages(&self, _shape: [usize; 3]) -> Vec<f64> {
        vec![1.0 / STAGES as f64; STAGES]
    }

    /// Counts the stages in the activation. The last stage returns black pixels.
    async fn decode(
        &self,
        [_, h, w]: [usize; 3],
        stage: usize,
        rows: &[Activation],
    ) -> Result<Vec<Activation>, NetworkError> {
        self.begin(Call::Decode { side: h, stage, rows: rows.len() });
        let next = |row: &Activation| match stage {
            0 => Tensor::zeros((1, 1), DType::F32, &Device::Cpu),
            stage if stage + 1 < STAGES => {
                assert_eq!(row.0.to_vec2::<f32>()?, [[stage as f32 - 1.0]], "all stages run in order");
                &row.0 + 1.0
            }
            _ => Tensor::full(-1f32, (1, 8 * h, 8 * w, 3), &Device::Cpu),
        };
        Ok(rows.iter().map(|row| Activation(next(row).unwrap())).collect())
    }

    async fn decode_tiny(&self, _shape: [usize; 3], _rows: &[Vec<f32>]) -> Result<Vec<Frame>, NetworkError> {
        Err(NetworkError::new("vae_tiny", "there is none"))
    }
}
