//! Conditioning: embeddings of the prompts, and the branches of classifier-free guidance.

use std::sync::Arc;

use super::{
    Auxiliary, Compute, PipelineError, PromptRole, TextEmbedding,
    calls::EncodeText,
    guided::{Branch, Guidance},
    setup::Setup,
};
use crate::{
    generation::{Draw, MicroConditioning, Phase, PromptSyntax},
    models::text_encoders::{SeenPicture, Tokens},
};

/// The embedding of the prompt, and the embedding of the negative prompt if guidance is on.
pub(super) struct Conditioning {
    pub negative: Option<TextEmbedding>,
    pub positive: TextEmbedding,
}

/// Encodes the prompts of a generation.
pub(super) async fn encode_prompts(setup: &Setup<'_, impl Compute>) -> Result<Conditioning, PipelineError> {
    encode_prompts_beside(setup, None).await
}

/// Encodes the prompts of a generation. A text encoder that sees pictures gets the picture with each prompt.
pub(super) async fn encode_prompts_beside(
    setup: &Setup<'_, impl Compute>,
    picture: Option<&SeenPicture>,
) -> Result<Conditioning, PipelineError> {
    let draw = setup.draw;
    let role = |is_negative| PromptRole { is_negative, picture };
    let positive = tokens(setup, &draw.further_prompts.positive(&draw.prompt), role(false));
    if !is_guided(setup) {
        return Ok(Conditioning { negative: None, positive: encode(setup, positive, draw.clip_skip).await? });
    }
    // If the request has no negative prompt, the model decides between an empty prompt and zeros.
    let negative = match &draw.negative_prompt {
        None if setup.networks.spec().zero_negative => None,
        negative => Some(negative.as_deref().unwrap_or_default()),
    };
    let negative = negative.map(|negative| tokens(setup, &draw.further_prompts.negative(negative), role(true)));
    // Both embeddings must have the same length, so chunks of an empty prompt are appended to the shorter prompt.
    let chunks = positive.len().max(negative.as_ref().map_or(0, Vec::len));
    let positive = encode(setup, filled(setup, positive, chunks), draw.clip_skip).await?;
    let negative = match negative {
        None => TextEmbedding::joined(vec![TextEmbedding::zeros(&setup.networks.spec())?; chunks])?,
        // As in diffusers, `clip_skip` does not apply to the negative prompt.
        Some(negative) => encode(setup, filled(setup, negative, chunks), 0).await?,
    };
    Ok(Conditioning { negative: Some(negative), positive })
}

/// Whether guidance needs a second row per picture, for the negative prompt. At a guidance scale of 1 the result of
/// guidance is the prediction for the prompt alone, and diffusers treats smaller scales like 1. A network that takes
/// the guidance scale as input needs no second row.
fn is_guided(setup: &Setup<'_, impl Compute>) -> bool {
    let spec = setup.networks.spec();
    let scale = spec.guidance_scale(setup.draw.prompt_guidance(spec.guidance_embedding));
    (scale > 1.0 || spec.always_guided) && !spec.is_distilled
}

/// Tokenizes a prompt into chunks: exactly one with plain syntax, one or more with weighted syntax.
fn tokens(setup: &Setup<'_, impl Compute>, prompts: &[&str], role: PromptRole<'_>) -> Vec<Tokens> {
    let Auxiliary { learned, adapters, .. } = setup.auxiliary;
    let length = setup.draw.max_sequence_length;
    let mut chunks = match setup.draw.prompt_syntax {
        PromptSyntax::Plain => vec![setup.networks.tokenize_as(role, prompts, length, learned)],
        PromptSyntax::Weighted => setup.networks.tokenize_weighted(prompts, length, learned),
    };
    chunks.iter_mut().for_each(|chunk| chunk.adapters = adapters.clone());
    chunks
}

/// Appends chunks of an empty prompt until there are `most` chunks.
fn filled(setup: &Setup<'_, impl Compute>, mut chunks: Vec<Tokens>, most: usize) -> Vec<Tokens> {
    while chunks.len() < most {
        chunks.extend(tokens(setup, &[""], PromptRole::default()));
    }
    chunks
}

/// Encodes the chunks of a prompt and joins their embeddings.
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

/// The branches of classifier-free guidance. Both branches get the additional input channels `extra_channels`.
pub(super) fn classifier_free(
    text: Conditioning,
    setup: &Setup<'_, impl Compute>,
    extra_channels: Vec<Vec<f32>>,
) -> (Vec<Branch>, Guidance) {
    let Draw { micro_conditioning, guidance_rescale, skip_layer_guidance, .. } = setup.draw;
    let spec = setup.networks.spec();
    let scale = spec.guidance_scale(setup.draw.prompt_guidance(spec.guidance_embedding));
    let told = |negative: bool| time_ids(micro_conditioning.as_ref(), spec.time_id_count, negative);
    let positive = Branch {
        text: text.positive,
        extra_channels: extra_channels.clone(),
        time_ids: told(false),
        classes: Vec::new(),
        follows_prompt: true,
        skipped: Arc::from([]),
    };
    match text.negative {
        None => (vec![positive], Guidance::Off),
        Some(negative) => {
            let negative = Branch {
                text: negative,
                extra_channels,
                time_ids: told(true),
                classes: Vec::new(),
                follows_prompt: false,
                skipped: Arc::from([]),
            };
            let without_layers = skip_layer_guidance
                .as_ref()
                .map(|of_layers| Branch { skipped: of_layers.layers.as_slice().into(), ..positive.clone() });
            let guidance = Guidance::ClassifierFree { scale, rescale: *guidance_rescale };
            ([negative, positive].into_iter().chain(without_layers).collect(), guidance)
        }
    }
}

/// SDXL's micro-conditioning as `count` numbers: the original size, the crop corner, and then the target size if
/// `count` is 6 or an aesthetic score if `count` is 5. Empty for other counts.
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
