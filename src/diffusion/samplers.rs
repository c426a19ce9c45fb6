//! The samplers. Each sampler has one file, which contains the description of its class and one async function that is
//! written like the algorithm in the sampler's paper.

use std::any::Any;

use super::denoiser::{Denoise, Denoiser};
use super::error::Error;
use super::latents::Latents;
use super::noise::Noise;
use super::schedule::Schedule;
use super::scheduler_config::{Class, Sampler};

mod consistency;
mod ddim;
mod ddpm;
mod deis;
mod dpm2;
mod dpm2_a;
mod dpm_multistep;
mod dpm_sde;
mod dpm_singlestep;
mod edm_dpm_multistep;
mod edm_euler;
mod euler;
mod euler_a;
mod exponential;
mod flow_euler;
mod flow_heun;
mod heun;
mod ipndm;
mod langevin;
mod lcm;
mod lms;
mod pndm;
mod sa_solver;
mod sde_ve;
mod sde_vp;
mod tcd;
mod uni_pc;

/// The inputs of a sampler.
pub(super) struct SamplerInputs<'a, D> {
    pub(super) network: &'a Denoiser<'a, D>,
    pub(super) schedule: &'a Schedule,
    /// In `[0, 1]`. For DDIM, the fraction of DDPM's noise that each step adds; for TCD, γ. Other samplers ignore it.
    pub(super) eta: f64,
    /// The first state, `(B, C, h, w)`.
    pub(super) x: Latents,
    pub(super) noise: &'a mut Noise,
}

/// The table of samplers. Each entry names the file of a sampler and the type of its options. The file describes the
/// sampler's class.
macro_rules! samplers {
    ($($file:ident::$options:ident),+ $(,)?) => {
        pub(super) static CLASSES: &[&Class] = &[$(&$file::CLASS),+];

        /// Runs the sampler and returns the latents of the finished pictures, of the same shape as the first state.
        pub(super) async fn sample<D: Denoise>(
            sampler: &dyn Sampler,
            run: SamplerInputs<'_, D>,
        ) -> Result<Latents, Error> {
            let options: &dyn Any = sampler;
            $(
                if let Some(options) = options.downcast_ref::<$file::$options>() {
                    return $file::sample(options, run).await;
                }
            )+
            unreachable!("every sampler was made by a class of this table")
        }
    };
}

// `GET /v1/schedulers` lists the classes in this order. The last four classes have no short name.
samplers![
    ddpm::Ddpm,
    ddim::Ddim,
    pndm::Pndm,
    euler::Euler,
    euler_a::EulerAncestral,
    heun::Heun,
    lms::Lms,
    dpm2::Dpm2,
    dpm2_a::Dpm2Ancestral,
    dpm_multistep::DpmMultistep,
    dpm_singlestep::DpmSinglestep,
    dpm_sde::DpmSde,
    uni_pc::UniPc,
    deis::Deis,
    lcm::Lcm,
    tcd::Tcd,
    sa_solver::SaSolver,
    ipndm::Ipndm,
    edm_euler::EdmEuler,
    flow_euler::FlowEuler,
    flow_heun::FlowHeun,
    edm_dpm_multistep::EdmDpmMultistep,
    consistency::Consistency,
    sde_ve::ScoreSdeVe,
    sde_vp::ScoreSdeVp,
];
