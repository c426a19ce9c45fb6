//! Sorts the tensors of a LoRA file by site and combines the two matrices of each site, down and up, into a pair. Only
//! the header of the file is used.

use std::collections::BTreeMap;

use super::{
    LARGEST_RANK, LoraMismatch, Modules,
    key::{Half, LoraKey},
    modules::Target,
    pair::{Pair, is_number},
};
use crate::weights::{
    header::{Header, Info},
    numbers::is_float,
};

/// The tensors of a file for each site of a model.
pub(super) struct Entries<'a>(BTreeMap<&'a str, OfSite>);

/// The tensors of a site. If several sites share a tensor, each site has its part of the tensor.
#[derive(Default)]
struct OfSite {
    halves: BTreeMap<Half, Info>,
    /// Whether the two halves of the up matrix's rows are in the opposite order.
    is_swapped: bool,
}

impl<'a> Entries<'a> {
    /// Sorts the usable tensors of the file by site. Faults are added to `mismatch`.
    pub fn sort(header: &'a Header, modules: &'a Modules, mismatch: &mut LoraMismatch) -> Self {
        let mut sites: BTreeMap<&'a str, OfSite> = BTreeMap::new();
        for (key, info) in &header.tensors {
            let (half, targets) = match LoraKey::read(key, modules) {
                LoraKey::Of(half, targets) => (half, targets),
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
            for target in targets {
                let Some(part) = part(half, info, &target) else {
                    let what = format!("{:?} cannot be divided among the layers of the model", info.shape);
                    mismatch.unfit.push((key.clone(), what));
                    break;
                };
                let of_site = sites.entry(target.site).or_default();
                of_site.is_swapped |= half == Half::Up && target.slice.is_some_and(|slice| slice.is_swapped);
                if of_site.halves.insert(half, part).is_some() {
                    mismatch.repeated.push(key.clone());
                    break;
                }
            }
        }
        Self(sites)
    }

    /// The pairs by site. Sites without a complete pair, or with a pair that does not fit the module, are added to
    /// `mismatch`.
    pub fn pair(self, modules: &Modules, mismatch: &mut LoraMismatch) -> BTreeMap<&'a str, Pair> {
        let mut pairs = BTreeMap::new();
        for (site, OfSite { mut halves, is_swapped }) in self.0 {
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
                Ok(pair) => drop(pairs.insert(site, Pair { is_swapped, ..pair })),
                Err(what) => mismatch.unfit.push((site.to_owned(), what)),
            }
        }
        pairs
    }
}

const NO_UP: &str = "a down matrix and no up matrix";
const NO_DOWN: &str = "an up matrix and no down matrix";

/// Makes the pair for a module whose weight is (out, in) or (out, in, kh, kw).
fn pair(weight: &[usize], down: Info, up: Info, alpha: Option<Info>) -> Result<Pair, String> {
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
    if let Some(alpha) = &alpha
        && alpha.shape.iter().any(|axis| *axis != 1)
    {
        return Err(format!("alpha is of shape {:?}, expected one number", alpha.shape));
    }
    Ok(Pair { rank, inputs, outputs, kernel, down, up, alpha, is_swapped: false })
}

/// The part of a tensor for one of its modules: some rows of an up matrix, and all of another tensor. `None` if the
/// rows cannot be divided.
fn part(half: Half, info: &Info, target: &Target<'_>) -> Option<Info> {
    let Some(slice) = target.slice.as_ref().filter(|_| half == Half::Up) else { return Some(info.clone()) };
    let mut part = info.clone();
    let (rows, bytes) = slice.rows(*info.shape.first()?, &info.bytes)?;
    part.shape[0] = rows;
    Some(Info { bytes, ..part })
}

/// Outputs, inputs and kernel of a weight. A matrix is a convolution with the kernel (1, 1).
fn convolution(shape: &[usize]) -> Option<(usize, usize, (usize, usize))> {
    match *shape {
        [outputs, inputs] => Some((outputs, inputs, (1, 1))),
        [outputs, inputs, kh, kw] => Some((outputs, inputs, (kh, kw))),
        _ => None,
    }
}
