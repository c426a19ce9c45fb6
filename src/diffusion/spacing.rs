//! Which training timesteps a run visits, from high to low (table 2 of Lin et al. 2023, arXiv:2305.08891).

use super::error::InvalidSteps;

/// diffusers' `timestep_spacing`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spacing {
    Linspace,
    Leading,
    Trailing,
}

impl Spacing {
    /// Chooses `steps` of the `train` timesteps. `whole` rounds the timesteps of linspace to integers, as DDPM, DDIM
    /// and PNDM do; the Euler family keeps fractional timesteps, in float32. Fails if there are more steps than
    /// timesteps.
    pub(super) fn timesteps(
        self,
        train: usize,
        steps: usize,
        offset: usize,
        whole: bool,
    ) -> Result<Vec<f64>, InvalidSteps> {
        if steps > train {
            return Err(InvalidSteps::TooMany { steps, max: train });
        }
        Ok(match self {
            Spacing::Linspace => {
                let t = linspace((train - 1) as f64, steps).rev();
                t.map(|t| if whole { t.round_ties_even() } else { f64::from(t as f32) }).collect()
            }
            Spacing::Leading => (0..steps).rev().map(|i| (i * (train / steps) + offset) as f64).collect(),
            Spacing::Trailing => trailing(train, train, steps),
        })
    }

    /// The timesteps of the DPM-Solver classes. `Linspace` and `Leading` choose `steps + 1` timesteps and leave out the
    /// lowest one. Only the lowest `kept` of the `train` timesteps are used; `Trailing` may therefore return fewer than
    /// `steps` timesteps. Fails if there are more steps than timesteps to use.
    pub(super) fn dpm_timesteps(
        self,
        kept: usize,
        train: usize,
        steps: usize,
        offset: usize,
    ) -> Result<Vec<f64>, InvalidSteps> {
        let max = if self == Spacing::Leading { kept.saturating_sub(1) } else { kept };
        if steps > max {
            return Err(InvalidSteps::TooMany { steps, max });
        }
        Ok(match self {
            Spacing::Linspace => {
                let t = linspace((kept - 1) as f64, steps + 1).rev().take(steps);
                t.map(f64::round_ties_even).collect()
            }
            Spacing::Leading => (1..=steps).rev().map(|i| (i * (kept / (steps + 1)) + offset) as f64).collect(),
            Spacing::Trailing => trailing(kept, train, steps),
        })
    }
}

/// `numpy.linspace(0, stop, count)`.
fn linspace(stop: f64, count: usize) -> impl DoubleEndedIterator<Item = f64> + ExactSizeIterator {
    let last = count - 1;
    let step = if last > 0 { stop / last as f64 } else { 0.0 };
    (0..count).map(move |i| if i == last && last > 0 { stop } else { i as f64 * step })
}

/// `numpy.arange(kept, 0, -train / steps)`, rounded, minus one. Where `train / steps` is rounded down, numpy returns
/// one value too many, timestep -1; this function leaves this timestep out.
fn trailing(kept: usize, train: usize, steps: usize) -> Vec<f64> {
    let start = kept as f64;
    let step = start - (start - train as f64 / steps as f64);
    let t = (0..steps).map(|i| start - i as f64 * step).take_while(|t| *t > 0.0);
    t.map(|t| t.round_ties_even() - 1.0).filter(|t| *t >= 0.0).collect()
}
