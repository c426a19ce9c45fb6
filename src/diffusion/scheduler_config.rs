//! A scheduler: how the model was trained and which sampler runs it, as diffusers' `scheduler_config.json` says it.

use serde_json::{Map, Value};

use super::betas::Betas;
use super::error::InvalidScheduler;
use super::prediction::{Clip, Prediction};
use super::sigmas::{Respacing, SigmaRange};
use super::spacing::Spacing;
use flow::Flow;
use keys::Keys;

mod class;
pub(super) mod flow;
pub(super) mod keys;
mod options;
mod sde;
mod solvers;

pub(super) use class::Class;
pub(super) use sde::{ScoreSdeVe, ScoreSdeVp};

/// A checked scheduler configuration; whatever exists of it can be run, only the number of steps is open.
#[derive(Debug, Clone, PartialEq)]
pub struct SchedulerConfig {
    pub(super) sampler: Sampler,
    pub(super) betas: Betas,
    pub(super) prediction: Prediction,
    pub(super) spacing: Spacing,
    pub(super) steps_offset: usize,
    /// Levels of flow matching in place of those of the betas.
    pub(super) flow: Option<Flow>,
    /// Of levels that are spaced anew.
    pub(super) range: SigmaRange,
}

/// The sampling algorithm with the options which are its own.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Sampler {
    Ddpm { variance: Variance, clip: Clip },
    Ddim(Ddim),
    Pndm { set_alpha_to_one: bool, skip_prk_steps: bool },
    Euler(EulerLevels),
    EulerAncestral,
    Heun { respacing: Option<Respacing>, clip: Clip },
    Lms { respacing: Option<Respacing> },
    Dpm2 { respacing: Option<Respacing>, ancestral: bool },
    DpmMultistep(DpmMultistep),
    DpmSinglestep(DpmSinglestep),
    UniPc(UniPc),
    Deis(Deis),
    Lcm { original_inference_steps: usize, timestep_scaling: f64, clip: Clip },
    Tcd { original_inference_steps: usize },
    Ipndm,
    DpmSde { respacing: Option<Respacing>, seed: Option<u64> },
    SaSolver(SaSolver),
    EdmEuler(EdmLevels),
    EdmDpmMultistep(EdmLevels, DpmMultistep),
    FlowEuler { respacing: Option<Respacing>, inverted: bool, stochastic: bool },
    FlowHeun,
    Consistency(Consistency),
    ScoreSdeVe(ScoreSdeVe),
    ScoreSdeVp(ScoreSdeVp),
}

impl Sampler {
    /// Whether a run begins with three Runge-Kutta steps, of which none can be left out.
    pub(super) fn has_runge_kutta_steps(&self) -> bool {
        matches!(self, Sampler::Pndm { skip_prk_steps: false, .. })
    }
}

/// The options of `DDIMScheduler`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Ddim {
    /// Whether the last step ends without noise, or at the first training timestep.
    pub(super) set_alpha_to_one: bool,
    pub(super) clip: Clip,
    /// Whether ε is taken from the clipped x0, and not from the network.
    pub(super) use_clipped_model_output: bool,
}

/// diffusers' `variance_type` of DDPM: the posterior's variance `β̃`, that of the step, `β`, or what the network says between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Variance {
    Small,
    Large,
    LearnedRange,
}

/// Where the last step ends: without noise, or at the level of timestep 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FinalSigma {
    Zero,
    SigmaMin,
}

/// How `EulerDiscreteScheduler` chooses its noise levels; the default is that of its whole family.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct EulerLevels {
    pub(super) respacing: Option<Respacing>,
    pub(super) log_linear: bool,
    /// Timesteps are `0.25 ln σ`.
    pub(super) continuous: bool,
    pub(super) end: FinalSigma,
}

/// The options of `DPMSolverMultistepScheduler`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct DpmMultistep {
    pub(super) respacing: Option<Respacing>,
    /// Whether karras and Lu timesteps are rounded before they are cut to whole ones; not so with cosine betas.
    pub(super) rounded: bool,
    pub(super) lambda_min_clipped: f64,
    pub(super) end: FinalSigma,
    pub(super) clip: Clip,
    pub(super) solver: DpmSolver,
}

/// The options of `DPMSolverSinglestepScheduler`; `solver.lower_order_final` says how the orders end.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct DpmSinglestep {
    pub(super) respacing: Option<Respacing>,
    pub(super) lambda_min_clipped: f64,
    pub(super) end: FinalSigma,
    pub(super) clip: Clip,
    pub(super) solver: DpmSolver,
}

/// The options of `UniPCMultistepScheduler`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct UniPc {
    pub(super) respacing: Option<Respacing>,
    pub(super) end: FinalSigma,
    pub(super) clip: Clip,
    /// 1 to 3.
    pub(super) order: usize,
    /// `B(h) = h` (bh1), else `e^h − 1` (bh2).
    pub(super) bh1: bool,
    pub(super) predict_x0: bool,
    pub(super) lower_order_final: bool,
    /// Steps, counted from 0, after which nothing is corrected.
    pub(super) disable_corrector: Vec<usize>,
}

