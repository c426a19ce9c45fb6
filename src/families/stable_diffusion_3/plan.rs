//! The work and memory of a generation by Stable Diffusion 3.

use super::{SEQUENCE_LENGTHS, description::Sizes};
use crate::{
    families::{ControlDemand, Outline, Plan, SamplingDemand, plan::calls},
    generation::{Job, ModelCard, Work},
    models::{clip_text::ClipTextConfig, demand::Demand, latent_diffusion::Part},
};

impl Sizes {
    /// The work and memory of one row of a call; zero for kinds of calls that this family does not have.
    pub fn demand(&self, part: Part) -> Demand {
        match part {
            Part::Text { .. } => self.text_demand(SEQUENCE_LENGTHS.1 as usize),
            Part::Denoise { size, tokens, adapted, .. } => self.transformer.demand(size, tokens, adapted),
            Part::Encode { size } => self.vae.encode_demand(size),
            Part::Decode { size: [h, w] } => self.vae.decode_demand(h, w),
            Part::DecodeTiny { .. } => Demand::default(),
        }
    }

    /// The demand of encoding one prompt with `length` tokens of T5.
    fn text_demand(&self, length: usize) -> Demand {
        let clip = self.clip.iter().map(ClipTextConfig::demand).fold(Demand::default(), Demand::then);
        self.t5.as_ref().map_or(clip, |t5| clip.then(t5.demand(length)))
    }
}

impl Outline for Sizes {
    fn plan(&self, job: &Job, card: &ModelCard, _controls: &ControlDemand<'_>) -> Plan {
        let Work::Draw(draw) = &job.work else { return Plan::default() };
        let [height, width] = [draw.height as usize, draw.width as usize];
        let size = [height, width].map(|side| side / self.vae.scale());
        let length = draw.max_sequence_length.unwrap_or(SEQUENCE_LENGTHS.0) as usize;
        let tokens = self.clip[0].max_position_embeddings + length;
        let tiles = self.vae.tiles(size[0], size[1]);
        let decodes = tiles.iter().map(|tile| {
            let (h, w) = tile.size();
            self.demand(Part::Decode { size: [h, w] })
        });
        let encode = draw.source.as_ref().map(|_| self.demand(Part::Encode { size: [height, width] }));
        let text = self.text_demand(length);
        let branches = match draw.guidance_scale > 1.0 {
            true => 2 + usize::from(draw.skip_layer_guidance.is_some()),
            false => 1,
        };
        let sampling = SamplingDemand {
            state: self.vae.latent_channels * size[0] * size[1],
            branches,
            calls: calls(draw, card),
            call: self.demand(Part::Denoise { size, tokens, shallow: false, adapted: !draw.loras.is_empty() }),
            before: text.then(text).then(encode.unwrap_or_default()),
            after: decodes.fold(Demand::default(), Demand::then),
        };
        Plan::of(draw, sampling)
    }
}
