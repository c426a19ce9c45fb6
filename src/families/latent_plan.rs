//! The plan of a generation of the families whose denoiser is a transformer.

use super::{Plan, SamplingDemand, plan::calls};
use crate::{
    generation::{Job, ModelCard, Work},
    models::{autoencoder_kl::Tiles, demand::Demand, latent_diffusion::Part},
};

/// The plan of a job. `demand` returns the demand of one row of a call. `tokens` is the number of tokens of a prompt
/// together with its reference pictures, and `state` the count of numbers in a picture's latents. `encodes` contains
/// the sizes (H, W) of the pictures that the autoencoder encodes. `tiles` says how it divides latents of (h, w).
pub(super) fn plan(
    job: &Job,
    card: &ModelCard,
    (tokens, state): (usize, usize),
    encodes: &[[usize; 2]],
    demand: impl Fn(Part) -> Demand,
    tiles: impl Fn([usize; 2]) -> Tiles,
) -> Plan {
    let Work::Draw(draw) = &job.work else { return Plan::default() };
    let [height, width] = [draw.height as usize, draw.width as usize];
    let size = [height, width].map(|side| side / card.latents.1.max(1));
    let tiles = tiles(size);
    let decodes = tiles.iter().map(|tile| {
        let (h, w) = tile.size();
        demand(Part::Decode { size: [h, w] })
    });
    let edits_beside = card.edits_beside && draw.source.is_some();
    let branches = match card.is_guided(draw) {
        false => 1u32,
        true if edits_beside => 3,
        true => 2,
    };
    let encode = encodes.iter().map(|size| demand(Part::Encode { size: *size })).fold(Demand::default(), Demand::then);
    let text = demand(Part::Text { sees: edits_beside });
    // The predictions with the negative prompt share its embedding.
    let text = Demand { work: f64::from(branches.min(2)) * text.work, ..text };
    let previews = f64::from(job.previews) * demand(Part::DecodeTiny { size }).work;
    let adapted = !draw.loras.is_empty();
    let sampling = SamplingDemand {
        state,
        branches: branches as usize,
        calls: calls(draw, card),
        call: demand(Part::Denoise { size, tokens, shallow: false, adapted }),
        before: text.then(encode),
        after: decodes.fold(Demand { work: previews, bytes: 0 }, Demand::then),
    };
    Plan::of(draw, sampling)
}
