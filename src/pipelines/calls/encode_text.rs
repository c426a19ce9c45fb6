//! Prompts to embeddings.

use async_trait::async_trait;

use crate::{
    models::{demand::Demand, latent_diffusion::Part, text_encoders::Tokens},
    pipelines::{
        LatentDiffusion, Model, NetworkError, TextEmbedding,
        call::{Call, Memo, Shape},
    },
};

/// Prompts, each padded to the encoders' length → one embedding each.
#[derive(Clone, Copy, Debug)]
pub struct EncodeText {
    /// Layers left out at the end.
    pub clip_skip: u32,
}

#[async_trait]
impl Call for EncodeText {
    type Row = Tokens;
    type Answer = TextEmbedding;

    fn network(&self) -> &'static str {
        "text_encoder"
    }

    fn shape(&self) -> Shape {
        [self.clip_skip as usize, 0, 0, 0, 0, 0]
    }

    fn demand(&self, model: &Model, _rows: &[Tokens]) -> Demand {
        LatentDiffusion::demand(model, Part::Text)
    }

    async fn run(&self, model: &Model, rows: &[Tokens]) -> Result<Vec<TextEmbedding>, NetworkError> {
        LatentDiffusion::of(model)?.encode_text(rows, self.clip_skip).await
    }

    /// What adapters and learned tokens make of a prompt is their run's own.
    fn memo(&self, prompt: &Tokens) -> Option<Memo> {
        prompt.is_plain().then(|| prompt.ids.clone())
    }
}