/// The options of `DEISMultistepScheduler`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Deis {
    pub(super) respacing: Option<Respacing>,
    pub(super) clip: Clip,
    /// 1 to 3.
    pub(super) order: usize,
    pub(super) lower_order_final: bool,
}

/// The options of `SASolverScheduler`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SaSolver {
    pub(super) respacing: Option<Respacing>,
    pub(super) lambda_min_clipped: f64,
    pub(super) clip: Clip,
    /// 1 to 4, both.
    pub(super) predictor_order: usize,
    pub(super) corrector_order: usize,
    pub(super) predict_x0: bool,
    pub(super) lower_order_final: bool,
}

/// How the EDM classes choose their levels (table 1 of Karras et al. 2022, arXiv:2206.00364).
#[derive(Debug, Clone, PartialEq)]
pub(super) struct EdmLevels {
    pub(super) sigma_min: f64,
    pub(super) sigma_max: f64,
    pub(super) rho: f64,
    /// Even in `ln σ`, else by ρ.
    pub(super) exponential: bool,
    pub(super) end: FinalSigma,
}

/// The options of `CMStochasticIterativeScheduler`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Consistency {
    pub(super) sigma_min: f64,
    pub(super) sigma_max: f64,
    pub(super) rho: f64,
    pub(super) s_noise: f64,
    pub(super) clip: Clip,
}

/// Which solution of the exponential integral a DPM-Solver step takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DpmSolver {
    /// 1 to 3.
    pub(super) order: usize,
    /// Integrates x0 (DPM-Solver++), else ε (DPM-Solver).
    pub(super) plus_plus: bool,
    /// The stochastic equation, with a draw of noise in every step.
    pub(super) sde: bool,
    /// `solver_type: heun`, else midpoint; of second order only.
    pub(super) heun: bool,
    pub(super) lower_order_final: bool,
    pub(super) euler_at_final: bool,
}

impl SchedulerConfig {
    /// What counts in a `scheduler_config.json`: all keys but those that `_use_default_values` names.  diffusers lists there
    /// which values were defaults of the class that wrote them, and any class that reads them takes its own.
    #[must_use]
    pub fn given(mut file: Map<String, Value>) -> Map<String, Value> {
        for key in file.remove("_use_default_values").as_ref().and_then(Value::as_array).into_iter().flatten() {
            key.as_str().and_then(|key| file.remove(key));
        }
        file
    }

    /// Makes the scheduler one of the class that `model_index.json` names, as in diffusers, whatever the scheduler's own file
    /// says. Returns a note where they differ.
    pub fn take_class(index: &Map<String, Value>, scheduler_config: &mut Map<String, Value>) -> Option<String> {
        let class = index.get("scheduler")?.get(1)?.as_str()?;
        let written = scheduler_config.insert("_class_name".into(), class.into());
        let other = written.as_ref().and_then(Value::as_str).filter(|written| *written != class)?;
        Some(format!(
            "the scheduler is a {class}, by model_index.json, as in diffusers; scheduler/scheduler_config.json was written for \
             a {other}"
        ))
    }

    /// Reads what is [given](Self::given) in a model's `scheduler_config.json`.  Keys which the class does not have are
    /// ignored, and a key that is missing or null takes the default of its class; a flag that is null is false.
    pub fn from_model(model: &Map<String, Value>) -> Result<SchedulerConfig, InvalidScheduler> {
        SchedulerConfig::of_class(Class::of(model)?, Keys(model))
    }

