//! The work and memory of a generation by the Stable Diffusion families.

use crate::{
    device::Precision,
    families::{
        ControlDemand, Outline, Plan, SamplingDemand,
        plan::{calls, calls_of},
    },
    generation::{Draw, FeatureCache, Film, Job, ModelCard, Task, Work},
    models::{
        demand::{Demand, of_frames},
        latent_diffusion::Part,
        stable_diffusion::Sizes,
    },
};

/// Ignores three things that change a plan little: the chunks of a prompt after the first, the work of LoRAs, and the
/// difference in size between a refiner and its base model. (The plan contains the memory of LoRAs.)
impl Outline for Sizes {
    fn plan(&self, job: &Job, card: &ModelCard, controls: &ControlDemand<'_>) -> Plan {
        let draw = match &job.work {
            Work::Draw(draw) => draw,
            Work::Film(film) => return self.plan_film(film, card, controls),
            Work::Sound(_) => return Plan::default(),
        };
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
        let decode = decoding(self, size);
        let tiny = self.demand(Part::DecodeTiny { size });
        let encode = match &draw.source {
            Some(_) => self.demand(Part::Encode { size: [height, width] }),
            None => Demand::default(),
        };
        let text = 2.0 * self.demand(Part::Text { sees: false }).work;
        let previews = f64::from(job.previews) * tiny.work;
        let parts =
            [(Part::Encode { size }, encode), (Part::Decode { size }, decode), (Part::DecodeTiny { size }, tiny)];
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
        plan.with_float32_call(float32_call(self, &parts))
    }
}

impl Sizes {
    /// The plan of films, whose frames are denoised together and decoded one by one.
    fn plan_film(&self, film: &Film, card: &ModelCard, controls: &ControlDemand<'_>) -> Plan {
        let (channels, scale) = (card.latents.0, card.latents.1.max(1));
        let size = [film.height as usize / scale, film.width as usize / scale];
        let (frames, tokens, adapted) = (film.frames as usize, self.context_length(), !film.loras.is_empty());
        let motion = film.motion_adapter.as_deref().and_then(|name| controls(name, size, frames)).unwrap_or_default();
        let (decode, tiny) = (decoding(self, size), self.demand(Part::DecodeTiny { size }));
        let branches = if film.is_guided() { 2 } else { 1 };
        let text = self.demand(Part::Text { sees: false });
        let sampling = SamplingDemand {
            state: channels * frames * size[0] * size[1],
            branches,
            calls: calls_of(&film.scheduler, film.steps, card),
            call: of_frames(frames, self.demand(Part::Denoise { size, tokens, shallow: false, adapted })).and(motion),
            before: Demand { work: branches as f64 * text.work, ..text },
            after: Demand { work: frames as f64 * decode.work, bytes: decode.bytes.max(tiny.bytes) },
        };
        let parts = [(Part::Decode { size }, decode), (Part::DecodeTiny { size }, tiny)];
        Plan::of_film(film, sampling).with_float32_call(float32_call(self, &parts))
    }
}

/// The demand of decoding a picture of (h, w) latent pixels in tiles.
fn decoding(sizes: &Sizes, size: [usize; 2]) -> Demand {
    let tiles = sizes.tiles(size);
    let decodes = tiles.iter().map(|tile| {
        let (h, w) = tile.size();
        sizes.demand(Part::Decode { size: [h, w] })
    });
    decodes.fold(Demand::default(), Demand::then)
}

/// Maximum bytes of a call that computes in float32 on every device.
fn float32_call(sizes: &Sizes, parts: &[(Part, Demand)]) -> u64 {
    let in_float32 = |(part, demand): &(Part, Demand)| match sizes.precision(*part, Precision::F16) {
        Precision::F32 => demand.bytes,
        Precision::F16 | Precision::Bf16 => 0,
    };
    parts.iter().map(in_float32).max().unwrap_or(0)
}

/// Rows of the denoiser per picture.
fn branches(draw: &Draw, card: &ModelCard) -> usize {
    match card.tasks.as_slice() {
        _ if draw.guidance_scale <= 1.0 || card.guidance_embedding => 1,
        [Task::InstructPix2Pix] => 3,
        _ => 2,
    }
}
