//! The samplers: one file each, one async function, written as the algorithm box of its paper.

mod ddim;
mod ddpm;
mod deis;
mod dpm2;
mod dpm_multistep;
mod dpm_singlestep;
mod euler;
mod euler_a;
mod exponential;
mod heun;
mod lcm;
mod lms;
mod pndm;
mod tcd;
mod uni_pc;

pub(super) use ddim::ddim;
pub(super) use ddpm::ddpm;
pub(super) use deis::deis;
pub(super) use dpm_multistep::dpm_multistep;
pub(super) use dpm_singlestep::dpm_singlestep;
pub(super) use dpm2::dpm2;
pub(super) use euler::euler;
pub(super) use euler_a::euler_a;
pub(super) use heun::heun;
pub(super) use lcm::lcm;
pub(super) use lms::lms;
pub(super) use pndm::pndm;
pub(super) use tcd::tcd;
pub(super) use uni_pc::uni_pc;
