//! The cost model: a straight line through the batch curve.

use super::report::{Cost, Point};

/// Fits `batch_s = a + b · rows` with `a ≥ 0` and `b ≥ 0` by least squares of the relative errors, so that small
/// batches count as much as large batches. `None` if no point has both a positive time and a positive number of rows.
pub fn fit(curve: &[Point]) -> Option<Cost> {
    let points: Vec<(f64, f64)> =
        curve.iter().map(|point| (point.rows, point.batch_s)).filter(|(rows, s)| *rows > 0.0 && *s > 0.0).collect();
    // Minimizes Σ w (a + b·r − s)² with the weights w = 1 / s². The minimum solves two linear equations for a and b.
    let sum = |of: fn(f64, f64) -> f64| points.iter().map(|(r, s)| of(*r, *s) / (s * s)).sum::<f64>();
    let (w, wr, ws) = (sum(|_, _| 1.0), sum(|r, _| r), sum(|_, s| s));
    let (wrr, wrs) = (sum(|r, _| r * r), sum(|r, s| r * s));
    if wrr <= 0.0 {
        return None;
    }
    let determinant = w * wrr - wr * wr;
    let through_zero = (0.0, wrs / wrr);
    // With one number of rows, every line through the point fits; the model then has no constant part.
    let (a, b) = match determinant > 1e-9 * w * wrr {
        true => ((ws * wrr - wr * wrs) / determinant, (w * wrs - wr * ws) / determinant),
        false => through_zero,
    };
    let (a, b) = if a < 0.0 {
        through_zero
    } else if b < 0.0 {
        (ws / w, 0.0)
    } else {
        (a, b)
    };
    let max_error = points.iter().map(|(r, s)| ((a + b * r) / s - 1.0).abs()).fold(0.0, f64::max);
    Some(Cost { a_s: a, b_s: b, max_error })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn point(rows: f64, batch_s: f64) -> Point {
        let (images, images_per_s) = (1, 1.0);
        Point { images, rows, batch_s, step_s: batch_s, encode_s: 0.0, decode_s: 0.0, images_per_s, repeats: 1 }
    }

    proptest! {
        #[test]
        fn a_line_is_found_again(a in 0.0..2.0f64, b in 0.001..2.0f64, most in 1u32..6) {
            let curve: Vec<Point> = (0..=most).map(|i| 2f64.powi(i as i32)).map(|r| point(r, a + b * r)).collect();
            let cost = fit(&curve).unwrap();
            prop_assert!((cost.a_s - a).abs() < 1e-6 && (cost.b_s - b).abs() < 1e-6, "{cost:?}");
            prop_assert!(cost.max_error < 1e-6);
        }

        #[test]
        fn no_part_of_the_cost_is_negative(times in prop::collection::vec(0.001..10.0f64, 1..6)) {
            let curve: Vec<Point> = times.iter().enumerate().map(|(i, s)| point(2.0 * (i + 1) as f64, *s)).collect();
            let cost = fit(&curve).unwrap();
            prop_assert!(cost.a_s >= 0.0 && cost.b_s >= 0.0 && cost.a_s + cost.b_s > 0.0, "{cost:?}");
        }
    }

    #[test]
    fn one_point_has_no_constant_part() {
        assert_eq!(fit(&[point(2.0, 1.0)]), Some(Cost { a_s: 0.0, b_s: 0.5, max_error: 0.0 }));
        assert_eq!(fit(&[]), None);
    }
}
