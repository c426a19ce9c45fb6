//! Stable Diffusion and its relatives.

pub(crate) mod card;
mod networks;
