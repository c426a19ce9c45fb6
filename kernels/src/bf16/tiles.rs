//! The product of planes on AMX.

use super::{
    amx::Session,
    factors::{Factors, LINE},
    tile::{LINES, RightTile},
};
use crate::{block::Block, gemm::WIDTH};

pub(super) fn multiply<const L: usize, const R: usize>(factors: Factors<'_>, out: &mut Block<'_>, add: bool) {
    let (groups, panels) = (out.lines().div_ceil(LINES), out.columns().div_ceil(WIDTH));
    let session = Session::begin();
    // All panels are multiplied by the same lines one after another, so that these lines stay in the L1 cache.
    for group in (0..groups).step_by(2) {
        let a = [group, groups.min(group + 2) - 1].map(|group| factors.line::<L>(group * LINES));
        for panel in (0..panels).step_by(2) {
            let b = [panel, panels.min(panel + 2) - 1].map(|panel| factors.panel::<R>(panel));
            corners(&session, out, [group, panel], add, Access::Load);
            sum(&session, factors, a, b);
            corners(&session, out, [group, panel], add, Access::Store);
        }
    }
}

/// Adds the products of two groups of lines and two panels to the four tiles of sums.
#[inline(always)]
fn sum<const L: usize, const R: usize>(
    session: &Session,
    factors: Factors<'_>,
    a: [[*const u8; L]; 2],
    b: [&[[RightTile; R]]; 2],
) {
    let stride = factors.stride();
    for ((&offset, b0), b1) in factors.offsets.iter().zip(b[0]).zip(b[1]) {
        for q in 0..R {
            // SAFETY: tiles have 16 lines of 64 bytes.
            unsafe {
                session.load::<4>((&raw const b0[q]).cast(), LINE);
                session.load::<5>((&raw const b1[q]).cast(), LINE);
            }
            for p in 0..L - q {
                // SAFETY: `Factors::line` promises it.
                unsafe {
                    session.load::<6>(a[0][p].wrapping_add(offset), stride);
                    session.load::<7>(a[1][p].wrapping_add(offset), stride);
                }
                session.dot::<0, 6, 4>();
                session.dot::<1, 6, 5>();
                session.dot::<2, 7, 4>();
                session.dot::<3, 7, 5>();
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Load,
    Store,
}

/// Loads or stores the four tiles of sums: two groups of lines times two panels. Tiles outside the result are left out.
#[inline(always)]
fn corners(session: &Session, out: &mut Block<'_>, [group, panel]: [usize; 2], add: bool, access: Access) {
    corner::<0>(session, out, [group, panel], add, access);
    corner::<1>(session, out, [group, panel + 1], add, access);
    corner::<2>(session, out, [group + 1, panel], add, access);
    corner::<3>(session, out, [group + 1, panel + 1], add, access);
}

#[inline(always)]
fn corner<const T: u8>(session: &Session, out: &mut Block<'_>, [group, panel]: [usize; 2], add: bool, access: Access) {
    let (line, column) = (group * LINES, panel * WIDTH);
    let (lines, columns) =
        (out.lines().saturating_sub(line).min(LINES), out.columns().saturating_sub(column).min(WIDTH));
    if access == Access::Load && !add {
        session.zero::<T>();
        return;
    }
    if lines == 0 || columns == 0 {
        return;
    }
    if lines == LINES && columns == WIDTH {
        let (first, stride) = out.rectangle(line..line + LINES, column..column + WIDTH);
        // SAFETY: the rectangle has 16 lines of 16 values, and `out` is borrowed mutably.
        unsafe {
            match access {
                Access::Load => session.load::<T>(first.cast(), stride * size_of::<f32>()),
                Access::Store => session.store::<T>(first.cast(), stride * size_of::<f32>()),
            }
        }
        return;
    }
    let mut sums = [[0f32; WIDTH]; LINES];
    if access == Access::Load {
        for i in 0..lines {
            sums[i][..columns].copy_from_slice(&out.line(line + i)[column..column + columns]);
        }
        // SAFETY: `sums` has 16 lines of 16 values.
        unsafe { session.load::<T>(sums.as_ptr().cast(), WIDTH * size_of::<f32>()) };
        return;
    }
    // SAFETY: as above.
    unsafe { session.store::<T>(sums.as_mut_ptr().cast(), WIDTH * size_of::<f32>()) };
    for i in 0..lines {
        out.line(line + i)[column..column + columns].copy_from_slice(&sums[i][..columns]);
    }
}
