//! Prepares pictures for CLIP's encoder of pictures (transformers' `CLIPImageProcessor`).

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::{
    device::HOST,
    imaging::{Filter, Pixels, resize_with},
    models::configuration::{Fixed, between, read, within},
    weights::{LoadError, ModelFolder},
};

/// How pictures become the input of the network: resized, cut to a square, and normalized.
#[derive(Clone, Debug)]
pub struct Preparation {
    /// Pixels of the shorter side after resizing.
    shortest: u32,
    /// Pixels per side of the square.
    side: u32,
    mean: [f32; 3],
    std: [f32; 3],
}

/// The keys of `preprocessor_config.json`, with the defaults of CLIP.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
struct Keys {
    size: Size,
    crop_size: Size,
    image_mean: [f64; 3],
    image_std: [f64; 3],
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(untagged, expecting = "must be a whole number, {\"shortest_edge\"} or {\"height\", \"width\"}")]
enum Size {
    Side(usize),
    Shortest { shortest_edge: usize },
    Square { height: usize, width: usize },
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            size: Size::Side(224),
            crop_size: Size::Side(224),
            image_mean: [0.48145466, 0.4578275, 0.40821073],
            image_std: [0.26862954, 0.26130258, 0.27577711],
        }
    }
}

const FIXED: &[Fixed] = &[
    ("do_center_crop", &["true"]),
    ("do_normalize", &["true"]),
    ("do_rescale", &["true"]),
    ("do_resize", &["true"]),
    // Bicubic.
    ("resample", &["3"]),
    ("rescale_factor", &["0.00392156862745098"]),
    ("do_pad", &["false", "null"]),
    ("default_to_square", &["false", "null"]),
    // The pictures are RGB, and these settings have no effect.
    ("data_format", &[]),
    ("device", &[]),
    ("disable_grouping", &[]),
    ("do_convert_rgb", &[]),
    ("feature_extractor_type", &[]),
    ("image_processor_type", &[]),
    ("image_seq_length", &[]),
    ("input_data_format", &[]),
    ("pad_size", &[]),
    ("processor_class", &[]),
    ("return_tensors", &[]),
];

/// The largest side of a prepared picture, as a multiple of the square. A narrower picture is refused.
const LONGEST: u32 = 64;

impl Preparation {
    /// Reads the settings of a folder, or takes CLIP's settings if the folder has no settings. `is_root`: whether the
    /// folder is a checker itself. `side`: the size of the network's input.
    ///
    /// # Errors
    /// The file is broken or has a value that is not supported.
    pub fn read(folder: &ModelFolder, is_root: bool, side: usize) -> Result<Self, LoadError> {
        let path = if is_root { "preprocessor_config.json" } else { "feature_extractor/preprocessor_config.json" };
        Self::read_at(folder, path, side)
    }

    /// As [`Preparation::read`], for the file at `path`.
    ///
    /// # Errors
    /// Those of [`Preparation::read`].
    pub fn read_at(folder: &ModelFolder, path: &str, side: usize) -> Result<Self, LoadError> {
        let keys = match folder.has(path) {
            true => read::<Keys>(path, &folder.json(path)?, FIXED)?,
            false => Keys { size: Size::Side(side), crop_size: Size::Side(side), ..Keys::default() },
        };
        let bad = |key: &str, reason: String| LoadError::BadKey { path: path.into(), key: key.into(), reason };
        let shortest = match keys.size {
            Size::Side(side) | Size::Shortest { shortest_edge: side } => side,
            Size::Square { .. } => return Err(bad("size", "must be one number, the shorter side".to_owned())),
        };
        let (height, width) = match keys.crop_size {
            Size::Side(side) | Size::Shortest { shortest_edge: side } => (side, side),
            Size::Square { height, width } => (height, width),
        };
        if (height, width) != (side, side) {
            return Err(bad("crop_size", format!("must be {side}, the image_size of the network")));
        }
        within(path, "size", shortest, 1 << 12)?;
        if shortest < side {
            return Err(bad("size", format!("must be at least {side}, the crop_size")));
        }
        for (key, values, least) in [("image_mean", keys.image_mean, -1e3), ("image_std", keys.image_std, 1e-3)] {
            values.into_iter().try_for_each(|value| between(path, key, value, least, 1e3))?;
        }
        let [mean, std] = [keys.image_mean, keys.image_std].map(|values| values.map(|value| value as f32));
        Ok(Self { shortest: shortest as u32, side: side as u32, mean, std })
    }

    /// Pixels of `count` pictures (3, side, side) in [0, 1], which already have the size of the network's input, as the
    /// input of the network, (count, side, side, 3).
    ///
    /// # Errors
    /// The pixels do not have this shape.
    pub fn normalized(&self, planes: &[f32], count: usize) -> candle_core::Result<Tensor> {
        let side = self.side as usize;
        let channels = |values: [f32; 3]| Tensor::from_slice(&values, (1, 1, 1, 3), &HOST);
        let pixels = Tensor::from_slice(planes, (count, 3, side, side), &HOST)?.permute((0, 2, 3, 1))?.contiguous()?;
        pixels.broadcast_sub(&channels(self.mean)?)?.broadcast_div(&channels(self.std)?)
    }

    /// The picture as the input of the network, (1, side, side, 3).
    ///
    /// # Errors
    /// The picture is empty, or one side is at least 64 times as long as the other.
    pub fn prepared(&self, picture: &Pixels<3>) -> candle_core::Result<Tensor> {
        let (short, long) = (picture.width.min(picture.height), picture.width.max(picture.height));
        if short == 0 || long / short >= LONGEST {
            candle_core::bail!("a picture of {} × {} pixels is too narrow for CLIP", picture.width, picture.height);
        }
        let longest = (u64::from(self.shortest) * u64::from(long) / u64::from(short)) as u32;
        let (width, height) = match picture.width <= picture.height {
            true => (self.shortest, longest),
            false => (longest, self.shortest),
        };
        let resized = resize_with(picture, width, height, Filter::Bicubic);
        let square = [(width - self.side) / 2, (height - self.side) / 2, self.side, self.side];
        let levels = resized.cropped(square).pixels.into_iter().enumerate();
        // Rounded as by transformers' `rescale` and `normalize`.
        let normalized =
            |(i, level): (usize, u8)| ((f64::from(level) / 255.0) as f32 - self.mean[i % 3]) / self.std[i % 3];
        let side = self.side as usize;
        Tensor::from_vec(levels.map(normalized).collect::<Vec<f32>>(), (1, side, side, 3), &HOST)
    }
}
