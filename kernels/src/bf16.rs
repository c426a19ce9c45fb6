//! Matrix products with bfloat16 numbers, for processors that multiply these faster than float32 numbers.
//!
//! A bfloat16 number has 8 bits of mantissa; products are summed in float32. A float32 number has 24 bits of mantissa,
//! so it is exactly the sum of three bfloat16 numbers: its *planes*. There are two ways to use them:
//!
//! - *Exact*: A product of two float32 numbers is the sum of the products of their planes; the three smallest of these
//!   nine products are left out, because together they are less than a rounding error of a float32 product. Weights that
//!   are stored in bfloat16 have one plane, also after their conversion to float32, so three products are enough, and
//!   they are exact. The bits are not those of the other kernels. So [`turn_on`] is called only if the setting
//!   `kernels.matrix_unit` asks for it.
//! - *Fast* ([`Precision::Fast`]): Only the first plane is multiplied, so all numbers are rounded to 8 bits.
//!
//! Each element is summed over k in ascending order, in steps of 32, and within a step plane by plane. So the bits of an
//! element depend neither on the number of lines or threads nor on the other lines.

mod amx;
mod dot;
mod factors;
mod half;
mod planes;
mod product;
#[cfg(test)]
mod tests;
mod tile;
mod tiles;

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

pub(super) use planes::{Left, PLANES, Right, planes_of};
pub(super) use product::{multiply, multiply_at};
pub(super) use tile::STEP;

use crate::precision::Precision;

/// What multiplies bfloat16 numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// AMX, the matrix unit of Intel's server processors since 2023 (Sapphire Rapids).
    Amx,
    /// The dot products of AVX-512 (AVX512-BF16): AMD since Zen 4, Intel's server processors since Cooper Lake.
    Dot,
}

impl Unit {
    pub const ALL: [Unit; 2] = [Unit::Amx, Unit::Dot];

    /// Whether the machine has the unit and the system lets this process use it.
    pub fn is_available(self) -> bool {
        match self {
            Unit::Amx => amx::is_available(),
            Unit::Dot => dot::is_available(),
        }
    }

    /// The name in settings and logs.
    pub fn name(self) -> &'static str {
        match self {
            Unit::Amx => "amx",
            Unit::Dot => "avx512_bf16",
        }
    }
}

/// Whether exact products use AMX.
static IS_ON: AtomicBool = AtomicBool::new(false);

/// The unit of fast products: its position in [`Unit::ALL`], or [`NONE`].
static FAST: AtomicU8 = AtomicU8::new(NONE);
const NONE: u8 = u8::MAX;

/// Lets all exact linear layers and attention in this process use AMX, if the machine has it. Call this function before
/// the first product. Returns whether the machine has AMX.
pub fn turn_on() -> bool {
    let is_there = Unit::Amx.is_available();
    IS_ON.store(is_there, Ordering::Relaxed);
    is_there
}

/// Whether exact linear layers and attention use AMX.
pub(super) fn is_on() -> bool {
    IS_ON.load(Ordering::Relaxed)
}

/// Lets all fast products in this process use this unit, or none: then they are computed as exact products. Call this
/// function before the first product.
///
/// # Panics
/// The machine does not have the unit.
pub fn use_for_fast(unit: Option<Unit>) {
    assert!(unit.is_none_or(Unit::is_available));
    FAST.store(unit.map_or(NONE, |unit| unit as u8), Ordering::Relaxed);
}

/// The unit of fast products; `None` if they are computed as exact products.
pub fn of_fast() -> Option<Unit> {
    Unit::ALL.get(usize::from(FAST.load(Ordering::Relaxed))).copied()
}

/// The fewest lines of a row for which fast products are faster.
const FEW: usize = 4;

/// How an operation computes its products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// In float32.
    Wide,
    /// With at most this many planes of each number, on this unit.
    Planes(Unit, usize),
}

impl Way {
    /// The way of an operation that this thread begins.
    pub fn current() -> Self {
        match (Precision::current(), of_fast()) {
            (Precision::Fast, Some(unit)) => Way::Planes(unit, 1),
            _ if is_on() => Way::Planes(Unit::Amx, PLANES),
            _ => Way::Wide,
        }
    }

    /// The way of an operation whose rows have `lines` lines each. Rows of few lines are computed exactly, because it
    /// takes as long to split the weights into planes as to multiply them.
    pub fn for_rows_of(lines: usize) -> Self {
        match lines {
            FEW.. => Self::current(),
            _ => Precision::Exact.during(Self::current),
        }
    }

    /// Whether numbers are rounded.
    pub fn rounds(self) -> bool {
        matches!(self, Way::Planes(_, planes) if planes < PLANES)
    }
}
