//! Matrix products on AMX, the matrix unit of Intel's server processors since 2023 (Sapphire Rapids).
//!
//! The unit multiplies bfloat16 numbers, which have 8 bits of mantissa, and sums in float32. A float32 has 24 bits of
//! mantissa, so it is exactly the sum of three bfloat16 numbers: its *planes*. A product of two float32 numbers is the
//! sum of the products of their planes; the three smallest of these nine products are left out, because together they
//! are less than a rounding error of a float32 product. Weights that are stored in bfloat16 have one plane, also after
//! their conversion to float32, so three products are enough, and they are exact.
//!
//! Each element is summed over k in ascending order, in steps of 32, and within a step plane by plane. So the bits of
//! an element depend neither on the number of lines or threads nor on the other lines, but they are not those of the
//! other kernels. Therefore [`turn_on`] is called only if the setting `kernels.matrix_unit` asks for the matrix unit.

mod planes;
mod product;
mod unit;

use std::sync::atomic::{AtomicBool, Ordering};

pub(super) use planes::{Left, PLANES, Right, planes_of};
pub(super) use product::multiply;

/// Whether products use the matrix unit.
static IS_ON: AtomicBool = AtomicBool::new(false);

/// Lets all linear layers and attention in this process use the matrix unit, if the machine has one. Call this function
/// before the first product. Returns whether the machine has one.
pub fn turn_on() -> bool {
    let is_there = unit::is_available();
    IS_ON.store(is_there, Ordering::Relaxed);
    is_there
}

/// Whether linear layers and attention use the matrix unit.
pub(super) fn is_on() -> bool {
    IS_ON.load(Ordering::Relaxed)
}
