//! Encodes frames as AV1 packets.

use rav1e::prelude::{
    ChromaSampling, ColorDescription, ColorPrimaries, Config, Context, EncoderConfig, EncoderStatus, FrameType,
    MatrixCoefficients, PixelRange, Rational, SpeedSettings, TransferCharacteristics,
};

use super::{
    ClipError,
    level::level,
    yuv::{Planes, planes},
};
use crate::RgbImage;

/// One shown frame.
pub(super) struct Packet {
    /// The open bitstream units of the frame, without a temporal delimiter.
    pub(super) data: Vec<u8>,
    pub(super) is_key: bool,
}

/// rav1e's fastest preset: slower ones save bytes and hardly change the quality.
const SPEED: u8 = 10;
/// On rav1e's scale from 0 to 255. Smooth pictures keep more than 35 dB.
const QUANTIZER: usize = 60;
/// Maximum seconds between two frames to which a player can seek.
const KEY_SECONDS: u64 = 5;
/// The unit that begins each packet of the encoder. Samples of MP4 files should not contain it (AV1 in ISOBMFF, 2.4).
const TEMPORAL_DELIMITER: [u8; 2] = [0x12, 0x00];

/// Encodes at least one frame; the sides have at least 16 pixels. The packets have the order of the frames.
pub(super) fn encode(frames: &[RgbImage], size: [u32; 2], fps: u32) -> Result<Vec<Packet>, ClipError> {
    let mut encoder = encoder(size, fps)?;
    for image in frames {
        send(&mut encoder, image)?;
    }
    encoder.flush();
    let mut packets = Vec::with_capacity(frames.len());
    loop {
        match encoder.receive_packet() {
            Ok(packet) => packets.push(Packet {
                data: packet.data.strip_prefix(&TEMPORAL_DELIMITER).unwrap_or(&packet.data).to_vec(),
                is_key: packet.frame_type == FrameType::KEY,
            }),
            // Some frames need several calls.
            Err(EncoderStatus::Encoded) => {}
            Err(EncoderStatus::LimitReached) => break,
            Err(error) => return Err(failed(&error)),
        }
    }
    match packets.len() == frames.len() {
        true => Ok(packets),
        false => Err(failed(&format!("{} packets for {} frames", packets.len(), frames.len()))),
    }
}

fn encoder(size: [u32; 2], fps: u32) -> Result<Context<u8>, ClipError> {
    Config::new().with_encoder_config(settings(size, fps)).new_context().map_err(|error| failed(&error))
}

fn send(encoder: &mut Context<u8>, image: &RgbImage) -> Result<(), ClipError> {
    let mut frame = encoder.new_frame();
    let Planes { luma, chroma: [blue, red] } = planes(image);
    let (width, half) = (image.width as usize, image.width.div_ceil(2) as usize);
    frame.planes[0].copy_from_raw_u8(&luma, width, 1);
    frame.planes[1].copy_from_raw_u8(&blue, half, 1);
    frame.planes[2].copy_from_raw_u8(&red, half, 1);
    encoder.send_frame(frame).map_err(|error| failed(&error))
}

fn failed(reason: &dyn std::fmt::Display) -> ClipError {
    ClipError::Av1(reason.to_string())
}

fn settings(size: [u32; 2], fps: u32) -> EncoderConfig {
    let key_frames = KEY_SECONDS * u64::from(fps);
    EncoderConfig {
        width: size[0] as usize,
        height: size[1] as usize,
        time_base: Rational::new(1, fps.into()),
        chroma_sampling: ChromaSampling::Cs420,
        pixel_range: PixelRange::Limited,
        color_description: Some(ColorDescription {
            color_primaries: ColorPrimaries::BT709,
            transfer_characteristics: TransferCharacteristics::BT709,
            matrix_coefficients: MatrixCoefficients::BT709,
        }),
        level_idx: level(size, fps),
        min_key_frame_interval: key_frames.min(12),
        max_key_frame_interval: key_frames,
        quantizer: QUANTIZER,
        speed_settings: SpeedSettings::from_preset(SPEED),
        ..EncoderConfig::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clip::tests::{frames as smooth, psnr};

    /// The luma of each frame as decoders show it, and the planes that were encoded.
    fn reconstructed(frames: &[RgbImage], fps: u32) -> Vec<(Vec<u8>, Planes)> {
        let [width, height] = [frames[0].width, frames[0].height];
        let mut encoder = encoder([width, height], fps).unwrap();
        frames.iter().for_each(|image| send(&mut encoder, image).unwrap());
        let mut shown = Vec::new();
        encoder.flush();
        loop {
            match encoder.receive_packet() {
                Ok(packet) => {
                    let plane = &packet.rec.as_ref().unwrap().planes[0];
                    let mut luma = vec![0; (width * height) as usize];
                    plane.copy_to_raw_u8(&mut luma, width as usize, 1);
                    shown.push((luma, planes(&frames[shown.len()])));
                }
                Err(EncoderStatus::Encoded) => {}
                Err(status) => {
                    assert_eq!(status, EncoderStatus::LimitReached);
                    return shown;
                }
            }
        }
    }

    #[test]
    fn smooth_frames_keep_35_db() {
        for size in [[64, 64], [33, 17], [320, 192]] {
            let shown = reconstructed(&smooth(14, size), 7);
            assert_eq!(shown.len(), 14);
            let luma = psnr(shown.iter().map(|(luma, planes)| (&luma[..], &planes.luma[..])));
            assert!(luma > 35.0, "{luma} dB at {size:?}");
        }
    }
}
