//! Running one batch on the device.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::ask::{Answer, Network, Row};
use crate::{
    models::text_encoders::Tokens,
    pipelines::{Activation, DenoiseRow, Model, NetworkError},
};

/// Runs the rows, all of this network's kind, as one network call. Answers come in order, one for each row.
///
/// # Errors
/// The network failed, panicked or answered too few rows; which row was to blame is not known.
pub(super) fn execute(model: &Model, network: &Network, rows: &[&Row]) -> Result<Vec<Answer>, NetworkError> {
    let failed = |detail: String| NetworkError { network: network.as_str(), detail };
    // The networks hold nothing that a panic could leave half written: weights are read-only, activations are dropped.
    let answers = catch_unwind(AssertUnwindSafe(|| call(model, network, rows)))
        .unwrap_or_else(|panic| Err(failed(format!("panicked: {}", message(panic.as_ref())))))?;
    if answers.len() != rows.len() {
        return Err(failed(format!("answered {} rows of {}", answers.len(), rows.len())));
    }
    Ok(answers)
}

fn call(model: &Model, network: &Network, rows: &[&Row]) -> Result<Vec<Answer>, NetworkError> {
    match network {
        Network::TextEncoder { clip_skip } => {
            let prompts: Vec<Tokens> = rows.iter().filter_map(|row| row.prompt()).collect();
            let embeddings = model.networks.encode_text(&prompts, *clip_skip)?;
            Ok(embeddings.into_iter().map(Answer::Text).collect())
        }
        Network::Denoiser { shape, depth, .. } => {
            let samples: Vec<_> = rows.iter().filter_map(|row| row.denoise()).collect();
            let denoised = model.networks.denoise(*shape, *depth, &samples)?;
            Ok(denoised.into_iter().map(Answer::Denoised).collect())
        }
        Network::Encoder { shape, .. } => {
            let pixels: Vec<_> = rows.iter().filter_map(|row| row.pixels()).collect();
            let encoded = model.networks.encode(*shape, &pixels)?;
            Ok(encoded.into_iter().map(Answer::Encoded).collect())
        }
        Network::Decoder { shape, stage, .. } => {
            let activations: Vec<_> = rows.iter().filter_map(|row| row.activation()).collect();
            let activations = model.networks.decode(*shape, *stage, &activations)?;
            Ok(activations.into_iter().map(Answer::Decoded).collect())
        }
        Network::TinyDecoder { shape } => {
            let latents: Vec<_> = rows.iter().filter_map(|row| row.latents()).collect();
            let pictures = model.networks.decode_tiny(*shape, &latents)?;
            Ok(pictures.into_iter().map(Answer::Picture).collect())
        }
    }
}

impl Row {
    fn prompt(&self) -> Option<Tokens> {
        if let Row::Text(prompt) = self { Some(prompt.clone()) } else { None }
    }

    fn denoise(&self) -> Option<DenoiseRow> {
        if let Row::Denoise(row) = self { Some(row.clone()) } else { None }
    }

    fn pixels(&self) -> Option<Vec<f32>> {
        if let Row::Encode(pixels) = self { Some(pixels.clone()) } else { None }
    }

    fn latents(&self) -> Option<Vec<f32>> {
        if let Row::DecodeTiny(latents) = self { Some(latents.clone()) } else { None }
    }

    fn activation(&self) -> Option<Activation> {
        if let Row::Decode(activation) = self { Some(activation.clone()) } else { None }
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

pub(super) fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a message".to_owned())
}
