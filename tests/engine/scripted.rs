//! Networks that do what a test says.

use candle_core::{Device, Tensor};
use latentd::{
    diffusion::Noise,
    imaging::RgbImage,
    models::stable_diffusion::Spec,
    pipelines::{DenoiseRow, Denoised, Depth, LatentRgb, Model, NetworkError, Networks, TextEmbedding},
};

#[derive(Clone, Copy, Debug)]
pub enum Fault {
    Error,
    Panic,
    NotANumber,
    TooFewRows,
}

/// Predicts zeros, and misbehaves where a batch holds the noise of seed 13.
pub struct Scripted {
    fault: Fault,
    unlucky: f32,
}

impl Scripted {
    pub fn model(fault: Fault) -> Model {
        let unlucky = Noise::per_image(&[13]).draw([1, 4, 8, 8]).data()[0];
        let latent_rgb = LatentRgb { weight: vec![[0.1; 3]; 4], bias: [0.0; 3] };
        Model { name: "scripted".to_owned(), networks: Box::new(Scripted { fault, unlucky }), latent_rgb }
    }
}

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
        }
    }

    fn tokenize(&self, _prompt: &str) -> Vec<u32> {
        vec![0, 1]
    }

    fn encode_text(&self, ids: &[Vec<u32>], _clip_skip: u32) -> Result<Vec<TextEmbedding>, NetworkError> {
        let state = || Tensor::zeros((2, 2), candle_core::DType::F32, &Device::Cpu).map(TextEmbedding);
        Ok(ids.iter().map(|_| state().unwrap()).collect())
    }

    fn denoise(&self, _shape: [usize; 3], _depth: Depth, rows: &[DenoiseRow]) -> Result<Vec<Denoised>, NetworkError> {
        let zeros = |row: &DenoiseRow| Denoised { prediction: vec![0.0; row.sample.len()], features: None };
        let mut answers: Vec<Denoised> = rows.iter().map(zeros).collect();
        if let Some(row) = rows.iter().position(|row| row.sample[0] == self.unlucky) {
            match self.fault {
                Fault::Error => return Err(NetworkError { network: "unet", detail: "scripted".to_owned() }),
                Fault::Panic => panic!("scripted"),
                Fault::NotANumber => answers[row].prediction[5] = f32::NAN,
                Fault::TooFewRows => answers.truncate(rows.len() - 1),
            }
        }
        Ok(answers)
    }

    fn decode(&self, [_, h, w]: [usize; 3], rows: &[Vec<f32>]) -> Result<Vec<RgbImage>, NetworkError> {
        let (width, height) = (8 * w as u32, 8 * h as u32);
        let picture = || RgbImage { width, height, pixels: vec![7; (3 * width * height) as usize] };
        Ok(rows.iter().map(|_| picture()).collect())
    }

    fn decode_tiny(&self, _shape: [usize; 3], _rows: &[Vec<f32>]) -> Result<Vec<RgbImage>, NetworkError> {
        Err(NetworkError { network: "vae_tiny", detail: "there is none".to_owned() })
    }
}
