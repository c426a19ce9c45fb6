//! The samplers: one file each, one async function, written as the algorithm box of its paper.

mod ddim;
mod ddpm;
mod dpm_multistep;
mod euler;
mod euler_a;
mod heun;
mod pndm;

pub(super) use ddim::ddim;
pub(super) use ddpm::ddpm;
pub(super) use dpm_multistep::dpm_multistep;
pub(super) use euler::euler;
pub(super) use euler_a::euler_a;
pub(super) use heun::heun;
pub(super) use pndm::pndm;
