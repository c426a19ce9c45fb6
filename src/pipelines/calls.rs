//! The types of network calls that recipes await.

mod class_gradient;
mod decode;
mod decode_clip;
mod decode_codes;
mod decode_tiny;
mod denoise;
mod denoise_clip;
mod denoise_film;
mod denoise_frames;
mod encode;
mod encode_picture;
mod encode_prompt;
mod encode_still;
mod encode_text;
mod encode_tokens;
mod film_stage;
mod predict;
mod vocode;

pub use class_gradient::ClassGradient;
pub use decode::{DECODING, Decode};
pub use decode_clip::DecodeClip;
pub use decode_codes::DecodeCodes;
pub use decode_tiny::DecodeTiny;
pub use denoise::DenoiseCall;
pub use denoise_clip::{ClipRow, DenoiseClip};
pub use denoise_film::{DenoiseFilm, FilmRow};
pub use denoise_frames::{DenoiseFrames, FramesRow};
pub use encode::Encode;
pub use encode_picture::EncodePicture;
pub use encode_prompt::EncodePrompt;
pub use encode_still::EncodeStill;
pub use encode_text::EncodeText;
pub use encode_tokens::EncodeTokens;
pub use film_stage::{FilmStage, FilmWay};
pub use predict::{Predict, PredictRow};
pub use vocode::Vocode;
