//! Prompts as the networks take them.

use std::sync::Arc;

use super::{
    Compute, PipelineError, TextEmbedding,
    guided::{Branch, Guidance},
    setup::Setup,
};
use crate::generation::{Generation, Sdxl};

/// The prompt's embedding, and the negative prompt's where guidance is on.
pub(super) struct Conditioning {
    pub negative: Option<TextEmbedding>,
    pub positive: TextEmbedding,
}

/// Encodes the prompts of a generation.
pub(super) async fn encode_prompts(setup: &Setup<'_, impl Compute>) -> Result<Conditioning, PipelineError> {
    let generation = setup.generation;
    let sdxl = generation.sdxl.as_ref();
    let second = |text: Option<&String>, first: &str| text.map_or_else(|| first.to_owned(), Clone::clone);
    let prompt_2 = second(sdxl.and_then(|sdxl| sdxl.prompt_2.as_ref()), &generation.prompt);
    let positive = encode(setup, &[&generation.prompt, &prompt_2], generation.clip_skip).await?;
    if !is_guided(setup) {
        return Ok(Conditioning { negative: None, positive });
    }
    // No layers are skipped for the negative prompt, as in diffusers.
    let negative = match &generation.negative_prompt {
        None => TextEmbedding::zeros(&setup.networks.spec())?,
        Some(negative) => {
            let negative_2 = second(sdxl.and_then(|sdxl| sdxl.negative_prompt_2.as_ref()), negative);
            encode(setup, &[negative, &negative_2], 0).await?
        }
    };
    Ok(Conditioning { negative: Some(negative), positive })
}

/// At a scale of 1 the formula gives the conditional prediction, and diffusers treats less than 1 alike; a network that is
/// told the scale needs no other row.
fn is_guided(setup: &Setup<'_, impl Compute>) -> bool {
    setup.generation.guidance_scale > 1.0 && !setup.networks.spec().guidance_embedding
}

async fn encode(
    setup: &Setup<'_, impl Compute>,
    prompts: &[&str],
    clip_skip: u32,
) -> Result<TextEmbedding, PipelineError> {
    let mut tokens = setup.networks.tokenize(prompts, &setup.companions.learned);
    tokens.adapters = setup.companions.adapters.clone();
    let embeddings = setup.compute.text(vec![tokens], clip_skip).await?;
    embeddings.into_iter().next().ok_or_else(|| PipelineError::Sampler("the text encoder gave no answer".to_owned()))
}

/// The branches of classifier-free guidance, each with the same channels `beside` its latents.
pub(super) fn classifier_free(
    text: Conditioning,
    setup: &Setup<'_, impl Compute>,
    beside: Vec<Vec<f32>>,
) -> (Vec<Branch>, Guidance) {
    let Generation { sdxl, guidance_scale, guidance_rescale, .. } = setup.generation;
    let told = |negative: bool| time_ids(sdxl.as_ref(), setup.networks.spec().time_ids, negative);
    let positive = Branch { text: text.positive, beside: beside.clone(), time_ids: told(false), follows_prompt: true };
    match text.negative {
        None => (vec![positive], Guidance::Off),
        Some(negative) => {
            let negative = Branch { text: negative, beside, time_ids: told(true), follows_prompt: false };
            let guidance = Guidance::ClassifierFree { scale: *guidance_scale, rescale: *guidance_rescale };
            (vec![negative, positive], guidance)
        }
    }
}

/// The numbers that SDXL is told of the picture: sizes, the corner of the part that is shown, and the size that is wanted
/// or a score.
pub(super) fn time_ids(sdxl: Option<&Sdxl>, count: usize, negative: bool) -> Arc<[f32]> {
    let Some(sdxl) = sdxl else { return Arc::from([]) };
    let (original, crop, target, score) = match negative {
        false => (sdxl.original_size, sdxl.crop_top_left, sdxl.target_size, sdxl.aesthetic_score),
        true => (
            sdxl.negative_original_size,
            sdxl.negative_crop_top_left,
            sdxl.negative_target_size,
            sdxl.negative_aesthetic_score,
        ),
    };
    let numbers = [original, crop].into_iter().flatten().map(|number| number as f32);
    match count {
        5 => numbers.chain([score as f32]).collect(),
        6 => numbers.chain(target.map(|number| number as f32)).collect(),
        _ => Arc::from([]),
    }
}
