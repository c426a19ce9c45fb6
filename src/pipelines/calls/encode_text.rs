//! The call for encoding prompts to embeddings.

use async_trait::async_trait;

use crate::{
    models::{demand::Demand, latent_diffusion::Part, text_encoders::Tokens},
    pipelines::{
        LatentDiffusion, Model, NetworkError, TextEmbedding,
        call::{Call, Memo, Shape},
    },
};

/// Encodes each prompt, padded to the encoders' length, to one embedding.
#[derive(Clone, Copy, Debug)]
pub struct EncodeText {
    /// How many of the text encoder's last layers are skipped.
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

    fn demand(&self, model: &Model, rows: &[Tokens]) -> Demand {
        LatentDiffusion::demand(model, Part::Text { sees: rows.iter().any(|row| row.picture.is_some()) })
    }

    async fn run(&self, model: &Model, rows: &[Tokens]) -> Result<Vec<TextEmbedding>, NetworkError> {
        LatentDiffusion::of(model)?.encode_text(rows, self.clip_skip).await
    }

    fn answer_bytes(&self, answer: &TextEmbedding) -> usize {
        4 * (answer.hidden.elem_count() + answer.pooled.as_ref().map_or(0, |pooled| pooled.elem_count()))
    }

    /// The embedding of a prompt with adapters, textual inversions or weights is not cached, because the key contains
    /// only ids.
    fn memo(&self, prompt: &Tokens) -> Option<Memo> {
        let picture = prompt.picture.iter().map(|picture| picture.digest().to_vec());
        prompt.is_plain().then(|| prompt.ids.iter().cloned().chain(picture).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        imaging::RgbImage,
        models::{qwen3_vl::Picture, text_encoders::SeenPicture},
    };

    #[test]
    fn an_embedding_is_cached_for_its_picture() {
        let memo = |level: Option<u8>| {
            let picture = |level| Picture::of(RgbImage { width: 32, height: 32, pixels: vec![level; 3 * 32 * 32] });
            let picture = level.map(|level| SeenPicture::new(picture(level)));
            EncodeText { clip_skip: 0 }
                .memo(&Tokens { ids: vec![vec![1, 2, 3]], picture, ..Tokens::default() })
                .unwrap()
        };
        assert_eq!(memo(Some(9)), memo(Some(9)));
        assert_ne!(memo(Some(9)), memo(Some(10)), "another picture");
        assert_ne!(memo(Some(9)), memo(None), "no picture");
    }
}
