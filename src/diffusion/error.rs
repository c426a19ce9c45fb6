//! What can go wrong in this room; each variant carries the data, the words are for the log.

/// A sampling run that ended without latents.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Scheduler(#[from] InvalidScheduler),
    #[error(transparent)]
    Steps(#[from] InvalidSteps),
    #[error("latents of shape {expected:?} were wanted, {got:?} came")]
    Shape { expected: [usize; 4], got: [usize; 4] },
    #[error("{len} values do not fill latents of shape {shape:?}")]
    Length { shape: [usize; 4], len: usize },
    #[error("variance_type is learned_range, and the network predicts no variance")]
    NoVariance,
    #[error("the latents are no longer finite")]
    NotFinite,
    /// The implementor of [`Denoise`](super::Denoise) has failed; its own error rides inside.
    #[error("the network gave no answer: {0}")]
    Denoiser(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A scheduler configuration, a model's or a request's, that cannot be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum InvalidScheduler {
    /// Neither the request nor the model's files name one.
    #[error("has no _class_name")]
    NoClass,
    #[error("unsupported scheduler class {class:?}")]
    UnsupportedClass { class: String },
    #[error("unknown scheduler name {name:?}")]
    UnknownName { name: String },
    /// Only keys of a request are checked; diffusers ignores a model file's foreign keys, and so do we.
    #[error("{class} has no key {key:?}")]
    UnknownKey { class: &'static str, key: String },
    #[error("{key} is {value}, it must be {bound}")]
    Value { key: String, value: String, bound: String },
    /// Keys which are legal one by one and not together.
    #[error("{keys} cannot be combined: {why}")]
    Conflict { keys: &'static str, why: &'static str },
}

/// A number of steps that the scheduler cannot run.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum InvalidSteps {
    #[error("{steps} steps are too few, {class} needs at least {min}")]
    TooFew { steps: usize, min: usize, class: &'static str },
    #[error("{steps} steps are too many, this scheduler configuration allows {max}")]
    TooMany { steps: usize, max: usize },
    #[error("timestep {t} of the schedule lies outside of the {num_train_timesteps} the model was trained on")]
    OutOfRange { t: f64, num_train_timesteps: usize },
    #[error("times steps must be at least 1, not {strength} · {steps}")]
    NothingLeft { steps: usize, strength: f64 },
    /// No step begins before the share at which the run ends.
    #[error("must be at least {least:.4} so that one of the {steps} steps comes before it, not {share}")]
    EndsEarly { steps: usize, share: f64, least: f64 },
    #[error("cannot be used with steps that begin at the last timestep")]
    BeginsAtEnd,
    /// No step begins after the share at which the run begins.
    #[error("must be below {bound:.4} so that one of the {steps} steps comes after it, not {share}")]
    BeginsAfterAll { steps: usize, share: f64, bound: f64 },
    #[error(
        "cannot leave out the first steps of {class} with Runge-Kutta steps; another scheduler can, and so can this one with skip_prk_steps true"
    )]
    BeginsLate { class: &'static str },
    #[error("{class} with this configuration takes no explicit {list}")]
    NoList { class: &'static str, list: &'static str },
    #[error("one level is no step, {class} needs at least two sigmas, of which the last is the end")]
    OneSigma { class: &'static str },
    #[error("explicit timesteps cannot be combined with levels that are spaced anew (karras, exponential, beta, Lu)")]
    ListAndRespacing,
    #[error("explicit timesteps must fall")]
    Rising,
    #[error(
        "the levels of this scheduler configuration depend on the size of the picture (use_dynamic_shifting), of which this model's pipeline says nothing"
    )]
    NoSize,
    /// At `α = 0` a predicted ε says nothing about x0.
    #[error(
        "the schedule starts at zero signal, where this scheduler cannot use the model's {prediction_type} prediction"
    )]
    ZeroSignal { prediction_type: &'static str },
    #[error("the noise levels of this scheduler configuration do not fall from a finite start")]
    Degenerate,
}
