//! A sampling algorithm with its options set: what a schedule and a run need of it.

use std::{any::Any, fmt::Debug, ops::Range};

use super::SchedulerConfig;
use crate::diffusion::course::Course;
use crate::diffusion::error::InvalidSteps;
use crate::diffusion::point::Point;
use crate::diffusion::sigmas::Respacing;

/// The options of a class as a configuration sets them, and what follows from them.
pub(in crate::diffusion) trait Sampler: Same + Debug + Send + Sync {
    /// The points of a run, one per step and one for the end, and by how much unit noise is multiplied to become the first
    /// state.
    fn levels(&self, config: &SchedulerConfig, course: Course<'_>) -> Result<(Vec<Point>, f64), InvalidSteps>;

    /// The point of every network call of a run, in order.
    fn timeline(&self, run: &RunPoints<'_>) -> Vec<Point> {
        run.once()
    }

    /// The points of all steps within the part of the schedule that a picture of this `strength` begins in; `None` where such
    /// a run takes the last steps of the whole schedule.
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

    /// Whether the level below timestep 0, where the last step may end, is that of timestep 0 and not the picture itself.
    fn ends_at_first_timestep(&self) -> bool {
        false
    }

    /// Whether a run begins with three Runge-Kutta steps, of which none can be left out.
    fn has_runge_kutta_steps(&self) -> bool {
        false
    }

    /// Whether a run goes from the picture to noise.
    fn is_rising(&self) -> bool {
        false
    }

    /// Whether the network must predict the variance of each step.
    fn learns_variance(&self) -> bool {
        false
    }
}

impl PartialEq for dyn Sampler {
    fn eq(&self, other: &dyn Sampler) -> bool {
        self.is_same(other)
    }
}

/// Whether two samplers of unknown types are one algorithm with the same options.
pub(in crate::diffusion) trait Same: Any {
    fn is_same(&self, other: &dyn Any) -> bool;
}

impl<T: Any + PartialEq> Same for T {
    fn is_same(&self, other: &dyn Any) -> bool {
        other.downcast_ref::<T>() == Some(self)
    }
}

/// The name that AUTOMATIC1111's web interface has for a sampler, or the one that stands in for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::diffusion) enum Label {
    /// The interface has the sampler, and lets its noise levels be chosen.
    WithLevels(&'static str),
    /// The interface has the sampler at its own noise levels.
    AtOwnLevels(&'static str),
    /// The interface has no such sampler; this name of the API stands for it.
    Name(&'static str),
    /// The interface has no such sampler; the first name of its class stands for it, or the class where it has none.
    FirstName,
    /// Neither the interface nor the API has a name for it; the class stands for it.
    Class,
}

/// The points of a run, for samplers that ask the network more often than once a step.
pub(in crate::diffusion) struct RunPoints<'a> {
    pub config: &'a SchedulerConfig,
    /// The points of the whole schedule, with the end.
    pub points: &'a [Point],
    /// Which of the steps are taken.
    pub run: Range<usize>,
    /// `⌊T/n⌋` training timesteps.
    pub stride: f64,
}

impl RunPoints<'_> {
    /// Where the steps up to the run's end begin, from the first of the whole schedule.
    pub(in crate::diffusion) fn begins(&self) -> &[Point] {
        &self.points[..self.run.end]
    }

    /// One call a step.
    pub(in crate::diffusion) fn once(&self) -> Vec<Point> {
        self.times(1)
    }

    /// So many calls in each step, all at the point that it begins at.
    pub(in crate::diffusion) fn times(&self, calls: usize) -> Vec<Point> {
        self.begins()[self.run.start..].iter().flat_map(|point| std::iter::repeat_n(*point, calls)).collect()
    }

    /// A call at both ends of each step; the last step of a whole schedule has one.
    pub(in crate::diffusion) fn at_both_ends(&self) -> Vec<Point> {
        let pairs = self.points[self.run.start..=self.run.end].windows(2).flatten().copied();
        let calls = 2 * self.run.len() - usize::from(self.run.end == self.points.len() - 1);
        pairs.take(calls).collect()
    }
}
