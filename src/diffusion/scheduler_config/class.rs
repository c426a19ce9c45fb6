//! The scheduler classes of diffusers.

use serde_json::{Map, Value};

use super::keys;
use crate::diffusion::error::InvalidScheduler;

/// The classes which this build has.  A new one is a variant here, its keys in `keys.rs` and `options.rs`, its algorithm in
/// `samplers/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::diffusion) enum Class {
    Ddpm,
    Ddim,
    Pndm,
    Ipndm,
    Euler,
    EulerAncestral,
    Heun,
    Lms,
    Dpm2,
    Dpm2Ancestral,
    DpmSde,
    DpmMultistep,
    DpmSinglestep,
    UniPc,
    Deis,
    SaSolver,
    Lcm,
    Tcd,
    EdmEuler,
    EdmDpmMultistep,
    FlowEuler,
    FlowHeun,
    Consistency,
    ScoreSdeVe,
    ScoreSdeVp,
}

/// Classes with the keys and the steps of another one, and with steps for many timesteps at once, which no pipeline of Stable
/// Diffusion takes.
const PARALLEL: [(&str, Class); 2] = [("DDIMParallelScheduler", Class::Ddim), ("DDPMParallelScheduler", Class::Ddpm)];

impl Class {
    const ALL: [Class; 25] = [
        Class::Ddpm,
        Class::Ddim,
        Class::Pndm,
        Class::Ipndm,
        Class::Euler,
        Class::EulerAncestral,
        Class::Heun,
        Class::Lms,
        Class::Dpm2,
        Class::Dpm2Ancestral,
        Class::DpmSde,
        Class::DpmMultistep,
        Class::DpmSinglestep,
        Class::UniPc,
        Class::Deis,
        Class::SaSolver,
        Class::Lcm,
        Class::Tcd,
        Class::EdmEuler,
        Class::EdmDpmMultistep,
        Class::FlowEuler,
        Class::FlowHeun,
        Class::Consistency,
        Class::ScoreSdeVe,
        Class::ScoreSdeVp,
    ];

    /// The class that `_class_name` names.
    pub(in crate::diffusion) fn of(map: &Map<String, Value>) -> Result<Class, InvalidScheduler> {
        let named = map.get("_class_name").filter(|named| !named.is_null()).ok_or(InvalidScheduler::NoClass)?;
        let unsupported = || InvalidScheduler::UnsupportedClass { class: keys::beginning(named) };
        let name = named.as_str().ok_or_else(unsupported)?;
        let others = || PARALLEL.into_iter().find(|(other, _)| *other == name).map(|(_, class)| class);
        Class::ALL.into_iter().find(|class| class.name() == name).or_else(others).ok_or_else(unsupported)
    }

    pub(in crate::diffusion) fn name(self) -> &'static str {
        match self {
            Class::Ddpm => "DDPMScheduler",
            Class::Ddim => "DDIMScheduler",
            Class::Pndm => "PNDMScheduler",
            Class::Ipndm => "IPNDMScheduler",
            Class::Euler => "EulerDiscreteScheduler",
            Class::EulerAncestral => "EulerAncestralDiscreteScheduler",
            Class::Heun => "HeunDiscreteScheduler",
            Class::Lms => "LMSDiscreteScheduler",
            Class::Dpm2 => "KDPM2DiscreteScheduler",
            Class::Dpm2Ancestral => "KDPM2AncestralDiscreteScheduler",
            Class::DpmSde => "DPMSolverSDEScheduler",
            Class::DpmMultistep => "DPMSolverMultistepScheduler",
            Class::DpmSinglestep => "DPMSolverSinglestepScheduler",
            Class::UniPc => "UniPCMultistepScheduler",
            Class::Deis => "DEISMultistepScheduler",
            Class::SaSolver => "SASolverScheduler",
            Class::Lcm => "LCMScheduler",
            Class::Tcd => "TCDScheduler",
            Class::EdmEuler => "EDMEulerScheduler",
            Class::EdmDpmMultistep => "EDMDPMSolverMultistepScheduler",
            Class::FlowEuler => "FlowMatchEulerDiscreteScheduler",
            Class::FlowHeun => "FlowMatchHeunDiscreteScheduler",
            Class::Consistency => "CMStochasticIterativeScheduler",
            Class::ScoreSdeVe => "ScoreSdeVeScheduler",
            Class::ScoreSdeVp => "ScoreSdeVpScheduler",
        }
    }
}
