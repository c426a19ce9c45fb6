//! The work and the memory of a generation, estimated before it runs.

use crate::{
    device::{Device, Precision},
    diffusion::{BaseSchedule, Schedule, SchedulerConfig, Stages, steps_and_calls},
    generation::{Draw, Film, ModelCard, SchedulerChoice, Sound, Source},
    models::demand::Demand,
};

/// The work and the memory of a generation, computed from the sizes of its model's layers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Plan {
    /// The work of all network calls together, in 10⁹ multiplications.
    pub cost: f64,
    /// Maximum bytes that the generation holds between its first step and its last picture.
    pub held: u64,
    /// Bytes of the activations of the largest call, per row, if all networks compute in float32.
    pub call: u64,
    /// Like `call`, but only for the networks that compute in float32 on every device.
    pub float32_call: u64,
}

/// A function that returns the demand of one row of a ControlNet or of a motion adapter, or `None` if the network
/// cannot be used. The arguments are the name of the network, (h, w) of the latents, and a count: for a ControlNet the
/// tokens of the text, for a motion adapter the frames.
pub type ControlDemand<'a> = dyn Fn(&str, [usize; 2], usize) -> Option<Demand> + 'a;

/// The network calls of a generation that samples pictures.
#[derive(Clone, Copy, Debug)]
pub struct SamplingDemand {
    /// Numbers in the sampler's state for one picture: C · h · w.
    pub state: usize,
    /// Rows of the denoiser per picture: one for each prediction that guidance combines.
    pub branches: usize,
    /// How many times the sampler calls the denoiser for each row.
    pub calls: usize,
    /// The demand of one row of a denoiser call: the mean work of all calls, and the maximum bytes of a call.
    pub call: Demand,
    /// The demand of all calls before the first step, for all pictures together.
    pub before: Demand,
    /// The demand of all calls after the last step, per picture.
    pub after: Demand,
}

/// An upper bound of the states of a picture that are in memory at the same time: the sampler's state, its history of
/// at most four states, the current estimate, noise, intermediate results, and the states of a source picture and its
/// mask. The number is rounded up.
const STATES: u64 = 12;

/// Maximum number of copies of a row's state: in the row of the call, in the input and the output of the batch, in the
/// answer, and in the prediction that guidance combines.
const ROWS: u64 = 5;

/// Maximum bytes of network outputs of a run that wait in memory until they are stored in the run's log.
const LOG_BYTES: u64 = 64 << 20;

impl Plan {
    /// Bytes of the generation if it runs alone, without the weights of its models.
    pub fn bytes(&self) -> u64 {
        self.held.saturating_add(self.call)
    }

    /// Bytes of the activations of the largest call, per row, on a device.
    pub fn call_on(&self, device: &Device) -> u64 {
        let on = |bytes, precision| Demand { work: 0.0, bytes }.on(device, precision).bytes;
        on(self.call, device.precision()).max(on(self.float32_call, Precision::F32))
    }

    /// The part of the plan in the memory of the host. If the device has memory of its own, the activations are in the
    /// device's memory and do not count here.
    pub fn on_host(self, device: &Device) -> Plan {
        if device.has_own_memory() { Plan { call: 0, ..self } } else { self }
    }

    /// The same plan, in which the calls of networks that compute in float32 on every device take at most
    /// `float32_call` bytes.
    pub fn with_float32_call(self, float32_call: u64) -> Plan {
        Plan { float32_call, ..self }
    }

    /// The plan of a drawing with the network calls of `sampling`, which compute in float32 on every device.
    pub fn of(draw: &Draw, sampling: SamplingDemand) -> Plan {
        let pixels = 3 * u64::from(draw.height) * u64::from(draw.width);
        // `pixels` is the number of bytes of a picture. An input picture takes six times this number: once for the
        // decoded picture, once for the resized picture, and four times for its values as float32. A finished picture
        // is in memory together with its file, which may have the same size.
        let inputs = draw.inputs().count() as u64 * 6 * pixels + original(draw);
        Plan::sampled(draw.n, draw.steps, sampling, 2 * pixels).with_held(inputs)
    }

    /// The plan of sounds with the network calls of `sampling`. Besides the states of the sampler, each sound holds
    /// this many numbers.
    pub fn of_sound(sound: &Sound, sampling: SamplingDemand, numbers: usize) -> Plan {
        Plan::sampled(sound.n, sound.steps, sampling, 4 * numbers as u64)
    }

