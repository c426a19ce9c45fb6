//! Predictions for sounds, guided by a prompt and a negative prompt.

use std::sync::Arc;

use super::{
    Compute, DenoiseRow, Depth, Networks, PipelineError, PromptRole, TextEmbedding,
    calls::{DenoiseCall, EncodeText},
};
use crate::{
    diffusion::{Denoise, Error, Latents, guide},
    generation::{Phase, Sound},
    models::{
        adapters::AdapterSet,
        text_encoders::{LearnedTokens, Tokens},
    },
};

/// A [`Denoise`] that calls the denoiser for the negative prompt and the prompt, and combines the predictions.
pub(super) struct SoundGuided<'a, C> {
    compute: &'a C,
    /// [negative prompt, prompt], or only the prompt.
    branches: Vec<TextEmbedding>,
    /// Numbers that the denoiser takes besides the text.
    numbers: Arc<[f32]>,
    scale: f64,
}

impl<'a, C: Compute> SoundGuided<'a, C> {
    /// Encodes the prompts. `numbers` are [`DenoiseRow::time_ids`] of all rows.
    pub async fn new(
        compute: &'a C,
        networks: &dyn Networks,
        sound: &Sound,
        numbers: Arc<[f32]>,
    ) -> Result<Self, PipelineError> {
        let branches = encode_prompts(compute, networks, sound).await?;
        Ok(Self { compute, branches, numbers, scale: sound.guidance_scale })
    }
}

/// The embeddings of the prompts: [negative prompt, prompt], or, without guidance, only the embedding of the prompt.
async fn encode_prompts(
    compute: &impl Compute,
    networks: &dyn Networks,
    sound: &Sound,
) -> Result<Vec<TextEmbedding>, PipelineError> {
    let tokens = |text: &str, is_negative| -> Tokens {
        let role = PromptRole { is_negative, picture: None };
        networks.tokenize_as(role, &[text], None, &LearnedTokens::default())
    };
    let negative = sound.is_guided().then(|| tokens(&sound.negative_prompt, true));
    let rows = negative.into_iter().chain([tokens(&sound.prompt, false)]).collect();
    compute.call(Phase::Encoding, EncodeText { clip_skip: 0 }, rows).await
}

impl<C: Compute> Denoise for SoundGuided<'_, C> {
    async fn predict(&self, x: &Latents, t: f64) -> Result<Latents, Error> {
        let [b, c, h, w] = x.shape();
        let row = |text: &TextEmbedding, i: usize| DenoiseRow {
            sample: x.row(i).to_vec(),
            t: t as f32,
            context: text.clone(),
            time_ids: self.numbers.clone(),
            class: None,
            guidance: None,
            controls: Vec::new(),
            adapters: AdapterSet::default(),
            skipped: Arc::from([]),
            references: Arc::from([]),
            features: None,
        };
        let rows = self.branches.iter().flat_map(|text| (0..b).map(move |i| row(text, i))).collect();
        let context = self.branches.first().map_or([0; 2], TextEmbedding::dims);
        let call = DenoiseCall { shape: [c, h, w], context, depth: Depth::Full, channels: c, references: 0 };
        let answers = self.compute.call(Phase::Denoising, call, rows).await;
        let answers = answers.map_err(|error| Error::Denoiser(Box::new(error)))?;
        let predictions = answers.chunks(b.max(1)).map(|rows| {
            Latents::new([b, c, h, w], rows.iter().flat_map(|row| row.prediction.iter().copied()).collect())
        });
        match &predictions.collect::<Result<Vec<Latents>, Error>>()?[..] {
            [uncond, cond] => Ok(guide(uncond, cond, self.scale, 0.0)),
            [only] => Ok(only.clone()),
            others => {
                Err(Error::Denoiser(format!("{} answers to {} prompts", others.len(), self.branches.len()).into()))
            }
        }
    }

    fn stepped(&self, step: usize, steps: usize, denoised: &Latents) {
        self.compute.stepped(step, steps, denoised);
    }
}
