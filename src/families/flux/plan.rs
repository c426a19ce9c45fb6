//! The work and memory of a generation by FLUX.1.

use super::sizes::{PATCH, Sizes};
use crate::{
    families::{ControlDemand, Outline, Plan, SamplingDemand, plan::calls},
    generation::{Job, ModelCard, Work},
    models::{demand::Demand, latent_diffusion::Part},
};

impl Sizes {
    /// The work and memory of one row of a call; zero for kinds of calls that this family does not have.
    pub fn demand(&self, part: Part) -> Demand {
        match part {
            Part::Text { .. } => self.text_demand(self.sequence_length()),
            Part::Denoise { size: [h, w], tokens, adapted, .. } => {
                self.transformer.demand(h * w / (PATCH * PATCH), tokens, adapted)
            }
            Part::Encode { size } => self.vae.encode_demand(size),
            Part::Decode { size: [h, w] } => self.vae.decode_demand(h, w),
            Part::DecodeTiny { .. } => Demand::default(),
        }
    }

    /// The demand of encoding one prompt with `length` tokens of T5.
    fn text_demand(&self, length: usize) -> Demand {
        self.clip.demand().then(self.t5.demand(length))
    }
}

impl Outline for Sizes {
    fn plan(&self, job: &Job, card: &ModelCard, _controls: &ControlDemand<'_>) -> Plan {
        let Work::Draw(draw) = &job.work else { return Plan::default() };
        let [height, width] = [draw.height as usize, draw.width as usize];
        let size = [height, width].map(|side| side / self.vae.scale());
        let tokens = draw.max_sequence_length.map_or(self.sequence_length(), |length| length as usize);
        let branches = if card.is_guided(draw) { 2 } else { 1 };
        let tiles = self.vae.tiles(size[0], size[1]);
        let decodes = tiles.iter().map(|tile| {
            let (h, w) = tile.size();
            self.demand(Part::Decode { size: [h, w] })
        });
        let encode = draw.source.as_ref().map(|_| self.demand(Part::Encode { size: [height, width] }));
        let text = self.text_demand(tokens);
        let texts = Demand { work: branches as f64 * text.work, ..text };
        let sampling = SamplingDemand {
            state: self.vae.latent_channels * size[0] * size[1],
            branches,
            calls: calls(draw, card),
            call: self.demand(Part::Denoise { size, tokens, shallow: false, adapted: !draw.loras.is_empty() }),
            before: texts.then(encode.unwrap_or_default()),
            after: decodes.fold(Demand::default(), Demand::then),
        };
        Plan::of(draw, sampling)
    }
}
