//! The neural networks. They have the architectures and the class names of the Python libraries diffusers and
//! transformers; the files of a model folder configure them.
//!
//! Letters in shapes: B rows of the batch, C channels, h × w latent pixels, H × W pixels, L tokens, D the width of a
//! token's vector. A map is an activation with height and width; a place is one position of a map. Maps have the shape
//! (B, h, w, C) inside a network, and (B, C, h, w) only at its input and its output.

pub mod adapters;
mod attention;
pub mod autoencoder_kl;
pub mod autoencoder_kl_flux2;
pub mod autoencoder_tiny;
pub mod clap_text;
mod clip_layer;
pub mod clip_text;
pub mod clip_vision;
mod configuration;
pub mod control_net;
mod conv1d;
pub mod demand;
pub mod dit_transformer2d;
pub mod dream_lite_unet;
pub mod flux2_transformer2d;
pub mod flux_transformer2d;
pub mod hifi_gan;
pub mod latent_diffusion;
mod layers;
mod legacy;
pub mod noisy_classifier;
mod offload;
mod patches;
pub mod pause;
pub mod pixart_transformer2d;
pub mod prompt_tokenizers;
pub mod qwen3_encoder;
pub mod qwen3_vl;
pub mod qwen_tokenizer;
mod resample;
mod resnet;
pub mod roberta_tokenizer;
pub mod safety_checker;
pub mod sd3_transformer2d;
mod spatial_attention;
pub mod stable_diffusion;
pub mod t5_encoder;
pub mod t5_tokenizer;
pub mod text_encoders;
mod time_embedding;
pub mod tokenizer;
mod transformer2d;
pub mod unet2d;
pub mod unet2d_condition;
pub mod vq_model;
pub mod word_tags;
pub mod z_image_transformer2d;

pub use autoencoder_kl::AutoencoderKl;
pub use autoencoder_kl_flux2::AutoencoderKlFlux2;
pub use autoencoder_tiny::AutoencoderTiny;
pub use clap_text::ClapTextModel;
pub use clip_text::ClipTextModel;
pub use clip_vision::ClipVisionModel;
pub use control_net::ControlNet;
pub use dit_transformer2d::DiTTransformer2DModel;
pub use dream_lite_unet::DreamLiteUNetModel;
pub use flux_transformer2d::FluxTransformer2DModel;
pub use flux2_transformer2d::Flux2Transformer2DModel;
pub use hifi_gan::HifiGan;
pub use latent_diffusion::Spec;
pub use noisy_classifier::NoisyClassifier;
pub use pixart_transformer2d::PixArtTransformer2DModel;
pub use qwen_tokenizer::QwenTokenizer;
pub use qwen3_encoder::Qwen3Encoder;
pub use qwen3_vl::Qwen3Vl;
pub use roberta_tokenizer::RobertaTokenizer;
pub use safety_checker::SafetyChecker;
pub use sd3_transformer2d::Sd3Transformer2DModel;
pub use stable_diffusion::StableDiffusion;
pub use t5_encoder::T5EncoderModel;
pub use t5_tokenizer::T5Tokenizer;
pub use tokenizer::ClipTokenizer;
pub use unet2d::UNet2DModel;
pub use unet2d_condition::UNet2DConditionModel;
pub use vq_model::VqModel;
pub use z_image_transformer2d::ZImageTransformer2DModel;
