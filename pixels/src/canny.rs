//! Edges of a picture (Canny 1986, doi:10.1109/TPAMI.1986.4767851), with the same pixels as OpenCV's `Canny`.

use super::{GreyImage, RgbImage};

/// The state of a pixel while edges are followed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    /// Not an edge.
    No,
    /// On a ridge; becomes an edge if it is connected to an edge.
    Maybe,
    Edge,
}

/// tan 22.5° in units of 2⁻¹⁵.
const TAN_22: i64 = 13573;

/// Returns a picture that is white on the edges of `picture`, and black elsewhere. Edges are ridges of the gradient
/// above `high`, and ridges above `low` that are connected to an edge. The size of the gradient is |dx| + |dy| of
/// Sobel's 3 × 3 operator, in the channel where this sum is largest.
pub fn canny(picture: &RgbImage, low: i32, high: i32) -> GreyImage {
    let (width, height) = (picture.width as usize, picture.height as usize);
    let gradients: Vec<(i32, i32)> =
        (0..width * height).map(|at| gradient(picture, at % width.max(1), at / width.max(1))).collect();
    let size = |x: i64, y: i64| match (usize::try_from(x), usize::try_from(y)) {
        (Ok(x), Ok(y)) if x < width && y < height => {
            let (dx, dy) = gradients[y * width + x];
            dx.abs() + dy.abs()
        }
        _ => 0,
    };
    let mut marks = vec![Mark::No; width * height];
    let mut open = Vec::new();
    for (at, mark) in marks.iter_mut().enumerate() {
        let (x, y) = ((at % width) as i64, (at / width) as i64);
        let own = size(x, y);
        if own <= low || !is_ridge(own, gradients[at], |dx, dy| size(x + dx, y + dy)) {
            continue;
        }
        *mark = Mark::Maybe;
        if own > high {
            *mark = Mark::Edge;
            open.push(at);
        }
    }
    while let Some(at) = open.pop() {
        let (x, y) = (at % width, at / width);
        for y in y.saturating_sub(1)..(y + 2).min(height) {
            for x in x.saturating_sub(1)..(x + 2).min(width) {
                let neighbour = &mut marks[y * width + x];
                if *neighbour == Mark::Maybe {
                    *neighbour = Mark::Edge;
                    open.push(y * width + x);
                }
            }
        }
    }
    let pixels = marks.into_iter().map(|mark| if mark == Mark::Edge { 255 } else { 0 }).collect();
    GreyImage { width: picture.width, height: picture.height, pixels }
}

/// Whether a pixel's gradient is larger than the gradients of its two neighbors in the direction of the gradient. If
/// two neighboring pixels have equal gradients, the left or upper pixel is the ridge; if they are diagonal neighbors,
/// neither is.
fn is_ridge(own: i32, (dx, dy): (i32, i32), size: impl Fn(i64, i64) -> i32) -> bool {
    let (x, y) = (i64::from(dx.abs()), i64::from(dy.abs()) << 15);
    let (flat, steep) = (x * TAN_22, x * TAN_22 + (x << 16));
    if y < flat {
        own > size(-1, 0) && own >= size(1, 0)
    } else if y > steep {
        own > size(0, -1) && own >= size(0, 1)
    } else {
        let side = if (dx ^ dy) < 0 { -1 } else { 1 };
        own > size(-side, -1) && own > size(side, 1)
    }
}

/// Sobel's derivatives of the channel with the largest |dx| + |dy|. Border pixels are repeated beyond the border.
fn gradient(picture: &RgbImage, x: usize, y: usize) -> (i32, i32) {
    let (width, height) = (picture.width as usize, picture.height as usize);
    let (left, right) = (x.saturating_sub(1), (x + 1).min(width - 1));
    let (up, down) = (y.saturating_sub(1), (y + 1).min(height - 1));
    let mut largest = (0i32, 0i32);
    for channel in 0..3 {
        let level = |x: usize, y: usize| i32::from(picture.pixels[3 * (y * width + x) + channel]);
        let column = |x: usize| level(x, up) + 2 * level(x, y) + level(x, down);
        let line = |y: usize| level(left, y) + 2 * level(x, y) + level(right, y);
        let (dx, dy) = (column(right) - column(left), line(down) - line(up));
        if channel == 0 || dx.abs() + dy.abs() > largest.0.abs() + largest.1.abs() {
            largest = (dx, dy);
        }
    }
    largest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_and_a_flat_picture_have_no_edges() {
        assert_eq!(canny(&RgbImage { width: 0, height: 0, pixels: Vec::new() }, 100, 200).pixels, [0u8; 0]);
        let flat = RgbImage { width: 3, height: 2, pixels: vec![77; 18] };
        assert_eq!(canny(&flat, 100, 200).pixels, [0; 6]);
    }

    #[test]
    fn weak_ridges_count_where_they_touch_strong_ones() {
        // A step edge whose height falls from row to row.
        let height = |y: usize| [250u8, 40, 40, 5, 40, 0, 0][y];
        let pixels = (0..7 * 8).flat_map(|at| [if at % 8 < 4 { 0 } else { height(at / 8) }; 3]).collect();
        let edges = canny(&RgbImage { width: 8, height: 7, pixels }, 100, 200).pixels;
        assert!(edges[..8].contains(&255), "{edges:?}");
        assert!(edges[6 * 8..].iter().all(|level| *level == 0), "{edges:?}");
    }
}
