//! Prompts as the networks take them.

use super::{
    Compute, Networks, PipelineError, TextEmbedding,
    guided::{Branch, Guidance},
};
use crate::generation::Generation;

/// The prompt's embedding, and the negative prompt's where guidance is on.
pub(super) struct Conditioning {
    pub negative: Option<TextEmbedding>,
    pub positive: TextEmbedding,
}

/// Encodes the prompts of a generation.
pub(super) async fn encode_prompts(
    compute: &impl Compute,
    networks: &dyn Networks,
    generation: &Generation,
) -> Result<Conditioning, PipelineError> {
    let encode = async |prompt: &str, clip_skip| {
        let embeddings = compute.text(vec![networks.tokenize(prompt)], clip_skip).await?;
        embeddings
            .into_iter()
            .next()
            .ok_or_else(|| PipelineError::Sampler("the text encoder gave no answer".to_owned()))
    };
    let positive = encode(&generation.prompt, generation.clip_skip).await?;
    // At a scale of 1 the formula gives the conditional prediction, and diffusers treats less than 1 alike. It skips no
    // layers for the negative prompt.
    let negative = match generation.guidance_scale > 1.0 {
        true => Some(encode(&generation.negative_prompt, 0).await?),
        false => None,
    };
    Ok(Conditioning { negative, positive })
}

/// The branches of classifier-free guidance, each with the same channels `beside` its latents.
pub(super) fn classifier_free(
    text: Conditioning,
    generation: &Generation,
    beside: Vec<Vec<f32>>,
) -> (Vec<Branch>, Guidance) {
    let branch = |text| Branch { text, beside: beside.clone() };
    let positive = branch(text.positive);
    match text.negative {
        None => (vec![positive], Guidance::Off),
        Some(negative) => {
            let (scale, rescale) = (generation.guidance_scale, generation.guidance_rescale);
            (vec![branch(negative), positive], Guidance::ClassifierFree { scale, rescale })
        }
    }
}