    /// The plan of films with the network calls of `sampling`. Besides the states of the sampler, each film holds its
    /// frames and their file, and the picture that it begins with as float32 in two sizes. In addition, the generation
    /// holds the bytes of this picture.
    pub fn of_film(film: &Film, sampling: SamplingDemand) -> Plan {
        let pixels = 3 * u64::from(film.height) * u64::from(film.width);
        let picture = film.image.as_ref().map_or(0, |image| 3 * u64::from(image.width) * u64::from(image.height));
        Plan::sampled(film.n, film.steps, sampling, (2 * u64::from(film.frames) + 8) * pixels).with_held(picture)
    }

    /// The plan of `n` results, which take `finished` bytes each besides the states of the sampler.
    fn sampled(n: u32, steps: u32, sampling: SamplingDemand, finished: u64) -> Plan {
        let SamplingDemand { state, branches, calls, call, before, after } = sampling;
        let rows = n as usize * branches;
        let work = before.work + (calls * rows) as f64 * call.work + f64::from(n) * after.work;
        let state = 4 * state as u64;
        let (n, rows) = (u64::from(n), rows as u64);
        let log = LOG_BYTES.min(rows * state * u64::from(steps));
        let held = n * (STATES * state + finished) + rows * ROWS * state + log;
        let call = call.bytes.max(before.bytes).max(after.bytes);
        Plan { cost: work / 1e9, held, call, float32_call: call }
    }

    fn with_held(self, bytes: u64) -> Plan {
        Plan { held: self.held + bytes, ..self }
    }
}

/// The bytes of the pictures that stay in memory if only a part of the source picture is drawn: 10 for each pixel of
/// the source picture. The original and the result take 3 each, the drawn part at most 3, and its mask at most 1.
fn original(draw: &Draw) -> u64 {
    let source = draw.source.as_ref();
    let has_part = |source: &&Source| source.mask.as_ref().is_some_and(|mask| mask.padding_mask_crop.is_some());
    source.filter(has_part).map_or(0, |source| 10 * u64::from(source.image.width) * u64::from(source.image.height))
}

/// How many times the sampler of a request calls the denoiser for each row.
pub(super) fn calls(draw: &Draw, card: &ModelCard) -> usize {
    let stages = SchedulerConfig::overlay(&card.scheduler_config, &draw.scheduler).ok().and_then(|config| {
        let base = BaseSchedule { config: &config, is_distilled: card.guidance_embedding, flow: card.flow };
        // The refiner's scheduler is unknown here, so the refiner's steps count as steps of the base model.
        Stages::of(draw, base, None).ok()
    });
    stages.map_or(draw.steps as usize, |stages| stages.base.calls()).max(1)
}

/// As [`calls`], for a request for sounds.
pub(super) fn calls_of_sound(sound: &Sound, card: &ModelCard) -> usize {
    let config = SchedulerConfig::overlay(&card.scheduler_config, &sound.scheduler).ok();
    let schedule = config.and_then(|config| Schedule::of_sound(&config, sound).ok());
    schedule.map_or(sound.steps as usize, |schedule| schedule.calls()).max(1)
}

/// As [`calls`], for a request for films with this scheduler.
pub(super) fn calls_of(scheduler: &SchedulerChoice, steps: u32, card: &ModelCard) -> usize {
    let config = SchedulerConfig::overlay(&card.scheduler_config, scheduler).ok();
    let counted = config.and_then(|config| steps_and_calls(&config, steps as usize).ok());
    counted.map_or(steps as usize, |(_, calls)| calls).max(1)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        device::{FaultError, Layer, Script},
        kernels::Kernels,
    };

    #[test]
    fn a_call_in_float32_keeps_its_bytes_on_a_device_with_16_bits() {
        let half = Device::host().with_kernels(Kernels::REFERENCE).with_precision(Some(Precision::F16)).unwrap();
        let plan = Plan { call: 100, float32_call: 100, ..Plan::default() };
        assert_eq!((plan.call_on(&Device::host()), plan.call_on(&half)), (100, 100));
        assert_eq!(plan.with_float32_call(0).call_on(&half), 50);
        assert_eq!(plan.with_float32_call(80).call_on(&half), 80);
        assert_eq!(plan.with_float32_call(80).call_on(&Device::host()), 100);
    }

    #[derive(Debug)]
    struct OwnMemory;

    impl Script for OwnMemory {
        fn before(&self, _: Layer) -> Result<(), FaultError> {
            Ok(())
        }

        fn is_gpu(&self) -> bool {
            true
        }
    }

    #[test]
    fn activations_are_in_the_memory_of_the_host_only_on_a_cpu() {
        let plan = Plan { held: 10, call: 100, ..Plan::default() };
        assert_eq!(plan.on_host(&Device::host()).bytes(), 110);
        assert_eq!(plan.on_host(&Device::host().with_script(Arc::new(OwnMemory))).bytes(), 10);
    }
}
