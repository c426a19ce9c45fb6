//! The types of network calls that recipes await.

mod class_gradient;
mod decode;
mod decode_codes;
mod decode_tiny;
mod denoise;
mod encode;
mod encode_text;
mod predict;
mod vocode;

pub use class_gradient::ClassGradient;
pub use decode::{DECODING, Decode};
pub use decode_codes::DecodeCodes;
pub use decode_tiny::DecodeTiny;
pub use denoise::DenoiseCall;
pub use encode::Encode;
pub use encode_text::EncodeText;
pub use predict::{Predict, PredictRow};
pub use vocode::Vocode;
