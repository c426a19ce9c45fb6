//! Sorts the tensors of a LoRA file by site and combines the two matrices of each site, down and up, into a pair. Only
//! the header of the file is used.

use std::collections::{BTreeMap, btree_map::Entry};

use super::{
    LARGEST_RANK, LoraMismatch, Modules,
    key::{Half, LoraKey},
    pair::{Pair, is_number},
};
use crate::weights::{
    header::{Header, Info},
    numbers::is_float,
};

/// The tensors of a file for each site of a model.
pub(super) struct Entries<'a>(BTreeMap<&'a str, BTreeMap<Half, &'a Info>>);

impl<'a> Entries<'a> {
    /// Sorts the usable tensors of the file by site. Faults are added to `mismatch`.
    pub fn sort(header: &'a Header, modules: &'a Modules, mismatch: &mut LoraMismatch) -> Self {
        let mut sites: BTreeMap<&'a str, BTreeMap<Half, &'a Info>> = BTreeMap::new();
        for (key, info) in &header.tensors {
            let (half, site) = match LoraKey::read(key, modules) {
                LoraKey::Of(half, site) => (half, site),
                LoraKey::Elsewhere => {
                    mismatch.elsewhere.push(key.clone());
                    continue;
                }
                LoraKey::Unsupported(kind) => {
                    mismatch.unsupported.push((key.clone(), kind));
                    continue;
                }
                LoraKey::Unknown => {
                    mismatch.unknown.push(key.clone());
                    continue;
                }
            };
            // Some trainers write α as an integer.
            let fits = if half == Half::Alpha { is_number(info.dtype) } else { is_float(info.dtype) };
            if !fits {
                mismatch.not_float.push((key.clone(), info.dtype.to_string()));
                continue;
            }
            match sites.entry(site).or_default().entry(half) {
                Entry::Vacant(place) => drop(place.insert(info)),
                Entry::Occupied(_) => mismatch.repeated.push(key.clone()),
            }
        }
        Self(sites)
    }

    /// The pairs by site. Sites without a complete pair, or with a pair that does not fit the module, are added to
    /// `mismatch`.
    pub fn pair(self, modules: &Modules, mismatch: &mut LoraMismatch) -> BTreeMap<&'a str, Pair<'a>> {
        let mut pairs = BTreeMap::new();
        for (site, mut halves) in self.0 {
            // If tensors of a wrong type were reported, an incomplete pair is probably a consequence of these tensors
            // and is not reported.
            let named = !mismatch.not_float.is_empty();
            let (down, up) = match (halves.remove(&Half::Down), halves.remove(&Half::Up)) {
                (Some(down), Some(up)) => (down, up),
                _ if named => continue,
                (None, None) => {
                    mismatch.halved.push((site.into(), "an alpha and no matrices"));
                    continue;
                }
                (down, _) => {
                    mismatch.halved.push((site.into(), if down.is_some() { NO_UP } else { NO_DOWN }));
                    continue;
                }
            };
            let weight = modules.shape(site).unwrap_or_default();
            match pair(weight, down, up, halves.remove(&Half::Alpha)) {
                Ok(pair) => drop(pairs.insert(site, pair)),
                Err(what) => mismatch.unfit.push((site.to_owned(), what)),
            }
        }
        pairs
    }
}

const NO_UP: &str = "a down matrix and no up matrix";
const NO_DOWN: &str = "an up matrix and no down matrix";

/// Makes the pair for a module whose weight is (out, in) or (out, in, kh, kw).
fn pair<'a>(weight: &[usize], down: &'a Info, up: &'a Info, alpha: Option<&'a Info>) -> Result<Pair<'a>, String> {
    let (
        Some((outputs, inputs, kernel)),
        Some((rank, down_inputs, down_kernel)),
        Some((up_outputs, up_rank, up_kernel)),
    ) = (convolution(weight), convolution(&down.shape), convolution(&up.shape))
    else {
        return Err(format!("down {:?} and up {:?} are not matrices or convolutions", down.shape, up.shape));
    };
    if (down_inputs, down_kernel) != (inputs, kernel) || (up_outputs, up_rank, up_kernel) != (outputs, rank, (1, 1)) {
        let (down, up) = (&down.shape, &up.shape);
        return Err(format!("down {down:?} and up {up:?} do not fit the model's weight {weight:?}"));
    }
    if !(1..=LARGEST_RANK).contains(&rank) {
        return Err(format!("the rank {rank} is not between 1 and {LARGEST_RANK}"));
    }
    if let Some(alpha) = alpha
        && alpha.shape.iter().any(|axis| *axis != 1)
    {
        return Err(format!("alpha is of shape {:?}, expected one number", alpha.shape));
    }
    Ok(Pair { rank, inputs, outputs, kernel, down, up, alpha })
}

/// Outputs, inputs and kernel of a weight. A matrix is a convolution with the kernel (1, 1).
fn convolution(shape: &[usize]) -> Option<(usize, usize, (usize, usize))> {
    match *shape {
        [outputs, inputs] => Some((outputs, inputs, (1, 1))),
        [outputs, inputs, kh, kw] => Some((outputs, inputs, (kh, kw))),
        _ => None,
    }
}
