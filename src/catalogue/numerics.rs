//! A digest of everything besides the request that determines the bits of a generation's network outputs.

use sha2::{Digest, Sha256};

use super::Catalogue;
use crate::{
    device::Device,
    executable,
    generation::{Job, Precision},
    kernels::{self, bf16::Unit},
};

/// If two digests are equal, the same generation gets network outputs with the same bits. (With
/// [`Rows::Together`](kernels::Rows::Together), the last bits also depend on the other generations in its batches.) The
/// digest covers the build, the vector unit, the hardware of the device, the kernels and their settings, the precision,
/// and the files of the model and of everything else that the request names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numerics([u8; 32]);

impl Numerics {
    /// The digest of this process for a generation whose models are in the memory of `device`.
    pub fn of(job: &Job, catalogue: &Catalogue, device: &Device) -> Numerics {
        let mut parts = vec![
            executable::digest().to_owned(),
            kernels::isa().to_owned(),
            device.hardware(),
            format!("{:?}", device.kernels()),
            device.precision().name().to_owned(),
            catalogue.fingerprint(&job.model),
        ];
        if job.precision == Precision::Fast {
            parts.push(format!("fast: {}", kernels::bf16::of_fast().map_or("float32", Unit::name)));
        }
        let refiner = job.work.draw().and_then(|draw| draw.refiner.as_ref());
        parts.extend(refiner.map(|refiner| catalogue.fingerprint(&refiner.model)));
        parts.extend(job.work.control_nets().map(|name| catalogue.control_nets().fingerprint(name)));
        parts.extend(catalogue.adapters().fingerprints(&job.model, &job.work));
        let mut digest = Sha256::new();
        for part in parts {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        }
        Numerics(digest.finalize().into())
    }

    pub fn from_bytes(bytes: [u8; 32]) -> Numerics {
        Numerics(bytes)
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}
