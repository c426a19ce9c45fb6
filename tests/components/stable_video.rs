//! Tests of the networks of Stable Video Diffusion at the sizes of the published model.

use std::collections::BTreeMap;

use latentd::{
    models::{
        AutoencoderKlTemporalDecoder, ClipImageEncoder, UNetSpatioTemporalModel,
        autoencoder_kl_temporal_decoder::AutoencoderKlTemporalDecoderConfig, clip_preparation::Preparation,
        clip_vision::ClipVisionConfig, unet_spatio_temporal::UNetSpatioTemporalConfig,
    },
    weights::{ModelFolder, Weights},
};

use crate::roots;

#[test]
fn the_requested_tensors_are_those_of_the_published_model() {
    if std::env::var_os("LATENTD_PARITY_DIR").is_none() {
        println!("the compact fixtures have no manifests of Stable Video Diffusion");
        return;
    }
    // The encoder of pictures is the one of the IP-Adapters.
    for (part, name) in
        [("unet", "svd-xt--unet"), ("vae", "svd-xt--vae"), ("image_encoder", "ip-adapter--image_encoder")]
    {
        let (config, published) = roots::manifest(name);
        let weights = Weights::outline(part);
        match part {
            "unet" => {
                let config = UNetSpatioTemporalConfig::read(part, &config).unwrap();
                drop(UNetSpatioTemporalModel::new(&config, &weights));
            }
            "vae" => {
                let config = AutoencoderKlTemporalDecoderConfig::read(part, &config).unwrap();
                drop(AutoencoderKlTemporalDecoder::new(&config, &weights));
            }
            _ => {
                let config = ClipVisionConfig::read(part, &config).unwrap();
                let (empty, side) = (tempfile::tempdir().unwrap(), config.image_size);
                let preparation = Preparation::read(&ModelFolder::open(empty.path()).unwrap(), false, side).unwrap();
                drop(ClipImageEncoder::new(&config, preparation, &weights));
            }
        }
        let published = published.into_iter().filter(|(name, _)| !name.ends_with("embeddings.position_ids"));
        assert_eq!(weights.requested(), published.collect::<BTreeMap<_, _>>(), "{part}");
    }
}
