// A card of the gallery: one generation, from acceptance to its pictures.

import * as api from './api.js';
import { caption } from './classes.js';
import { element, icon, iconButton } from './element.js';
import { isTerminal, watch } from './events.js';
import { command, fileName } from './curl.js';
import { request } from './settings.js';
import { Tile } from './tile.js';

/** Time for the second press that confirms a deletion. */
const CONFIRM_MS = 4000;

export class Card {
  /**
   * @param {object} generation the generation object of the API
   * @param {{use(generation: object): void, open(card: Card, index: number): void, removed(card: Card): void,
   *   announce(text: string): void, copy(text: string): void, finished(card: Card): void,
   *   schemaOf(model: string): object | undefined}} page
   */
  constructor(generation, page) {
    this.page = page;
    this.id = generation.id;
    this.build(generation);
    this.update(generation);
    if (!isTerminal(generation.status)) this.stop = watch(this.id, (name, data) => this.hear(name, data));
  }

  get active() {
    return !isTerminal(this.generation.status);
  }

  /** The finished pictures. */
  get images() {
    return this.generation.images ?? [];
  }

  focus() {
    this.element.focus();
  }

  async cancel() {
    if (!this.active || this.canceling) return;
    // A running generation ends before its next step, so `canceling` stays true until its last event.
    this.canceling = true;
    this.say('Canceling …');
    try {
      const generation = await api.cancel(this.id);
      // The last event may have arrived before the answer.
      if (this.active) this.update(generation);
    } catch (problem) {
      this.canceling = false;
      this.page.announce(problem.message, true);
    }
  }

  // Private methods.

  build({ params }) {
    this.tiles = Array.from({ length: params.n ?? 1 }, (_, index) => {
      return new Tile(params, this.caption(params), () => (this.images.length > 0 ? this.page.open(this, index) : this.focus()));
    });
    this.status = element('p', { class: 'status' });
    this.bar = element('progress', { max: 100, 'aria-label': 'Progress' });
    this.actions = element('div', { class: 'actions' });
    const prompt = this.caption(params) || '(no prompt)';
    this.element = element(
      'article', { class: 'card', tabindex: 0, 'aria-label': prompt, onkeydown: (event) => this.press(event) },
      element('div', { class: 'tiles' }, ...this.tiles.map((tile) => tile.element)),
      this.bar,
      element('p', { class: 'words', title: prompt }, prompt),
      element('div', { class: 'foot' }, this.status, this.actions),
    );
    this.element.querySelector('.tiles').dataset.count = Math.min(this.tiles.length, 9);
  }

  /** The prompt, or the names of the requested classes. */
  caption(params) {
    return caption(params, this.page.schemaOf(params.model));
  }

  press(event) {
    if (event.key === 'Escape') this.cancel();
    const plain = !event.ctrlKey && !event.metaKey && !event.repeat;
    if (event.key === 'Enter' && plain && event.target === this.element && this.images.length > 0) {
      // Otherwise the same key press also activates the focused button of the large view.
      event.preventDefault();
      this.page.open(this, 0);
    }
  }

  hear(name, data) {
    if (name === 'progress') this.progress(data);
    else if (name === 'preview') this.tiles[data.index]?.preview(data);
    else if (name === 'image') this.tiles[data.image.index]?.show(data.image);
    else if (name === 'started') this.update({ ...this.generation, status: 'running', queue: null });
    else if (name === 'retrying') this.update({ ...this.generation, status: 'queued', progress: null, queue: null });
    else if (name === 'gone') this.remove();
    else if (name === 'queued') return;
    else this.update(data.generation ?? data);
  }

  /** Shows the state of a generation object. */
  update(generation) {
    const before = this.generation?.status;
    this.generation = generation;
    this.element.dataset.status = generation.status;
    for (const image of this.images) this.tiles[image.index]?.show(image);
    this.progress(generation.progress);
    if (generation.status === before) return;
    this.showActions();
    if (!this.active) this.stop?.();
    if (before !== undefined) this.page.announce(`${this.caption(generation.params)}: ${this.status.textContent}`);
    if (before !== undefined && generation.status === 'succeeded') this.page.finished(this);
  }

