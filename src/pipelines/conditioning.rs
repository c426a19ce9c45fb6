//! Prompts as the networks take them.

use std::sync::Arc;

use super::{
    Companions, Compute, PipelineError, TextEmbedding,
    calls::EncodeText,
    guided::{Branch, Guidance},
    setup::Setup,
};
use crate::{
    generation::{Draw, MicroConditioning, Phase, PromptSyntax},
    models::text_encoders::Tokens,
};

/// The prompt's embedding, and the negative prompt's where guidance is on.
pub(super) struct Conditioning {
    pub negative: Option<TextEmbedding>,
    pub positive: TextEmbedding,
}

/// Encodes the prompts of a generation.
pub(super) async fn encode_prompts(setup: &Setup<'_, impl Compute>) -> Result<Conditioning, PipelineError> {
    let draw = setup.draw;
    let micro = draw.micro_conditioning.as_ref();
    let second = |text: Option<&String>, first: &str| text.map_or_else(|| first.to_owned(), Clone::clone);
    let prompt_2 = second(micro.and_then(|micro| micro.prompt_2.as_ref()), &draw.prompt);
    let positive = tokens(setup, &[&draw.prompt, &prompt_2]);
    if !is_guided(setup) {
        return Ok(Conditioning { negative: None, positive: encode(setup, positive, draw.clip_skip).await? });
    }
    // What a negative prompt that nobody gave is depends on the model.
    let negative = match &draw.negative_prompt {
        None if setup.networks.spec().zero_negative => None,
        negative => Some(negative.as_deref().unwrap_or_default()),
    };
    let negative = negative.map(|negative| {
        let negative_2 = second(micro.and_then(|micro| micro.negative_prompt_2.as_ref()), negative);
        tokens(setup, &[negative, &negative_2])
    });
    // Both go through the network together, so that the shorter one gets empty chunks.
    let chunks = positive.len().max(negative.as_ref().map_or(0, Vec::len));
    let positive = encode(setup, filled(setup, positive, chunks), draw.clip_skip).await?;
    let negative = match negative {
        None => TextEmbedding::joined(vec![TextEmbedding::zeros(&setup.networks.spec())?; chunks])?,
        // No layers are skipped for the negative prompt, as in diffusers.
        Some(negative) => encode(setup, filled(setup, negative, chunks), 0).await?,
    };
    Ok(Conditioning { negative: Some(negative), positive })
}

/// At a scale of 1 the formula gives the conditional prediction, and diffusers treats less than 1 alike; a network that is
/// told the scale needs no other row.
fn is_guided(setup: &Setup<'_, impl Compute>) -> bool {
    setup.draw.guidance_scale > 1.0 && !setup.networks.spec().guidance_embedding
}

/// The chunks of a prompt: one, unless the request weighs its words.
fn tokens(setup: &Setup<'_, impl Compute>, prompts: &[&str]) -> Vec<Tokens> {
    let Companions { learned, adapters, .. } = setup.companions;
    let mut chunks = match setup.draw.prompt_syntax {
        PromptSyntax::Plain => vec![setup.networks.tokenize(prompts, learned)],
        PromptSyntax::Weighted => setup.networks.tokenize_weighted(prompts, learned),
    };
    chunks.iter_mut().for_each(|chunk| chunk.adapters = adapters.clone());
    chunks
}

fn filled(setup: &Setup<'_, impl Compute>, mut chunks: Vec<Tokens>, most: usize) -> Vec<Tokens> {
    while chunks.len() < most {
        chunks.extend(tokens(setup, &[""]));
    }
    chunks
}

async fn encode(
    setup: &Setup<'_, impl Compute>,
    chunks: Vec<Tokens>,
    clip_skip: u32,
) -> Result<TextEmbedding, PipelineError> {
    let wanted = chunks.len();
    let embeddings = setup.compute.call(Phase::Encoding, EncodeText { clip_skip }, chunks).await?;
    if wanted == 0 || embeddings.len() != wanted {
        return Err(PipelineError::Sampler(format!("{} texts encoded of {wanted}", embeddings.len())));
    }
    Ok(TextEmbedding::joined(embeddings)?)
}

/// The branches of classifier-free guidance, each with the same channels `beside` its latents.
pub(super) fn classifier_free(
    text: Conditioning,
    setup: &Setup<'_, impl Compute>,
    beside: Vec<Vec<f32>>,
) -> (Vec<Branch>, Guidance) {
    let Draw { micro_conditioning, guidance_scale, guidance_rescale, .. } = setup.draw;
    let told = |negative: bool| time_ids(micro_conditioning.as_ref(), setup.networks.spec().time_ids, negative);
    let positive = Branch {
        text: text.positive,
        beside: beside.clone(),
        time_ids: told(false),
        classes: Vec::new(),
        follows_prompt: true,
    };
    match text.negative {
        None => (vec![positive], Guidance::Off),
        Some(negative) => {
            let negative =
                Branch { text: negative, beside, time_ids: told(true), classes: Vec::new(), follows_prompt: false };
            let guidance = Guidance::ClassifierFree { scale: *guidance_scale, rescale: *guidance_rescale };
            (vec![negative, positive], guidance)
        }
    }
}

/// The numbers that SDXL is told of the picture: sizes, the corner of the part that is shown, and the size that is wanted
/// or a score.
pub(super) fn time_ids(micro_conditioning: Option<&MicroConditioning>, count: usize, negative: bool) -> Arc<[f32]> {
    let Some(micro) = micro_conditioning else { return Arc::from([]) };
    let (original, crop, target, score) = match negative {
        false => (micro.original_size, micro.crop_top_left, micro.target_size, micro.aesthetic_score),
        true => (
            micro.negative_original_size,
            micro.negative_crop_top_left,
            micro.negative_target_size,
            micro.negative_aesthetic_score,
        ),
    };
    let numbers = [original, crop].into_iter().flatten().map(|number| number as f32);
    match count {
        5 => numbers.chain([score as f32]).collect(),
        6 => numbers.chain(target.map(|number| number as f32)).collect(),
        _ => Arc::from([]),
    }
}
