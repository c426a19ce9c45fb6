//! Tests of the networks of Stable Video Diffusion at the sizes of the published model.

use std::collections::BTreeMap;

use latentd::{
    models::{
        AutoencoderKlTemporalDecoder, UNetSpatioTemporalModel,
        autoencoder_kl_temporal_decoder::AutoencoderKlTemporalDecoderConfig,
        unet_spatio_temporal::UNetSpatioTemporalConfig,
    },
    weights::Weights,
};

use crate::roots;

#[test]
fn the_requested_tensors_are_those_of_the_published_model() {
    if std::env::var_os("LATENTD_PARITY_DIR").is_none() {
        println!("the compact fixtures have no manifests of Stable Video Diffusion");
        return;
    }
    for part in ["unet", "vae"] {
        let (config, published) = roots::manifest(&format!("svd-xt--{part}"));
        let weights = Weights::outline(part);
        match part {
            "unet" => {
                let config = UNetSpatioTemporalConfig::read(part, &config).unwrap();
                drop(UNetSpatioTemporalModel::new(&config, &weights));
            }
            _ => {
                let config = AutoencoderKlTemporalDecoderConfig::read(part, &config).unwrap();
                drop(AutoencoderKlTemporalDecoder::new(&config, &weights));
            }
        }
        assert_eq!(weights.requested(), published.into_iter().collect::<BTreeMap<_, _>>(), "{part}");
    }
}
