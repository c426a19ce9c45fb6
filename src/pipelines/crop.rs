//! The part of a picture that `padding_mask_crop` selects for inpainting (diffusers' `get_crop_region`).

use crate::imaging::GreyImage;

/// The bounding box of all pixels of the mask that are not black, as [x, y, width, height]. The box is extended by
/// `padding` on all sides. Then its width or its height is extended to the aspect ratio of `width` × `height`, but not
/// beyond the edges of the mask. For a black mask, the box is the whole mask.
pub(super) fn around(mask: &GreyImage, padding: u32, [height, width]: [usize; 2]) -> [u32; 4] {
    let (w, h) = (i64::from(mask.width), i64::from(mask.height));
    let white = |x: i64, y: i64| mask.pixels[(y * w + x) as usize] != 0;
    let columns = || (0..w).filter(|x| (0..h).any(|y| white(*x, y)));
    let rows = || (0..h).filter(|y| (0..w).any(|x| white(x, *y)));
    let (Some(left), Some(right), Some(top), Some(bottom)) =
        (columns().min(), columns().max(), rows().min(), rows().max())
    else {
        return [0, 0, mask.width, mask.height];
    };
    let padding = i64::from(padding);
    let (x1, x2) = ((left - padding).max(0), (right + 1 + padding).min(w));
    let (y1, y2) = ((top - padding).max(0), (bottom + 1 + padding).min(h));
    let wanted = width as f64 / height as f64;
    let ((x1, x2), (y1, y2)) = if (x2 - x1) as f64 / (y2 - y1) as f64 > wanted {
        ((x1, x2), widened((y1, y2), (x2 - x1) as f64 / wanted, h))
    } else {
        (widened((x1, x2), (y2 - y1) as f64 * wanted, w), (y1, y2))
    };
    [x1, y1, x2 - x1, y2 - y1].map(|side| side as u32)
}

/// Extends `from..to` equally at both ends to the length `wanted`. If the result leaves `0..end`, it is shifted into
/// `0..end`, and cut if it is longer than `0..end`.
fn widened((mut from, mut to): (i64, i64), wanted: f64, end: i64) -> (i64, i64) {
    let more = (wanted - (to - from) as f64) as i64;
    from -= more / 2;
    to += more - more / 2;
    if to >= end {
        (from, to) = (from - (to - end), end);
    }
    if from < 0 {
        (from, to) = (0, to - from);
    }
    (from, to.min(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A black mask of 20 × 10 pixels with one white rectangle.
    fn mask([x, y, width, height]: [u32; 4]) -> GreyImage {
        let inside = |i: u32| (x..x + width).contains(&(i % 20)) && (y..y + height).contains(&(i / 20));
        GreyImage { width: 20, height: 10, pixels: (0..200).map(|i| if inside(i) { 255 } else { 0 }).collect() }
    }

    #[test]
    fn a_crop_has_the_wanted_aspect_ratio_within_the_picture() {
        assert_eq!(around(&mask([8, 4, 2, 2]), 0, [64, 64]), [8, 4, 2, 2]);
        assert_eq!(around(&mask([8, 4, 2, 2]), 2, [64, 64]), [6, 2, 6, 6]);
        assert_eq!(around(&mask([8, 4, 4, 2]), 0, [64, 64]), [8, 3, 4, 4]);
        assert_eq!(around(&mask([0, 4, 2, 4]), 0, [64, 64]), [0, 4, 4, 4], "shifted from the left edge");
        assert_eq!(around(&mask([18, 4, 2, 4]), 0, [64, 64]), [16, 4, 4, 4], "shifted from the right edge");
        assert_eq!(around(&mask([2, 4, 16, 2]), 0, [64, 64]), [2, 0, 16, 10], "cut where there is no more");
        assert_eq!(around(&mask([0, 0, 0, 0]), 5, [64, 64]), [0, 0, 20, 10]);
    }
}
