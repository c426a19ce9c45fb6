// The discrete Fourier transform, and spectrograms made with it.

/** The quietest level that a spectrogram shows, in decibels below its loudest. */
const RANGE_DB = 80;

/**
 * Transforms complex numbers in place, with the radix-2 algorithm of Cooley and Tukey.
 * @param {Float64Array} real
 * @param {Float64Array} imaginary of the same length, a power of two
 */
export function transform(real, imaginary) {
  const { length } = real;
  for (let at = 1, other = 0; at < length; at += 1) {
    let bit = length >> 1;
    for (; other & bit; bit >>= 1) other ^= bit;
    other ^= bit;
    if (at < other) {
      [real[at], real[other]] = [real[other], real[at]];
      [imaginary[at], imaginary[other]] = [imaginary[other], imaginary[at]];
    }
  }
  for (let size = 2; size <= length; size *= 2) {
    for (let k = 0; k < size / 2; k += 1) {
      const angle = -2 * Math.PI * k / size;
      const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
      for (let low = k; low < length; low += size) {
        const high = low + size / 2;
        const re = real[high] * cos - imaginary[high] * sin;
        const im = real[high] * sin + imaginary[high] * cos;
        [real[high], imaginary[high]] = [real[low] - re, imaginary[low] - im];
        [real[low], imaginary[low]] = [real[low] + re, imaginary[low] + im];
      }
    }
  }
}

/**
 * The levels of a sound by time and frequency, from 0 (80 dB below the loudest, or less) to 1.
 * @param {Float32Array} samples
 * @param {number} columns the number of times
 * @param {number} window the number of samples of which each column shows the frequencies: a power of two
 * @returns {Float32Array[]} for each time, `window / 2` levels from the lowest frequency to half of the sample rate
 */
export function spectrogram(samples, columns, window) {
  const hann = Float64Array.from({ length: window }, (_, at) => 0.5 - 0.5 * Math.cos(2 * Math.PI * at / window));
  const powers = Array.from({ length: columns }, (_, column) => {
    const middle = Math.round((column + 0.5) * samples.length / columns);
    const real = hann.map((weight, at) => weight * (samples[middle - window / 2 + at] ?? 0));
    const imaginary = new Float64Array(window);
    transform(real, imaginary);
    return Float32Array.from({ length: window / 2 }, (_, at) => real[at] ** 2 + imaginary[at] ** 2);
  });
  const loudest = powers.reduce((most, column) => column.reduce((high, power) => Math.max(high, power), most), 0);
  const level = (power) => Math.min(1, Math.max(0, 1 + 10 * Math.log10(power / loudest) / RANGE_DB));
  return powers.map((column) => column.map((power) => (loudest > 0 && power > 0 ? level(power) : 0)));
}
