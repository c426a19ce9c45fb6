//! The tensors of a file by site, and the pairs that they make.

use std::collections::{BTreeMap, btree_map::Entry};

use super::{
    LARGEST_RANK, LoraMismatch, LowRank, Modules,
    key::{Half, Key},
    notes::Notes,
};
use crate::weights::{header::Header, tensors::floats};

/// What a file has for each site of a model.
pub(super) struct Entries<'a>(BTreeMap<&'a str, BTreeMap<Half, Values>>);

struct Values {
    shape: Vec<usize>,
    values: Vec<f32>,
}

impl<'a> Entries<'a> {
    /// The file's tensors, read; what is of no use is noted.
    pub fn sort(header: &Header, file: &[u8], modules: &'a Modules, mismatch: &mut LoraMismatch) -> Self {
        let mut sites: BTreeMap<&'a str, BTreeMap<Half, Values>> = BTreeMap::new();
        for (key, info) in &header.tensors {
            let (half, site) = match Key::read(key, modules) {
                Key::Of(half, site) => (half, site),
                Key::Elsewhere => {
                    mismatch.elsewhere.push(key.clone());
                    continue;
                }
                Key::Unknown => {
                    mismatch.unknown.push(key.clone());
                    continue;
                }
            };
            let Some(values) = floats(&file[info.bytes.clone()], info.dtype) else {
                mismatch.not_float.push((key.clone(), format!("{:?}", info.dtype)));
                continue;
            };
            match sites.entry(site).or_default().entry(half) {
                Entry::Vacant(place) => {
                    place.insert(Values { shape: info.shape.clone(), values });
                }
                Entry::Occupied(_) => mismatch.repeated.push(key.clone()),
            }
        }
        Self(sites)
    }

    /// The pairs; those that are none, or that do not fit their module, are noted.
    pub fn pair(self, modules: &Modules, notes: &Notes, mismatch: &mut LoraMismatch) -> BTreeMap<String, LowRank> {
        let mut pairs = BTreeMap::new();
        for (site, mut halves) in self.0 {
            // A tensor of the wrong type is no missing half: it has been named.
            let named = !mismatch.not_float.is_empty();
            let (down, up) = match (halves.remove(&Half::Down), halves.remove(&Half::Up)) {
                (Some(down), Some(up)) => (down, up),
                _ if named => continue,
                (None, None) => {
                    mismatch.halved.push((site.into(), "pair beside its alpha"));
                    continue;
                }
                (down, _) => {
                    mismatch.halved.push((site.into(), if down.is_some() { "up" } else { "down" }));
                    continue;
                }
            };
            let weight = modules.shape(site).unwrap_or_default();
            let noted = |rank| notes.scale(site, rank);
            match low_rank(weight, down, up, halves.remove(&Half::Alpha), noted) {
                Ok(pair) => drop(pairs.insert(site.to_owned(), pair)),
                Err(what) => mismatch.unfit.push((site.to_owned(), what)),
            }
        }
        pairs
    }
}

/// The pair for a module whose weight is (out, in) or (out, in, kh, kw).
fn low_rank(
    weight: &[usize],
    down: Values,
    up: Values,
    alpha: Option<Values>,
    noted: impl Fn(usize) -> f64,
) -> Result<LowRank, String> {
    let (
        Some((outputs, inputs, kernel)),
        Some((rank, down_inputs, down_kernel)),
        Some((up_outputs, up_rank, up_kernel)),
    ) = (convolution(weight), convolution(&down.shape), convolution(&up.shape))
    else {
        return Err(format!("down {:?} and up {:?} are not matrices or convolutions", down.shape, up.shape));
    };
    if (down_inputs, down_kernel) != (inputs, kernel) || (up_outputs, up_rank, up_kernel) != (outputs, rank, (1, 1)) {
        let (down, up) = (down.shape, up.shape);
        return Err(format!("down {down:?} and up {up:?} do not make a weight of {weight:?}"));
    }
    if !(1..=LARGEST_RANK).contains(&rank) {
        return Err(format!("the rank {rank} is not between 1 and {LARGEST_RANK}"));
    }
    let scale = match alpha.as_ref().map(|alpha| &alpha.values[..]) {
        None => noted(rank) as f32,
        Some([alpha]) => alpha / rank as f32,
        Some(values) => return Err(format!("alpha is {} numbers, expected one", values.len())),
    };
    if !scale.is_finite() {
        return Err(format!("alpha / rank = {scale} is not a finite number"));
    }
    Ok(LowRank { rank, inputs, outputs, kernel, down: down.values, up: up.values, scale })
}

/// A matrix as the convolution that it is: outputs, inputs and kernel.
fn convolution(shape: &[usize]) -> Option<(usize, usize, (usize, usize))> {
    match *shape {
        [outputs, inputs] => Some((outputs, inputs, (1, 1))),
        [outputs, inputs, kh, kw] => Some((outputs, inputs, (kh, kw))),
        _ => None,
    }
}
