//! Changes the sample rate of sounds.

use rubato::{
    WindowFunction,
    sinc_interpolator::{SincInterpolator, make_interpolator},
};

use super::Waveform;

/// Samples that contribute to a new sample.
const POINTS: usize = 256;

/// Maximum number of places between two old samples at which a new sample can be. If the two rates need more places,
/// each new sample is at the nearest of these places.
const MOST_PLACES: u64 = 1024;

/// The sound with `rate` samples per second and channel, in `⌈length · rate / sample_rate⌉` samples of each channel. A
/// windowed sine cardinal filters out the frequencies that one of the rates does not have. Both rates are above 0.
pub(super) fn resample(sound: &Waveform, rate: u32) -> Waveform {
    let (from, to) = (u64::from(sound.sample_rate), u64::from(rate));
    let length = (sound.length() as u64 * to).div_ceil(from);
    // All new samples lie at multiples of 1/places between two old samples.
    let places = (to / divisor(from, to)).min(MOST_PLACES);
    let ratio = f64::from(rate) / f64::from(sound.sample_rate);
    let filter = make_interpolator(POINTS, ratio, None, places as usize, WindowFunction::BlackmanHarris2);
    let channels = usize::from(sound.channels);
    let mut samples = vec![0.0; length as usize * channels];
    for channel in 0..channels {
        let silence = [0.0_f32; POINTS];
        let own = sound.samples.iter().skip(channel).step_by(channels).copied();
        let wave: Vec<f32> = silence.into_iter().chain(own).chain(silence).collect();
        let new = samples.iter_mut().skip(channel).step_by(channels);
        for (i, sample) in (0..length).zip(new) {
            // The filter for `index` and `place` gives the sample at `index + POINTS / 2 - 1 + (place + 1) / places`.
            let at = (i * from * places + to / 2) / to + (POINTS as u64 / 2 + 1) * places - 1;
            let (index, place) = (at / places, at % places);
            *sample = filter.get_sinc_interpolated(&wave, index as usize, place as usize);
        }
    }
    Waveform { sample_rate: rate, channels: sound.channels, samples }
}

/// The greatest common divisor.
fn divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { divisor(b, a % b) }
}