    pub(super) fn of_class(class: Class, keys: Keys<'_>) -> Result<SchedulerConfig, InvalidScheduler> {
        let sampler = match class {
            Class::Ddpm => Sampler::Ddpm { variance: keys.variance()?, clip: keys.clip(true)? },
            Class::Ddim => Sampler::Ddim(Ddim {
                set_alpha_to_one: keys.flag("set_alpha_to_one", true)?,
                clip: keys.clip(true)?,
                use_clipped_model_output: keys.flag("use_clipped_model_output", false)?,
            }),
            Class::Pndm => Sampler::Pndm {
                set_alpha_to_one: keys.flag("set_alpha_to_one", false)?,
                skip_prk_steps: keys.flag("skip_prk_steps", false)?,
            },
            Class::Euler => Sampler::Euler(keys.euler_levels()?),
            Class::EulerAncestral => Sampler::EulerAncestral,
            Class::Heun => Sampler::Heun { respacing: keys.respacing()?, clip: keys.clip_sample(false)? },
            Class::Lms => Sampler::Lms { respacing: keys.respacing()? },
            Class::Dpm2 => Sampler::Dpm2 { respacing: keys.respacing()?, ancestral: false },
            Class::Dpm2Ancestral => Sampler::Dpm2 { respacing: keys.respacing()?, ancestral: true },
            Class::DpmMultistep => Sampler::DpmMultistep(keys.dpm_multistep()?),
            Class::DpmSinglestep => Sampler::DpmSinglestep(keys.dpm_singlestep()?),
            Class::UniPc => Sampler::UniPc(keys.uni_pc()?),
            Class::Deis => Sampler::Deis(keys.deis()?),
            Class::Lcm => Sampler::Lcm {
                original_inference_steps: keys.original_inference_steps()?,
                timestep_scaling: keys.positive("timestep_scaling")?.unwrap_or(10.0),
                clip: keys.clip(false)?,
            },
            // diffusers' class reads the keys of thresholding and clipping, and does neither.
            Class::Tcd => Sampler::Tcd { original_inference_steps: keys.original_inference_steps()? },
            Class::Ipndm => keys.ipndm()?,
            Class::DpmSde => Sampler::DpmSde { respacing: keys.respacing()?, seed: keys.noise_sampler_seed()? },
            Class::SaSolver => Sampler::SaSolver(keys.sa_solver()?),
            Class::EdmEuler => Sampler::EdmEuler(keys.edm_levels()?),
            Class::EdmDpmMultistep => Sampler::EdmDpmMultistep(keys.edm_levels()?, keys.edm_dpm_multistep()?),
            Class::FlowEuler => Sampler::FlowEuler {
                respacing: keys.respacing()?,
                inverted: keys.flag("invert_sigmas", false)?,
                stochastic: keys.flag("stochastic_sampling", false)?,
            },
            Class::FlowHeun => Sampler::FlowHeun,
            Class::Consistency => Sampler::Consistency(keys.consistency()?),
            Class::ScoreSdeVe => Sampler::ScoreSdeVe(keys.score_sde_ve()?),
            Class::ScoreSdeVp => Sampler::ScoreSdeVp(keys.score_sde_vp()?),
        };
        Ok(SchedulerConfig {
            sampler,
            betas: keys.betas(class)?,
            prediction: keys.prediction(class)?,
            spacing: keys.spacing(class)?,
            steps_offset: keys.integer("steps_offset", 0, 0, keys::MAX_TRAIN_TIMESTEPS)?,
            flow: keys.flow(class)?,
            range: keys.sigma_range(class)?,
        })
    }

    /// The class of diffusers that this configuration stands for.
    pub fn class_name(&self) -> &'static str {
        match self.sampler {
            Sampler::Ddpm { .. } => Class::Ddpm,
            Sampler::Ddim(_) => Class::Ddim,
            Sampler::Pndm { .. } => Class::Pndm,
            Sampler::Euler(_) => Class::Euler,
            Sampler::EulerAncestral => Class::EulerAncestral,
            Sampler::Heun { .. } => Class::Heun,
            Sampler::Lms { .. } => Class::Lms,
            Sampler::Dpm2 { ancestral: false, .. } => Class::Dpm2,
            Sampler::Dpm2 { ancestral: true, .. } => Class::Dpm2Ancestral,
            Sampler::DpmMultistep(_) => Class::DpmMultistep,
            Sampler::DpmSinglestep(_) => Class::DpmSinglestep,
            Sampler::UniPc(_) => Class::UniPc,
            Sampler::Deis(_) => Class::Deis,
            Sampler::Lcm { .. } => Class::Lcm,
            Sampler::Tcd { .. } => Class::Tcd,
            Sampler::Ipndm => Class::Ipndm,
            Sampler::DpmSde { .. } => Class::DpmSde,
            Sampler::SaSolver(_) => Class::SaSolver,
            Sampler::EdmEuler(_) => Class::EdmEuler,
            Sampler::EdmDpmMultistep(..) => Class::EdmDpmMultistep,
            Sampler::FlowEuler { .. } => Class::FlowEuler,
            Sampler::FlowHeun => Class::FlowHeun,
            Sampler::Consistency(_) => Class::Consistency,
            Sampler::ScoreSdeVe(_) => Class::ScoreSdeVe,
            Sampler::ScoreSdeVp(_) => Class::ScoreSdeVp,
        }
        .name()
    }

    /// The same scheduler with flow levels shifted for pictures of one size, where it shifts by size
    /// (`use_dynamic_shifting`); `mu` is diffusers' number for the size.
    #[must_use]
    pub fn shifted(mut self, mu: f64) -> SchedulerConfig {
        self.flow = self.flow.map(|flow| flow.at(mu));
        self
    }

    /// What the model predicts.
    pub fn prediction(&self) -> Prediction {
        self.prediction
    }

    /// Whether the network must predict the variance of each step, beside what it predicts of the picture.
    pub fn learns_variance(&self) -> bool {
        matches!(self.sampler, Sampler::Ddpm { variance: Variance::LearnedRange, .. })
    }

    /// `T`.
    pub fn num_train_timesteps(&self) -> usize {
        self.betas.alphas_cumprod().len()
    }

    /// The noise of training, after a rescaling to zero terminal SNR if the configuration asks for one.
    pub fn betas(&self) -> &Betas {
        &self.betas
    }
}

impl EulerLevels {
    /// Those of the classes without options of their own.
    pub(super) fn plain(respacing: Option<Respacing>) -> EulerLevels {
        EulerLevels { respacing, log_linear: false, continuous: false, end: FinalSigma::Zero }
    }
}
