//! The product of planes.

use super::{
    Left, PLANES, Right,
    planes::{LINES, LeftTile, RightTile, STEP},
    unit,
};
use crate::{block::Block, gemm::WIDTH};

/// out = left · right or out += left · right. The columns of `out` are those of the first panels of `right`; the last
/// of these panels may have fewer than 16 columns.
pub(crate) fn multiply(left: &Left, right: &Right, out: &mut Block<'_>, add: bool) {
    assert_eq!((left.steps, left.lines), (right.steps, out.lines()));
    let (groups, panels) = (out.lines().div_ceil(LINES), out.columns().div_ceil(WIDTH));
    let session = unit::Session::begin();
    // All panels are multiplied by the same lines one after another, because a line has more tiles than a panel.
    for group in (0..groups).step_by(2) {
        let a = [group, groups.min(group + 2) - 1].map(|group| left.group(group));
        for panel in (0..panels).step_by(2) {
            let b = [panel, panels.min(panel + 2) - 1].map(|panel| right.panel(panel));
            corners(&session, out, [group, panel], add, Access::Load);
            match right.planes {
                1 => sum::<1>(&session, a, b),
                _ => sum::<PLANES>(&session, a, b),
            }
            corners(&session, out, [group, panel], add, Access::Store);
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
fn corners(session: &unit::Session, out: &mut Block<'_>, [group, panel]: [usize; 2], add: bool, access: Access) {
    corner::<0>(session, out, [group, panel], add, access);
    corner::<1>(session, out, [group, panel + 1], add, access);
    corner::<2>(session, out, [group + 1, panel], add, access);
    corner::<3>(session, out, [group + 1, panel + 1], add, access);
}

#[inline(always)]
fn corner<const T: u8>(
    session: &unit::Session,
    out: &mut Block<'_>,
    [group, panel]: [usize; 2],
    add: bool,
    access: Access,
) {
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

/// Adds the products of two groups of lines and two panels to the four tiles of sums.
#[inline(always)]
fn sum<const P: usize>(session: &unit::Session, a: [&[[LeftTile; PLANES]]; 2], b: [&[RightTile]; 2]) {
    const LINE: usize = STEP * size_of::<u16>();
    let b = b.map(|tiles| tiles.as_chunks::<P>().0);
    for (((a0, a1), b0), b1) in a[0].iter().zip(a[1]).zip(b[0]).zip(b[1]) {
        for q in 0..P {
            // SAFETY: tiles have 16 lines of 64 bytes.
            unsafe {
                session.load::<4>((&raw const b0[q]).cast(), LINE);
                session.load::<5>((&raw const b1[q]).cast(), LINE);
            }
            // The products of planes p and q with p + q > 2 are left out.
            for p in 0..PLANES - q {
                // SAFETY: as above.
                unsafe {
                    session.load::<6>((&raw const a0[p]).cast(), LINE);
                    session.load::<7>((&raw const a1[p]).cast(), LINE);
                }
                session.dot::<0, 6, 4>();
                session.dot::<1, 6, 5>();
                session.dot::<2, 7, 4>();
                session.dot::<3, 7, 5>();
            }
        }
    }
}
