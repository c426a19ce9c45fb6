// A sound of a card: a player, the waveform and the spectrogram.

import * as api from './api.js';
import { element } from './element.js';
import { spectrogram } from './fourier.js';
import { whenSeen } from './seen.js';

/** Points in time of the waveform and the spectrogram. */
const COLUMNS = 240;
/** The height of the waveform's drawing. Half of it is the largest sample. */
const HEIGHT = 64;
/** Samples of each column of the spectrogram. A short sound has fewer. */
const WINDOW = 512;
const LEAST_WINDOW = 64;
/** The colors of the spectrogram from quiet to loud. */
const COLORS = [[18, 17, 23], [58, 44, 140], [150, 60, 170], [240, 120, 110], [255, 232, 170]];
const SVG = 'http://www.w3.org/2000/svg';

export class Sound {
  /** @param {string} caption @param {() => void} lost called once if the file cannot be loaded */
  constructor(caption, lost) {
    this.caption = caption || 'Sound';
    this.lost = lost;
    this.wave = element('div', { class: 'wave', role: 'img', 'aria-label': 'Waveform' });
    this.spectrum = element('canvas', { class: 'spectrum', role: 'img', 'aria-label': 'Spectrogram', width: COLUMNS, height: WINDOW / 2 });
    this.head = element('div', { class: 'play-head', hidden: true });
    this.views = element('div', { class: 'views' }, this.wave, this.spectrum, this.head);
    this.facts = element('p', { class: 'note axis', hidden: true });
    this.player = element('audio', { controls: true, preload: 'metadata', 'aria-label': this.caption });
    this.element = element('div', { class: 'sound' }, this.views, this.facts, this.player);
    this.player.hidden = true;
    // The player has a slider for the keyboard.
    this.views.addEventListener('click', ({ clientX }) => this.seek(clientX));
    for (const name of ['timeupdate', 'seeked', 'play']) this.player.addEventListener(name, () => this.follow());
  }

  preview() {}

  /** Shows a finished sound of the generation object. */
  show(artifact) {
    if (this.shown === artifact.url) return;
    this.shown = artifact.url;
    whenSeen(this.element, () => this.load(artifact));
  }

  // Private methods.

  async load(artifact) {
    let blob;
    try {
      blob = await api.bytes(artifact);
    } catch {
      // The URL may have expired: the generation has a new one.
      this.shown = undefined;
      if (!this.asked) this.lost();
      this.asked = true;
      return;
    }
    this.asked = false;
    URL.revokeObjectURL(this.player.src);
    this.player.src = URL.createObjectURL(blob);
    this.player.hidden = false;
    try {
      // The context of the sound's own sample rate does not change the samples.
      const context = new OfflineAudioContext(1, 1, artifact.sample_rate);
      const sound = await context.decodeAudioData(await blob.arrayBuffer());
      this.draw(Array.from({ length: sound.numberOfChannels }, (_, at) => sound.getChannelData(at)), sound.sampleRate);
    } catch {
      this.facts.textContent = 'This browser cannot read the samples of the sound.';
      this.facts.hidden = false;
    }
  }

  draw(channels, rate) {
    const mixed = channels[0].map((_, at) => channels.reduce((sum, channel) => sum + channel[at], 0) / channels.length);
    const seconds = mixed.length / rate;
    this.wave.replaceChildren(waveform(channels));
    this.wave.ariaLabel = `Waveform of ${said(seconds)} seconds`;
    const most = 2 ** Math.floor(Math.log2(Math.max(LEAST_WINDOW, mixed.length / 4)));
    paint(this.spectrum, spectrogram(mixed, COLUMNS, Math.min(WINDOW, most)));
    this.spectrum.ariaLabel = `Spectrogram from 0 to ${said(rate / 2000)} kHz`;
    this.facts.replaceChildren(element('span', {}, '0 s'), element('span', {}, `0 to ${said(rate / 2000)} kHz`), element('span', {}, `${said(seconds)} s`));
    this.facts.hidden = false;
  }

  seek(x) {
    const { left, width } = this.views.getBoundingClientRect();
    if (Number.isFinite(this.player.duration)) this.player.currentTime = this.player.duration * (x - left) / width;
  }

  /** Moves the line over both views to the time of the player, in each frame while the sound plays. */
  follow() {
    const { currentTime, duration, paused } = this.player;
    this.head.hidden = !(duration > 0) || (currentTime === 0 && paused);
    this.head.style.left = `${100 * Math.min(1, currentTime / duration)}%`;
    if (paused || this.moving) return;
    this.moving = true;
    requestAnimationFrame(() => {
      this.moving = false;
      this.follow();
    });
  }
}

/** A drawing of the least and the largest sample of each column, over all channels. */
function waveform(channels) {
  const [{ length }] = channels;
  const columns = Math.min(COLUMNS, length);
  const ends = Array.from({ length: columns }, (_, column) => {
    const [from, to] = [column, column + 1].map((at) => Math.floor(at * length / columns));
    let [least, most] = [0, 0];
    for (const channel of channels) {
      for (let at = from; at < to; at += 1) {
        least = Math.min(least, channel[at]);
        most = Math.max(most, channel[at]);
      }
    }
    return [least, most];
  });
  const y = (sample) => (HEIGHT / 2 * (1 - Math.max(-1, Math.min(1, sample)))).toFixed(2);
  const path = document.createElementNS(SVG, 'path');
  // A silent column is a thin line.
  const thick = (sample, by) => y(sample + by / HEIGHT);
  path.setAttribute('d', ends.map(([least, most], at) => `M${at} ${thick(most, 1)}h1V${thick(least, -1)}h-1z`).join(''));
  const svg = document.createElementNS(SVG, 'svg');
  for (const [name, value] of [['viewBox', `0 0 ${columns} ${HEIGHT}`], ['preserveAspectRatio', 'none'], ['aria-hidden', 'true']]) svg.setAttribute(name, value);
  svg.append(path);
  return svg;
}

/** Paints levels from 0 to 1, the lowest frequency at the bottom. */
function paint(canvas, levels) {
  const [{ length: rows }] = levels;
  canvas.width = levels.length;
  canvas.height = rows;
  const pen = canvas.getContext('2d');
  const pixels = pen.createImageData(levels.length, rows);
  for (const [column, part] of levels.entries()) {
    for (const [row, level] of part.entries()) {
      const at = 4 * ((rows - 1 - row) * levels.length + column);
      pixels.data.set([...color(level), 255], at);
    }
  }
  pen.putImageData(pixels, 0, 0);
}

/** The color of a level, between the two nearest of the list. */
function color(level) {
  const place = level * (COLORS.length - 1);
  const below = Math.min(COLORS.length - 2, Math.floor(place));
  return COLORS[below].map((part, at) => part + (COLORS[below + 1][at] - part) * (place - below));
}

/** A number with at most two places. */
const said = (number) => String(Math.round(100 * number) / 100);
