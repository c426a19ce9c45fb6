//! What a generation asks of the machine, known before any work.

use super::Catalogue;
use crate::{
    diffusion::{Schedule, SchedulerConfig},
    generation::{FeatureCache, Generation, ModelCard, Source, Task},
    models::{demand::Demand, latent_diffusion::Part, stable_diffusion::Sizes},
};

/// The work and the memory of a generation, from the sizes of its model's layers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Plan {
    /// 10⁹ multiplications, of all calls of its networks together.
    pub cost: f64,
    /// Bytes that it holds from its first step to its last picture, at most.
    pub held: u64,
    /// Bytes of the activations of its largest call, for one row.
    pub call: u64,
}

impl Plan {
    /// Bytes that it takes alone, besides the weights of its models.
    pub fn bytes(&self) -> u64 {
        self.held.saturating_add(self.call)
    }
}

/// Latents of a picture that are in memory at the same time: the sampler's state, its history of up to four, noise,
/// the present estimate, and those that a picture or a mask of the request has left.
const LATENTS: u64 = 12;

/// Copies of a row's latents: asked for, in the call, its answer, and in the log.
const ROWS: u64 = 5;

/// What the log of a run may hold before it is stored.
const LOG_BYTES: u64 = 64 << 20;

impl Catalogue {
    /// The plan of a generation; `None` where its model is not in the catalogue or cannot be used.
    ///
    /// Text of more than one chunk, LoRAs and a refiner of another size than its base are not in it: they change little.
    pub fn plan(&self, generation: &Generation) -> Option<Plan> {
        let entry = self.entry(&generation.model)?;
        let (card, sizes) = (&entry.usable().ok()?.card, entry.sizes()?);
        let control_nets = self.control_nets();
        let scale = card.latents.1.max(1);
        let size = [generation.height as usize / scale, generation.width as usize / scale];
        let tokens = sizes.context_length();
        let control = |demand: Demand, name: &str| match control_nets.demand(name, size, tokens) {
            Some(of_net) => demand.and(of_net),
            None => demand,
        };
        let controls = generation.controls.iter().map(|of| of.model.as_str()).fold(Demand::default(), control);
        Some(plan(generation, card, sizes, controls))
    }
}

fn plan(generation: &Generation, card: &ModelCard, sizes: &Sizes, controls: Demand) -> Plan {
    let (channels, scale) = (card.latents.0, card.latents.1.max(1));
    let [height, width] = [generation.height as usize, generation.width as usize];
    let size = [height / scale, width / scale];
    let tokens = sizes.context_length();
    let rows = generation.n as usize * branches(generation, card);

    let denoise = |shallow| sizes.demand(Part::Denoise { size, tokens, shallow }).and(controls);
    let whole = denoise(false);
    let each_call = match generation.feature_cache {
        Some(FeatureCache { interval, .. }) if interval > 1 => {
            let share = 1.0 / f64::from(interval);
            share * whole.work + (1.0 - share) * denoise(true).work
        }
        _ => whole.work,
    };
    let tiles = sizes.tiles(size);
    let decodes = tiles.iter().map(|tile| {
        let (h, w) = tile.size();
        sizes.demand(Part::Decode { size: [h, w] })
    });
    let decode = decodes.fold(Demand::default(), Demand::then);
    let tiny = sizes.demand(Part::DecodeTiny { size });
    let encode = if generation.source.is_some() {
        sizes.demand(Part::Encode { size: [height, width] })
    } else {
        Demand::default()
    };

    let n = generation.n as f64;
    let text = 2.0 * sizes.demand(Part::Text).work;
    let previews = f64::from(generation.previews) * tiny.work;
    let work = text + encode.work + (calls(generation, card) * rows) as f64 * each_call + n * (decode.work + previews);

    let latents = (4 * channels * size[0] * size[1]) as u64;
    let pixels = (3 * height * width) as u64;
    let (n, rows) = (u64::from(generation.n), rows as u64);
    let log = LOG_BYTES.min(rows * latents * u64::from(generation.steps));
    // A picture of the request is decoded, resized and then floats; a finished one stands beside its PNG, which may be as large.
    let inputs = generation.inputs().count() as u64 * 6 * pixels;
    let held = n * (LATENTS * latents + 2 * pixels) + rows * ROWS * latents + log + inputs;
    let call = [whole, decode, tiny, encode].into_iter().map(|demand| demand.bytes).max().unwrap_or(0);
    Plan { cost: work / 1e9, held, call }
}

/// Rows of the denoiser for each picture: one for each thing that guidance compares.
fn branches(generation: &Generation, card: &ModelCard) -> usize {
    match card.tasks.as_slice() {
        _ if generation.guidance_scale <= 1.0 || card.guidance_embedding => 1,
        [Task::InstructPix2Pix] => 3,
        _ => 2,
    }
}

/// How often the denoiser is called for each row.
fn calls(generation: &Generation, card: &ModelCard) -> usize {
    let config = SchedulerConfig::overlay(&card.scheduler_config, &generation.scheduler);
    let schedule = config.ok().and_then(|config| Schedule::of(&config, generation).ok());
    let calls = schedule.map_or(generation.steps as usize, |schedule| schedule.calls());
    let strength = generation.source.as_ref().map_or(1.0, Source::strength);
    ((calls as f64 * strength).ceil() as usize).max(1)
}
