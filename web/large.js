// The large view: one picture with its settings. Arrow keys move to the neighboring pictures.

import { show } from './api.js';
import { caption } from './classes.js';
import { command, fileName } from './curl.js';
import { downloads } from './download.js';
import { element } from './element.js';
import { schedulerName } from './scheduler.js';
import { paramsOfImage, request } from './settings.js';
import { Zoom } from './zoom.js';

export class Large {
  /** @param {{pictures(): {card: object, image: object}[], use(generation: object): void, copy(text: string): void,
   *   more(params: object): void, code(request: object): void, compare(first: object, second: object): void,
   *   schemaOf(model: string): object | undefined}} page */
  constructor(page) {
    this.page = page;
    this.dialog = document.getElementById('large');
    this.at = (name) => document.getElementById(`large-${name}`);
    this.zoom = new Zoom(this.at('zoom'), this.at('frame'), this.at('image'));
    this.dialog.addEventListener('click', (event) => {
      const action = event.target.closest('[data-do]')?.dataset.do;
      if (action) this[action]();
      else if (event.target === this.dialog) this.close();
    });
    this.dialog.addEventListener('keydown', (event) => {
      // In a zoomed picture, the arrow keys scroll.
      const scrolls = event.target === this.at('frame');
      if (event.key === 'ArrowLeft' && !scrolls) this.previous();
      if (event.key === 'ArrowRight' && !scrolls) this.next();
      // If the key that opened the view is still held, it must not press a button of the view.
      if (event.key === 'Enter' && event.repeat) event.preventDefault();
    });
    // Escape closes the view as the button does: the focus is back on the card before any later key press.
    this.dialog.addEventListener('cancel', (event) => {
      event.preventDefault();
      this.close();
    });
  }

  open(card, index) {
    const image = card.images.find((image) => image.index === index) ?? card.images[0];
    this.show({ card, image });
    if (!this.dialog.open) this.dialog.showModal();
  }

  close() {
    this.dialog.close();
    if (this.shown?.card.element.isConnected) this.shown.card.focus();
  }

  previous() {
    this.move(-1);
  }

  next() {
    this.move(1);
  }

  /** Makes the picture the input picture of the form. */
  start() {
    const { image } = this.shown;
    this.shown = null;
    this.close();
    this.page.start(image);
  }

  use() {
    const { card, image } = this.shown;
    const { generation } = card;
    this.shown = null;
    this.close();
    this.page.use({ ...generation, params: paramsOfImage(generation.params, image) });
  }

  more() {
    const params = this.params();
    this.close();
    this.page.more(params);
  }

  /** Compares the picture with its neighbor. */
  compare() {
    const other = this.neighbour(1) ?? this.neighbour(-1);
    const { shown } = this;
    this.close();
    this.page.compare(shown, other ?? shown);
  }

  curl() {
    this.page.copy(command(this.request()));
  }

  code() {
    this.page.code(this.request());
  }

  // Private methods.

  params() {
    return paramsOfImage(this.shown.card.generation.params, this.shown.image);
  }

  /** The request that draws the shown picture again. */
  request() {
    const params = this.params();
    return request(params, this.page.schemaOf(params.model));
  }

  /** @returns the picture `by` places further, if there is one */
  neighbour(by) {
    const pictures = this.page.pictures();
    const { card, image } = this.shown;
    const at = pictures.findIndex((picture) => picture.card === card && picture.image.index === image.index);
    return at < 0 ? undefined : pictures[at + by];
  }

  move(by) {
    const picture = this.neighbour(by);
    if (picture) this.show(picture);
  }

  show(picture) {
    const { card, image } = picture;
    const { params, model, created_at: created } = card.generation;
    this.shown = picture;
    const img = this.at('image');
    show(img, image.url);
    const words = caption(paramsOfImage(params, image), this.page.schemaOf(params.model));
    img.alt = words || 'Picture';
    this.zoom.show(image);
    this.at('prompt').textContent = words || '(no prompt)';
    downloads(this.at('download'), image, fileName({ prompt: words, seed: image.seed }, image.content_type));
    const facts = {
      'Negative prompt': params.negative_prompt, Model: model ?? params.model, Size: `${image.width} × ${image.height}`, Seed: image.seed,
      Steps: params.steps, 'Guidance scale': params.guidance_scale, 'Class guidance scale': params.class_guidance_scale,
      Sampler: schedulerName(params.scheduler),
      Created: created && new Date(created).toLocaleString(),
      Expires: card.generation.expires_at && new Date(card.generation.expires_at).toLocaleString(),
    };
    const known = Object.entries(facts).filter(([, value]) => value !== undefined && value !== null && value !== '');
    this.at('facts').replaceChildren(...known.map(([name, value]) => {
      return element('div', {}, element('dt', {}, name), element('dd', {}, String(value)));
    }));
    for (const [action, by] of [['previous', -1], ['next', 1]]) {
      this.dialog.querySelector(`[data-do=${action}]`).disabled = !this.neighbour(by);
    }
  }
}
