//! The overlapping tiles in which large latents are decoded.

use std::ops::Range;

use super::AutoencoderKlConfig;

/// The number of floats of the largest map that the decoder computes for one tile: 768 × 768 places of 256 channels, as
/// in the last block of Stable Diffusion's autoencoder. Such a map takes 0.6 GB, and decoding a tile holds two or
/// three such maps.
///
/// Tiles change a picture slightly, because each tile is normalized on its own. So this bound is a constant instead of
/// a setting: the tiles follow from the shape of the model, and a request gives the same picture on every server.
const LARGEST_MAP: usize = 768 * 768 * 256;

/// The minimum side of a tile in pixels, whatever the model's `sample_size` is, because smaller tiles would be visible
/// in the picture.
const LEAST_SIDE: usize = 256;

/// The tiles of latents, laid out as in diffusers' `AutoencoderKL.tiled_decode`: squares; neighbors overlap by a
/// quarter of a side. Tiles at the lower and right edges may be smaller. A picture whose maps fit into `LARGEST_MAP` is
/// one tile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tiles {
    height: usize,
    width: usize,
    /// The side of a tile in latent pixels: a multiple of 4, or at least as long as both sides of the latents.
    side: usize,
}

/// One tile. `y` and `x` are the rows and the columns of latent pixels that it covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tile {
    /// The number of the row of tiles, counted from the top.
    pub row: usize,
    /// The number of the column of tiles, counted from the left.
    pub column: usize,
    pub y: Range<usize>,
    pub x: Range<usize>,
}

impl Tiles {
    /// One tile for all (h, w) latent pixels.
    pub fn whole(h: usize, w: usize) -> Self {
        Self { height: h, width: w, side: h.max(w) }
    }

    /// Square tiles of `side` latent pixels over (h, w) latent pixels. `side` is rounded down to a multiple of 4, at
    /// least 4, so that the overlap is exactly a quarter.
    pub fn new(h: usize, w: usize, side: usize) -> Self {
        Self { height: h, width: w, side: (side / 4 * 4).max(4) }
    }

    /// The tiles in which the autoencoder decodes latents of (h, w).
    pub(super) fn of(config: &AutoencoderKlConfig, h: usize, w: usize) -> Self {
        let scale = config.scale();
        let largest = LARGEST_MAP / floats_per_pixel(config); // pixels
        if h * w <= largest / (scale * scale) {
            return Self::whole(h, w);
        }
        let side = config.sample_size.map_or(LEAST_SIDE, |size| size.height_width().0);
        Self::new(h, w, side.min(largest.isqrt()).max(LEAST_SIDE) / scale)
    }

    /// All tiles, row by row.
    pub fn iter(&self) -> impl Iterator<Item = Tile> + use<> {
        let (across, down) = (self.along(self.width), self.along(self.height));
        down.into_iter().enumerate().flat_map(move |(row, y)| {
            let across = across.clone().into_iter().enumerate();
            across.map(move |(column, x)| Tile { row, column, y: y.clone(), x })
        })
    }

    /// (h, w) of the latents.
    pub fn size(&self) -> (usize, usize) {
        (self.height, self.width)
    }

    /// (h, w) of the first tile, which is the largest.
    pub fn largest(&self) -> (usize, usize) {
        (self.side.min(self.height), self.side.min(self.width))
    }

    /// Latent pixels between the starts of neighboring tiles. The picture keeps only this length of each tile, and
    /// takes the rest from the next tile.
    pub fn step(&self) -> usize {
        self.side - self.overlap()
    }

    /// Latent pixels that neighboring tiles share.
    pub fn overlap(&self) -> usize {
        if self.side >= self.height.max(self.width) { 0 } else { self.side / 4 }
    }

    fn along(&self, length: usize) -> Vec<Range<usize>> {
        (0..length).step_by(self.step().max(1)).map(|begin| begin..length.min(begin + self.side)).collect()
    }
}

impl Tile {
    /// (h, w) in latent pixels.
    pub fn size(&self) -> (usize, usize) {
        (self.y.len(), self.x.len())
    }

    /// Copies the tile's part of latents (C, h, w).
    pub fn cut(&self, latents: &[f32], (h, w): (usize, usize)) -> Vec<f32> {
        let lines = latents
            .chunks_exact((h * w).max(1))
            .flat_map(|plane| self.y.clone().flat_map(move |y| &plane[y * w..][self.x.clone()]));
        lines.copied().collect()
    }
}

