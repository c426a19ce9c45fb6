//! Errors of sampling and of scheduler configurations. Each variant carries its data.

use crate::generation::Shown;

/// Why a sampling run ended without latents.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Scheduler(#[from] InvalidScheduler),
    #[error(transparent)]
    Steps(#[from] InvalidSteps),
    #[error("expected latents of shape {expected:?}, got {got:?}")]
    Shape { expected: [usize; 4], got: [usize; 4] },
    #[error("{len} values do not fill latents of shape {shape:?}")]
    Length { shape: [usize; 4], len: usize },
    #[error("variance_type is learned_range, but the network predicts no variance")]
    NoVariance,
    #[error("the latents are no longer finite")]
    NotFinite,
    /// The implementation of [`Denoise`](super::Denoise) failed; contains its error.
    #[error("the network gave no answer: {0}")]
    Denoiser(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Why the scheduler configuration of a model or of a request cannot be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum InvalidScheduler {
    /// Neither the request nor the model's files name a class.
    #[error("has no _class_name")]
    NoClass,
    #[error("unsupported scheduler class {class:?}")]
    UnsupportedClass { class: String },
    #[error("unknown scheduler name {name:?}")]
    UnknownName { name: String },
    /// The request contains a key that the class does not have. In a model's file, such keys are ignored, as in
    /// diffusers.
    #[error("{class} has no key {key:?}")]
    UnknownKey { class: &'static str, key: String },
    #[error("{key} is {value}, it must be {bound}")]
    Value { key: String, value: String, bound: String },
    /// Keys that are valid alone but not together.
    #[error("{keys} cannot be combined: {why}")]
    Conflict { keys: &'static str, why: &'static str },
}

/// Why a number of steps, a list of levels or a part of a schedule cannot be run. Texts without a subject follow the
/// name of a field or the words "this scheduler".
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum InvalidSteps {
    #[error("{steps} steps are too few, {class} needs at least {min}")]
    TooFew { steps: usize, min: usize, class: &'static str },
    #[error("{steps} steps are too many, this scheduler configuration allows {max}")]
    TooMany { steps: usize, max: usize },
    #[error("timestep {t} of the schedule is not one of the {num_train_timesteps} that the model was trained on")]
    OutOfRange { t: f64, num_train_timesteps: usize },
    #[error("times steps must be at least 1, not {} · {steps}", Shown(*strength))]
    NothingLeft { steps: usize, strength: f64 },
    /// The run ends after the fraction `share` of the schedule, but no step begins earlier.
    #[error("must be at least {least:.4} so that one of the {steps} steps comes before it, not {}", Shown(*share))]
    EndsEarly { steps: usize, share: f64, least: f64 },
    /// The run ends before the end of the schedule, but its first step begins at timestep 0.
    #[error("cannot be used, because the first step begins at timestep 0, and no step comes before it")]
    BeginsAtEnd,
    /// The run begins after the fraction `share` of the schedule, but no step begins later.
    #[error("must be below {bound:.4} so that one of the {steps} steps comes after it, not {}", Shown(*share))]
    BeginsAfterAll { steps: usize, share: f64, bound: f64 },
    #[error(
        "cannot leave out the Runge-Kutta steps with which {class} starts; use another scheduler, or set \
         skip_prk_steps to true"
    )]
    BeginsLate { class: &'static str },
    #[error("{class} with this configuration takes no explicit {list}")]
    NoList { class: &'static str, list: &'static str },
    #[error("{class} needs at least two sigmas, because the last one is where the last step ends")]
    OneSigma { class: &'static str },
    #[error(
        "explicit timesteps cannot be combined with a spacing of noise levels (karras, exponential, beta, Lu), nor \
         with timestep_type continuous"
    )]
    ListAndRespacing,
    #[error("explicit timesteps must fall")]
    Rising,
    #[error(
        "with use_dynamic_shifting, the levels of this scheduler configuration depend on the picture size, but this \
         model's pipeline does not pass the size to its scheduler"
    )]
    NoSize,
    /// At `α = 0` a predicted ε does not determine x0.
    #[error(
        "the schedule starts at zero signal, where this scheduler cannot use the model's {prediction_type} prediction"
    )]
    ZeroSignal { prediction_type: &'static str },
    #[error("the noise levels of this scheduler configuration do not fall from a finite first level")]
    Degenerate,
}
