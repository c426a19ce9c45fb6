//! The product of planes.

use super::{
    Unit, dot,
    factors::Factors,
    planes::{Left, PLANES, Right},
    tiles,
};
use crate::block::Block;

/// out = left · right or out += left · right. The columns of `out` are those of the first panels of `right`; the last
/// of these panels may have fewer than 16 columns.
pub(crate) fn multiply(left: &Left, right: &Right, out: &mut Block<'_>, add: bool) {
    assert_eq!(left.lines(), out.lines());
    let offsets: Vec<usize> = (0..left.steps).map(|step| left.offset(0, step)).collect();
    multiply_at(left, &offsets, right, out, add);
}

/// As [`multiply`], with the first lines of `left`. Step i of `right` is multiplied by the numbers that lie `offsets[i]`
/// bytes ([`Left::offset`]) after the beginning of each line.
pub(crate) fn multiply_at(left: &Left, offsets: &[usize], right: &Right, out: &mut Block<'_>, add: bool) {
    assert_eq!(right.steps, offsets.len());
    let furthest = offsets.iter().max().copied().unwrap_or(0) / left.stride();
    assert!(furthest + out.lines() <= left.lines());
    let factors = Factors { left, offsets, right };
    match (left.planes, right.planes) {
        (1, 1) => with::<1, 1>(factors, out, add),
        (PLANES, 1) => with::<PLANES, 1>(factors, out, add),
        (PLANES, PLANES) => with::<PLANES, PLANES>(factors, out, add),
        planes => unreachable!("no way has {planes:?} planes"),
    }
}

/// With L planes of the left matrix and R of the right one. Of the products of planes p and q, those with p + q ≥ L are
/// left out.
fn with<const L: usize, const R: usize>(factors: Factors<'_>, out: &mut Block<'_>, add: bool) {
    match factors.left.unit {
        Unit::Amx => tiles::multiply::<L, R>(factors, out, add),
        Unit::Dot => dot::multiply::<L, R>(factors, out, add),
    }
}