/// The largest number of floats that a map of the decoder has for each pixel of the picture.
fn floats_per_pixel(config: &AutoencoderKlConfig) -> usize {
    let channels = &config.block_out_channels;
    // The last block works at full size on the channels of the block before it. The maps of earlier blocks have more
    // channels, but at most a quarter of the places.
    let last_block = channels[0].max(channels[1.min(channels.len() - 1)]);
    let earlier = channels.iter().skip(2).zip(1..).map(|(channels, halvings)| channels >> (2 * halvings)).max();
    last_block.max(earlier.unwrap_or(0)).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn config(widths: &[usize], sample_size: usize) -> AutoencoderKlConfig {
        let keys = json!({
            "block_out_channels": widths, "norm_num_groups": 8, "sample_size": sample_size,
            "down_block_types": vec!["DownEncoderBlock2D"; widths.len()],
            "up_block_types": vec!["UpDecoderBlock2D"; widths.len()],
        });
        AutoencoderKlConfig::read("vae", keys.as_object().unwrap()).unwrap()
    }

    #[test]
    fn stable_diffusion_is_cut_above_768_pixels_squared() {
        for (sample_size, side) in [(512, 64), (768, 96), (1024, 96), (256, 32), (32, 32)] {
            let vae = config(&[128, 256, 512, 512], sample_size);
            for (h, w) in [(64, 64), (96, 96), (72, 128), (1, 9216)] {
                assert_eq!(Tiles::of(&vae, h, w), Tiles::whole(h, w));
            }
            for (h, w) in [(97, 96), (128, 128), (72, 129)] {
                assert_eq!(Tiles::of(&vae, h, w), Tiles::new(h, w, side), "{sample_size}");
            }
        }
        let narrow = config(&[16, 24, 48, 80], 64);
        assert_eq!(Tiles::of(&narrow, 256, 256), Tiles::whole(256, 256), "2048 pixels a side");
        assert_eq!(floats_per_pixel(&config(&[8, 8, 80], 64)), 20, "a deep block of half the size");
    }

    #[test]
    fn tiles_lie_as_diffusers_lays_them() {
        let tiles = Tiles::new(128, 65, 64);
        let (y, x) = ([0..64, 48..112, 96..128], [0..64, 48..65]);
        let expected: Vec<Tile> =
            (0..6).map(|i| Tile { row: i / 2, column: i % 2, y: y[i / 2].clone(), x: x[i % 2].clone() }).collect();
        assert_eq!(tiles.iter().collect::<Vec<_>>(), expected);
        assert_eq!((tiles.largest(), tiles.step(), tiles.overlap()), ((64, 64), 48, 16));
        let whole = Tiles::whole(5, 9);
        assert_eq!(whole.iter().collect::<Vec<_>>(), [Tile { row: 0, column: 0, y: 0..5, x: 0..9 }]);
    }

    #[test]
    fn a_tile_cuts_its_part_of_every_channel() {
        let latents: Vec<f32> = (0..2 * 3 * 4).map(|i| i as f32).collect();
        let tile = Tile { row: 0, column: 0, y: 1..3, x: 2..4 };
        assert_eq!(tile.cut(&latents, (3, 4)), [6.0, 7.0, 10.0, 11.0, 18.0, 19.0, 22.0, 23.0]);
    }

    proptest! {
        #[test]
        fn tiles_cover_everything_and_overlap_by_a_quarter(h in 1usize..200, w in 1usize..200, side in 4usize..80) {
            let tiles = Tiles::new(h, w, side);
            let (all, step) = (tiles.iter().collect::<Vec<_>>(), tiles.step());
            for tile in &all {
                prop_assert!(!tile.y.is_empty() && !tile.x.is_empty());
                prop_assert!(tile.y.len() <= tiles.largest().0 && tile.x.len() <= tiles.largest().1);
                prop_assert_eq!((tile.y.start, tile.x.start), (tile.row * step, tile.column * step));
            }
            let last = all.last().unwrap();
            prop_assert_eq!((last.y.end, last.x.end), (h, w));
            prop_assert!(all.iter().all(|tile| tile.y.end == h || tile.y.end >= tile.y.start + step));
        }
    }
}
