// A tile of a card: shows noise, then previews, then the finished picture.

import { show } from './api.js';
import { element } from './element.js';

/** Number of noise cells along the longer side. */
const NOISE_CELLS = 16;

export class Tile {
  /** @param {() => void} lost called if the finished picture cannot be loaded */
  constructor(params, caption, open, lost) {
    this.lost = lost;
    this.alt = caption || 'Picture';
    this.element = element('button', { type: 'button', class: 'tile', tabindex: -1, onclick: open, 'aria-label': this.alt });
    this.element.style.aspectRatio = `${params.width} / ${params.height}`;
    this.layer = noise(params);
    this.element.append(this.layer);
  }

  /** Shows the picture of a `generation.preview` event. */
  preview({ content_type: type, b64 }) {
    if (this.shown) return;
    this.put(element('img', { class: 'preview', alt: '', src: `data:${type ?? 'image/png'};base64,${b64}` }));
  }

  /** Shows a finished image of the generation object. */
  show({ url }) {
    if (this.shown === url) return;
    this.shown = url;
    this.element.tabIndex = 0;
    const image = element('img', { class: 'picture', alt: this.alt, loading: 'lazy', decoding: 'async' });
    image.addEventListener('error', () => this.lost(), { once: true });
    this.put(image);
    show(image, url);
  }

  /** Puts an image on the current layer, and removes that layer after the image has loaded. This prevents flicker. */
  put(image) {
    const before = this.layer;
    this.layer = image;
    this.element.append(image);
    // A picture outside the window loads when the user scrolls to it. An image that fails to load is removed.
    image.addEventListener('load', () => {
      image.classList.add('there');
      setTimeout(() => before.remove(), 400);
    });
    image.addEventListener('error', () => {
      if (image.isConnected && this.layer === image) this.layer = before;
      image.remove();
    });
  }
}

function noise({ width, height }) {
  const longer = Math.max(width, height);
  const canvas = element('canvas', { class: 'noise' });
  canvas.width = Math.max(1, Math.round(NOISE_CELLS * width / longer));
  canvas.height = Math.max(1, Math.round(NOISE_CELLS * height / longer));
  const pen = canvas.getContext('2d');
  const cells = pen.createImageData(canvas.width, canvas.height);
  for (let at = 0; at < cells.data.length; at += 4) {
    for (let channel = 0; channel < 3; channel += 1) cells.data[at + channel] = 90 + Math.random() * 110;
    cells.data[at + 3] = 70;
  }
  pen.putImageData(cells, 0, 0);
  return canvas;
}
