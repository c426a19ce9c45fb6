//! Running one batch on the device.

use std::sync::Arc;

use super::ask::{Answer, Network, Row};
use crate::{
    models::text_encoders::Tokens,
    pipelines::{Activation, DenoiseRow, Model, NetworkError},
};

/// The answers of one network call to rows that are all of this network's kind, in order, one for each row. A future that
/// pauses between layers and owns what it needs.
///
/// # Errors
/// The network failed or answered too few rows; which row was to blame is not known.
pub(super) async fn execute(model: Arc<Model>, network: Network, rows: Vec<Row>) -> Result<Vec<Answer>, NetworkError> {
    let asked = rows.len();
    let answers = call(&model, &network, rows).await?;
    if answers.len() != asked {
        let detail = format!("answered {} rows of {asked}", answers.len());
        return Err(NetworkError { network: network.as_str(), detail });
    }
    Ok(answers)
}

async fn call(model: &Model, network: &Network, rows: Vec<Row>) -> Result<Vec<Answer>, NetworkError> {
    let networks = &model.networks;
    match network {
        Network::TextEncoder { clip_skip } => {
            let prompts: Vec<Tokens> = rows.into_iter().filter_map(Row::prompt).collect();
            let embeddings = networks.encode_text(&prompts, *clip_skip).await?;
            Ok(embeddings.into_iter().map(Answer::Text).collect())
        }
        Network::Denoiser { shape, depth, .. } => {
            let samples: Vec<DenoiseRow> = rows.into_iter().filter_map(Row::denoise).collect();
            let denoised = networks.denoise(*shape, *depth, &samples).await?;
            Ok(denoised.into_iter().map(Answer::Denoised).collect())
        }
        Network::Encoder { shape } => {
            let pixels: Vec<Vec<f32>> = rows.into_iter().filter_map(Row::pixels).collect();
            let encoded = networks.encode(*shape, &pixels).await?;
            Ok(encoded.into_iter().map(Answer::Encoded).collect())
        }
        Network::Decoder { shape, stage } => {
            let activations: Vec<Activation> = rows.into_iter().filter_map(Row::activation).collect();
            let activations = networks.decode(*shape, *stage, &activations).await?;
            Ok(activations.into_iter().map(Answer::Decoded).collect())
        }
        Network::TinyDecoder { shape } => {
            let latents: Vec<Vec<f32>> = rows.into_iter().filter_map(Row::latents).collect();
            let pictures = networks.decode_tiny(*shape, &latents).await?;
            Ok(pictures.into_iter().map(Answer::Picture).collect())
        }
    }
}

impl Row {
    fn prompt(self) -> Option<Tokens> {
        if let Row::Text(prompt) = self { Some(prompt) } else { None }
    }

    fn denoise(self) -> Option<DenoiseRow> {
        if let Row::Denoise(row) = self { Some(row) } else { None }
    }

    fn pixels(self) -> Option<Vec<f32>> {
        if let Row::Encode(pixels) = self { Some(pixels) } else { None }
    }

    fn latents(self) -> Option<Vec<f32>> {
        if let Row::DecodeTiny(latents) = self { Some(latents) } else { None }
    }

    fn activation(self) -> Option<Activation> {
        if let Row::Decode(activation) = self { Some(activation) } else { None }
    }
}

impl Answer {
    /// Whether every number is one that later steps can work with.
    pub fn is_finite(&self) -> bool {
        match self {
            Answer::Denoised(denoised) => denoised.prediction.iter().all(|value| value.is_finite()),
            Answer::Encoded(posterior) => posterior.mean.iter().chain(&posterior.std).all(|value| value.is_finite()),
            Answer::Text(_) | Answer::Decoded(_) | Answer::Picture(_) => true,
        }
    }
}
