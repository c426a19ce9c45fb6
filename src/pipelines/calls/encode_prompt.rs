//! The call for encoding the prompts of films.

use async_trait::async_trait;

use crate::{
    models::demand::Demand,
    pipelines::{
        Model, NetworkError, TextEmbedding, WanVideo,
        call::{Call, Memo, Shape},
    },
};

/// Encodes each prompt, a list of ids without padding, to the states of its tokens.
#[derive(Clone, Copy, Debug)]
pub struct EncodePrompt;

#[async_trait]
impl Call for EncodePrompt {
    type Row = Vec<u32>;
    type Answer = TextEmbedding;

    fn network(&self) -> &'static str {
        "text_encoder"
    }

    fn shape(&self) -> Shape {
        [0; 6]
    }

    fn demand(&self, model: &Model, rows: &[Vec<u32>]) -> Demand {
        model.networks::<WanVideo>().map_or(Demand::default(), |networks| networks.text_demand(rows))
    }

    async fn run(&self, model: &Model, rows: &[Vec<u32>]) -> Result<Vec<TextEmbedding>, NetworkError> {
        model.networks::<WanVideo>()?.encode_prompts(rows).await
    }

    fn answer_bytes(&self, answer: &TextEmbedding) -> usize {
        4 * answer.hidden.elem_count()
    }

    fn memo(&self, ids: &Vec<u32>) -> Option<Memo> {
        Some(vec![ids.clone()])
    }
}