  /** Shows the `progress` of a generation object or event; null before the first progress. */
  progress(progress) {
    const { status, queue } = this.generation;
    this.bar.hidden = !this.active;
    if (status === 'running' && progress?.percent > 0) this.bar.value = progress.percent;
    else this.bar.removeAttribute('value');
    if (status === 'queued') this.say(place(queue));
    else if (status === 'running') this.say(this.canceling ? 'Canceling …' : doing(progress));
    else this.say(this.ended());
  }

  ended() {
    const { status, error, params, started_at: started, finished_at: finished } = this.generation;
    if (status === 'failed') return error?.message ?? 'Failed';
    if (status === 'canceled') return 'Canceled';
    if (status === 'expired') return 'Expired: waited too long to start';
    const seconds = started && finished ? (new Date(finished) - new Date(started)) / 1000 : null;
    const took = seconds === null ? [] : [`${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`];
    return [`${params.width} × ${params.height}`, `${params.steps} steps`, `seed ${params.seed}`, ...took].join(' · ');
  }

  say(text) {
    if (this.status.textContent !== text) this.status.textContent = text;
  }

  showActions() {
    const { params, status } = this.generation;
    if (this.active) {
      const cancel = element('button', { type: 'button', class: 'plain', title: 'Cancel (Esc)', onclick: () => this.cancel() }, 'Cancel');
      this.actions.replaceChildren(cancel);
      return;
    }
    const held = this.actions.contains(document.activeElement);
    const use = iconButton('reuse', 'Use these settings', () => this.page.use(this.generation));
    const curl = iconButton('curl', 'Copy as curl', () => this.page.copy(command(request(params, this.page.schemaOf(params.model)))));
    const download = status === 'succeeded' && this.images.length === 1 ? [this.downloadLink(this.images[0])] : [];
    this.actions.replaceChildren(...download, use, curl, this.deleteButton());
    if (held) this.focus();
  }

  downloadLink(image) {
    const name = fileName({ prompt: this.caption(this.generation.params), seed: image.seed }, image.content_type);
    return element('a', { class: 'icon', href: api.local(image.url), download: name, 'aria-label': 'Download', title: 'Download' }, icon('download'));
  }

  deleteButton() {
    const button = iconButton('bin', 'Delete', async () => {
      if (!button.classList.contains('sure')) {
        button.classList.add('sure');
        this.page.announce('Press again to delete.');
        button.title = button.ariaLabel = 'Press again to delete';
        setTimeout(() => {
          button.classList.remove('sure');
          button.title = button.ariaLabel = 'Delete';
        }, CONFIRM_MS);
        return;
      }
      try {
        await api.erase(this.id);
        this.remove();
      } catch (problem) {
        if (problem.status === 404) this.remove();
        else this.page.announce(problem.message, true);
      }
    });
    return button;
  }

  remove() {
    this.stop?.();
    this.page.removed(this);
  }
}

function place(queue) {
  if (!queue) return 'Queued';
  const begins = queue.estimated_start_s >= 1 ? ` · starts in ${duration(queue.estimated_start_s)}` : '';
  return (queue.position === 0 ? 'Next in the queue' : `Queued, ${queue.position} ahead`) + begins;
}

const PHASES = {
  loading: 'Loading the model', encoding: 'Encoding the prompt', decoding: 'Decoding the picture', saving: 'Saving',
};

function doing(progress) {
  if (!progress) return 'Starting';
  if (PHASES[progress.phase]) return PHASES[progress.phase];
  const left = progress.eta_s > 0.5 ? ` · ${duration(progress.eta_s)} left` : '';
  return `Step ${progress.step} of ${progress.steps}${left}`;
}

function duration(seconds) {
  const whole = Math.round(seconds);
  return whole < 90 ? `${whole} s` : `${Math.round(whole / 60)} min`;
}
