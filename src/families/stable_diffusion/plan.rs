//! The work and memory of a generation by the Stable Diffusion families.

use crate::{
    device::Precision,
    families::{ControlDemand, Outline, Plan, SamplingDemand, plan::calls},
    generation::{Draw, FeatureCache, Job, ModelCard, Task, Work},
    models::{demand::Demand, latent_diffusion::Part, stable_diffusion::Sizes},
};

/// Ignores three things that change a plan little: the chunks of a prompt after the first, the work of LoRAs, and the
/// difference in size between a refiner and its base model. (The plan contains the memory of LoRAs.)
impl Outline for Sizes {
    fn plan(&self, job: &Job, card: &ModelCard, controls: &ControlDemand<'_>) -> Plan {
        let Work::Draw(draw) = &job.work else { return Plan::default() };
        let (channels, scale) = (card.latents.0, card.latents.1.max(1));
        let [height, width] = [draw.height as usize, draw.width as usize];
        let size = [height / scale, width / scale];
        let tokens = self.context_length();
        let control = |demand: Demand, name: &str| match controls(name, size, tokens) {
            Some(of_net) => demand.and(of_net),
            None => demand,
        };
        let controls = draw.controls.iter().map(|of| of.model.as_str()).fold(Demand::default(), control);

        let adapted = !draw.loras.is_empty();
        let denoise = |shallow| self.demand(Part::Denoise { size, tokens, shallow, adapted }).and(controls);
        let whole = denoise(false);
        let each_call = match draw.feature_cache {
            Some(FeatureCache { interval, .. }) if interval > 1 => {
                let share = 1.0 / f64::from(interval);
                share * whole.work + (1.0 - share) * denoise(true).work
            }
            _ => whole.work,
        };
        let tiles = self.tiles(size);
        let decodes = tiles.iter().map(|tile| {
            let (h, w) = tile.size();
            self.demand(Part::Decode { size: [h, w] })
        });
        let decode = decodes.fold(Demand::default(), Demand::then);
        let tiny = self.demand(Part::DecodeTiny { size });
        let encode = match &draw.source {
            Some(_) => self.demand(Part::Encode { size: [height, width] }),
            None => Demand::default(),
        };
        let text = 2.0 * self.demand(Part::Text { sees: false }).work;
        let previews = f64::from(job.previews) * tiny.work;
        let in_float32 = |part, demand: Demand| match self.precision(part, Precision::F16) {
            Precision::F32 => demand.bytes,
            Precision::F16 | Precision::Bf16 => 0,
        };
        let vae = in_float32(Part::Encode { size }, encode).max(in_float32(Part::Decode { size }, decode));
        let float32_call = vae.max(in_float32(Part::DecodeTiny { size }, tiny));
        let plan = Plan::of(
            draw,
            SamplingDemand {
                state: channels * size[0] * size[1],
                branches: branches(draw, card),
                calls: calls(draw, card),
                call: Demand { work: each_call, ..whole },
                before: Demand { work: text + encode.work, ..encode },
                after: Demand { work: decode.work + previews, bytes: decode.bytes.max(tiny.bytes) },
            },
        );
        plan.with_float32_call(float32_call)
    }
}

/// Rows of the denoiser per picture.
fn branches(draw: &Draw, card: &ModelCard) -> usize {
    match card.tasks.as_slice() {
        _ if draw.guidance_scale <= 1.0 || card.guidance_embedding => 1,
        [Task::InstructPix2Pix] => 3,
        _ => 2,
    }
}
