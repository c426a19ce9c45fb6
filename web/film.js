// A film of a card: a player for MP4, or an image for the formats that browsers show as moving images.

import * as api from './api.js';
import { element } from './element.js';
import { whenSeen } from './seen.js';

export class Film {
  /** @param {object} params @param {string} caption @param {() => void} lost called once if the file cannot be loaded */
  constructor(params, caption, lost) {
    this.caption = caption || 'Film';
    this.lost = lost;
    this.element = element('div', { class: 'film' });
    this.element.style.aspectRatio = `${params.width} / ${params.height}`;
  }

  /** Shows the picture of a `generation.preview` event until the film is there. */
  preview({ content_type: type, b64 }) {
    if (this.shown) return;
    const src = `data:${type ?? 'image/png'};base64,${b64}`;
    const image = this.element.querySelector('img.preview');
    if (image) image.src = src;
    else this.element.replaceChildren(element('img', { class: 'preview', alt: '', src }));
  }

  /** Shows a finished film of the generation object. */
  show(artifact) {
    if (this.shown === artifact.url) return;
    this.shown = artifact.url;
    const { content_type: type } = artifact;
    if (type === 'video/mp4') whenSeen(this.element, () => this.put(this.player(), artifact, 'loadeddata'));
    else if (type.startsWith('image/')) whenSeen(this.element, () => this.put(element('img', { alt: this.caption }), artifact, 'load'));
    else this.say('An archive with one picture for each frame. Download it to see them.');
  }

  // Private methods.

  player() {
    return element('video', { controls: true, loop: true, muted: true, playsinline: true, preload: 'metadata', 'aria-label': this.caption });
  }

  put(player, { url }, loaded) {
    player.addEventListener(loaded, () => { this.asked = false; }, { once: true });
    player.addEventListener('error', () => {
      // The URL may have expired: the generation has a new one. If the new one fails too, the browser cannot show the file.
      this.shown = undefined;
      if (!this.asked) this.lost();
      else this.say('This browser cannot show the film. Download it to see it in another program.');
      this.asked = true;
    }, { once: true });
    this.element.replaceChildren(player);
    api.show(player, url);
  }

  say(text) {
    this.element.replaceChildren(element('p', { class: 'note' }, text));
  }
}
