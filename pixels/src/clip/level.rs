//! The level of an AV1 stream: an upper bound of what its decoder must be able to do (AV1 specification, Annex A.3).

/// The number of a level in files, and its bounds: pixels of a frame, width, height, and pixels per second.
const LEVELS: [(u8, [u64; 4]); 12] = [
    (0, [147_456, 2048, 1152, 4_423_680]),
    (1, [278_784, 2816, 1584, 8_363_520]),
    (4, [665_856, 4352, 2448, 19_975_680]),
    (5, [1_065_024, 5504, 3096, 31_950_720]),
    (8, [2_359_296, 6144, 3456, 70_778_880]),
    (9, [2_359_296, 6144, 3456, 141_557_760]),
    (12, [8_912_896, 8192, 4352, 267_386_880]),
    (13, [8_912_896, 8192, 4352, 534_773_760]),
    (14, [8_912_896, 8192, 4352, 1_069_547_520]),
    (16, [35_651_584, 16_384, 8704, 1_069_547_520]),
    (17, [35_651_584, 16_384, 8704, 2_139_095_040]),
    (18, [35_651_584, 16_384, 8704, 4_278_190_080]),
];

/// The lowest level of a stream of this size and rate. `None` if no level allows it.
pub(super) fn level([width, height]: [u32; 2], fps: u32) -> Option<u8> {
    let (width, height) = (u64::from(width), u64::from(height));
    let needed = [width * height, width, height, width * height * u64::from(fps)];
    let fits = |bounds: [u64; 4]| needed.iter().zip(bounds).all(|(needed, bound)| *needed <= bound);
    LEVELS.into_iter().find(|(_, bounds)| fits(*bounds)).map(|(number, _)| number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_level_that_fits_is_chosen() {
        assert_eq!(level([64, 64], 8), Some(0));
        assert_eq!(level([320, 192], 25), Some(0));
        assert_eq!(level([320, 192], 100), Some(1), "the rate counts");
        assert_eq!(level([1024, 576], 7), Some(4), "Stable Video Diffusion");
        assert_eq!(level([1920, 1080], 30), Some(8));
        assert_eq!(level([64, 1153], 1), Some(1), "each side counts");
        assert_eq!(level([65_535, 16], 1), None);
    }
}
