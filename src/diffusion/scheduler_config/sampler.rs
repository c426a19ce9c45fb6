//! The trait of sampling algorithms with their options: what a schedule and a run need from them.

use std::{any::Any, fmt::Debug, ops::Range};

use super::SchedulerConfig;
use crate::diffusion::error::InvalidSteps;
use crate::diffusion::point::Point;
use crate::diffusion::sigmas::Respacing;
use crate::diffusion::step_source::StepSource;

/// A sampling algorithm with its options, which are the options of one of diffusers' scheduler classes with the values
/// of a configuration.
pub(in crate::diffusion) trait Sampler: Same + Debug + Send + Sync {
    /// The points of a schedule, one per step and one for the end, and the factor that scales unit noise to the first
    /// state. Fails if the sampler cannot run the steps.
    fn levels(&self, config: &SchedulerConfig, step_source: StepSource<'_>) -> Result<(Vec<Point>, f64), InvalidSteps>;

    /// The point of every network call of a run, in order.
    fn timeline(&self, run: &RunPoints<'_>) -> Vec<Point> {
        run.once()
    }

    /// For a run that starts from a picture: `strength` selects the last part of the noise levels, and the result is
    /// the points of `steps` steps within this part. `None` if the run instead takes the last of the steps of the whole
    /// schedule.
    fn compressed(
        &self,
        _config: &SchedulerConfig,
        _steps: usize,
        _strength: f64,
    ) -> Option<Result<Vec<Point>, InvalidSteps>> {
        None
    }

    fn respacing(&self) -> Option<Respacing> {
        None
    }

    fn label(&self) -> Label {
        Label::FirstName
    }

    /// Whether a run whose last step ends at a timestep below 0 ends at the noise level of timestep 0. If not, it ends
    /// without noise.
    fn ends_at_first_timestep(&self) -> bool {
        false
    }

    /// Whether a run starts with three Runge-Kutta steps. No such step can be left out.
    fn has_runge_kutta_steps(&self) -> bool {
        false
    }

    /// Whether the steps go from the picture to noise, so the noise level rises from step to step.
    fn is_rising(&self) -> bool {
        false
    }

    /// Whether the network must also predict the variance of each step.
    fn learns_variance(&self) -> bool {
        false
    }
}

impl PartialEq for dyn Sampler {
    fn eq(&self, other: &dyn Sampler) -> bool {
        self.is_same(other)
    }
}

/// Comparison of two samplers of unknown types: whether they are the same algorithm with the same options.
pub(in crate::diffusion) trait Same: Any {
    fn is_same(&self, other: &dyn Any) -> bool;
}

impl<T: Any + PartialEq> Same for T {
    fn is_same(&self, other: &dyn Any) -> bool {
        other.downcast_ref::<T>() == Some(self)
    }
}

/// The name of a sampler in AUTOMATIC1111's web interface, or its substitute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::diffusion) enum Label {
    /// The web interface has the sampler and lets users choose its noise levels.
    WithLevels(&'static str),
    /// The web interface has the sampler with fixed noise levels.
    AtOwnLevels(&'static str),
    /// The web interface has no such sampler. The substitute is this name of the API.
    Name(&'static str),
    /// The web interface has no such sampler. The substitute is the first API name of the class, or diffusers' class
    /// name if there is no API name.
    FirstName,
    /// The web interface has no such sampler. The substitute is always diffusers' class name.
    Class,
}

/// The points of a run, from which a sampler computes the point of every network call.
pub(in crate::diffusion) struct RunPoints<'a> {
    pub config: &'a SchedulerConfig,
    /// The points of the whole schedule, including the end.
    pub points: &'a [Point],
    /// Range of the steps that the run takes.
    pub run: Range<usize>,
    /// The length of a step in training timesteps: `⌊T/n⌋`.
    pub stride: f64,
}

impl RunPoints<'_> {
    /// The start points of all steps up to the end of the run, including those before the run.
    pub(in crate::diffusion) fn begins(&self) -> &[Point] {
        &self.points[..self.run.end]
    }

    /// One call per step.
    pub(in crate::diffusion) fn once(&self) -> Vec<Point> {
        self.times(1)
    }

    /// `calls` calls per step, all at the start point of the step.
    pub(in crate::diffusion) fn times(&self, calls: usize) -> Vec<Point> {
        self.begins()[self.run.start..].iter().flat_map(|point| std::iter::repeat_n(*point, calls)).collect()
    }

    /// One call at the start and one at the end of each step; the last step of the whole schedule has only the call at
    /// its start.
    pub(in crate::diffusion) fn at_both_ends(&self) -> Vec<Point> {
        let pairs = self.points[self.run.start..=self.run.end].windows(2).flatten().copied();
        let calls = 2 * self.run.len() - usize::from(self.run.end == self.points.len() - 1);
        pairs.take(calls).collect()
    }
}
