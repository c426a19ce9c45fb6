//! Sums and maxima in sixteen lanes: a vector unit computes sixteen partial results at the same time. The partial
//! results are combined in a fixed order, so the result has the same bits on every machine.

pub(super) const LANES: usize = 16;

/// Σ f(x).
#[inline(always)]
pub(super) fn sum(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut sums = [0f32; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        sums.iter_mut().zip(chunk).for_each(|(sum, x)| *sum += f(*x));
    }
    sums.iter_mut().zip(rest).for_each(|(sum, x)| *sum += f(*x));
    fold(sums, |a, b| a + b)
}

/// Replaces each x by f(x) and returns the sum of the new values.
#[inline(always)]
pub(super) fn replace_and_sum(x: &mut [f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut sums = [0f32; LANES];
    let (chunks, rest) = x.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for (sum, x) in sums.iter_mut().zip(chunk) {
            *x = f(*x);
            *sum += *x;
        }
    }
    for (sum, x) in sums.iter_mut().zip(rest) {
        *x = f(*x);
        *sum += *x;
    }
    fold(sums, |a, b| a + b)
}

/// The largest value, or -∞ if there is none. NaN is skipped.
#[inline(always)]
pub(super) fn largest(x: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(lane, x)| *lane = larger(*lane, *x));
    }
    lanes.iter_mut().zip(rest).for_each(|(lane, x)| *lane = larger(*lane, *x));
    fold(lanes, larger)
}

/// Combines the lanes into one number: the second half of the lanes with the first half, until one lane is left. For a
/// short line, combining one lane after the other would take longer than the rest of the computation.
#[inline(always)]
fn fold(mut lanes: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> f32 {
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            lanes[i] = f(lanes[i], lanes[i + half]);
        }
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn like_one_after_the_other(mut x in prop::collection::vec(-1f32..1.0, 0..70)) {
            let exact = |f: fn(f64) -> f64| x.iter().map(|x| f(f64::from(*x))).sum::<f64>();
            let (plain, squares) = (exact(|x| x), exact(|x| x * x));
            prop_assert!((f64::from(sum(&x, |x| x)) - plain).abs() < 1e-4);
            prop_assert_eq!(largest(&x), x.iter().copied().fold(f32::NEG_INFINITY, f32::max));
            let before = x.clone();
            prop_assert!((f64::from(replace_and_sum(&mut x, |x| x * x)) - squares).abs() < 1e-4);
            prop_assert!(x.iter().zip(before).all(|(square, x)| *square == x * x));
        }
    }
}
