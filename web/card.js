// A card of the gallery: one generation, from acceptance to its pictures, films or sounds.

import * as api from './api.js';
import { caption } from './classes.js';
import { confirmed } from './confirm.js';
import { command, fileName } from './curl.js';
import { downloadIcon } from './download.js';
import { element, iconButton } from './element.js';
import { isTerminal, watch } from './events.js';
import { Film } from './film.js';
import { FILMS, PICTURES, SOUNDS, kindOf } from './kinds.js';
import { request } from './settings.js';
import { Sound } from './sound.js';
import { expiryText, stateText } from './state.js';
import { Tile } from './tile.js';

export class Card {
  /**
   * @param {object} generation the generation object of the API
   * @param {{use(generation: object): void, start(image: object): void, open(card: Card, index: number): void, removed(card: Card): void,
   *   announce(text: string, seen?: boolean): void, copy(text: string): void, finished(card: Card): void,
   *   more(params: object, kind: object): void, changed(): void, chosen(card: Card): void,
   *   schemaOf(model: string): object | undefined}} page
   */
  constructor(generation, page) {
    this.page = page;
    this.id = generation.id;
    this.kind = kindOf(generation);
    this.told = 0; // How many changes of the star are known.
    this.build(generation);
    this.update(generation);
    if (!isTerminal(generation.status)) this.stop = watch(this.id, (name, data) => this.hear(name, data), this.kind);
  }

  get active() {
    return !isTerminal(this.generation.status);
  }

  /** The finished pictures, films or sounds. */
  get files() {
    return this.generation[this.kind.files] ?? [];
  }

  /** The finished pictures. */
  get images() {
    return this.kind === PICTURES ? this.files : [];
  }

  /** Whether the user has chosen this card for an action on several. */
  get chosen() {
    return this.choice.checked;
  }

  set chosen(chosen) {
    this.choice.checked = chosen;
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
      const generation = await api.cancel(this.id, this.kind);
      // The last event may have arrived before the answer.
      if (this.active) this.update(generation);
    } catch (problem) {
      this.canceling = false;
      this.page.announce(problem.message, true);
    }
  }

  /** Deletes the generation. Rejects with a Problem. */
  async erase() {
    await api.erase(this.id, this.kind).catch((problem) => {
      if (problem.status !== 404) throw problem;
    });
    this.remove();
  }

  /** Gives the generation a star, so that the server keeps it, or takes the star away. */
  async toggleStar() {
    if (this.starring) return;
    this.starring = true;
    const { told } = this;
    try {
      const generation = await api.star(this.id, !this.generation.starred, this.kind);
      // If events have told of the star since the request, they may be newer than this answer.
      if (told === this.told) this.starChanged(generation);
      this.page.announce(generation.starred ? `Starred. The server keeps the ${this.kind.noun}.` : 'The star is gone.');
    } catch (problem) {
      this.page.announce(problem.message, true);
    }
    this.starring = false;
  }

  /** Some client, perhaps this page, has given the generation a star, or has taken the star away. */
  starChanged(generation) {
    this.told += 1;
    this.update(generation);
  }

  /** Shows the state of a generation object. */
  update(generation) {
    const before = this.generation?.status;
    const wasStarred = this.generation?.starred ?? false;
    this.generation = generation;
    this.element.dataset.status = generation.status;
    for (const file of this.files) this.tiles[file.index]?.show(file);
    this.warn(generation.warnings ?? []);
    this.progress(generation.progress);
    this.age();
    this.star.setAttribute('aria-pressed', generation.starred);
    this.element.toggleAttribute('data-starred', generation.starred);
    if (before !== undefined && generation.starred !== wasStarred) this.page.changed();
    if (generation.status !== before) this.showActions();
    if (generation.status === before) return;
    if (!this.active) this.stop?.();
    if (before !== undefined) this.page.announce(`${this.caption(generation.params)}: ${this.status.textContent}`);
    if (before !== undefined && generation.status === 'succeeded') this.page.finished(this);
  }

  /** Updates the text about the time until the generation is deleted. */
  age() {
    if (!this.generation) return;
    const text = expiryText(this.generation);
    if (this.expiry.textContent !== text) this.expiry.textContent = text;
    this.expiry.hidden = text === '';
  }

  remove() {
    this.stop?.();
    this.page.removed(this);
  }

  // Private methods.

  build({ params }) {
    this.tiles = Array.from({ length: params.n ?? 1 }, (_, index) => {
      const open = () => (this.images.length > 0 ? this.page.open(this, index) : this.focus());
      const [words, lost] = [this.caption(params), () => this.renew()];
      if (this.kind === FILMS) return new Film(params, words, lost);
      return this.kind === SOUNDS ? new Sound(words, lost) : new Tile(params, words, open, lost);
    });
    const prompt = this.caption(params) || (this.kind === FILMS && params.image ? 'From a picture' : '(no prompt)');
    this.status = element('p', { class: 'status' });
    this.expiry = element('p', { class: 'expiry', hidden: true });
    this.warnings = element('ul', { class: 'warnings', 'aria-label': 'Warnings', hidden: true });
    this.bar = element('progress', { max: 100, 'aria-label': 'Progress' });
    this.actions = element('div', { class: 'actions' });
    this.star = iconButton('star', `Star: keep this ${this.kind.noun}`, () => this.toggleStar());
    this.star.classList.add('star');
    this.choice = element('input', { type: 'checkbox', 'aria-label': `Select: ${prompt}`, onchange: () => this.page.chosen(this) });
    this.element = element(
      'article', { class: 'card', tabindex: 0, 'aria-label': prompt, onkeydown: (event) => this.press(event) },
      element('div', { class: 'tiles' }, ...this.tiles.map((tile) => tile.element)),
      element('label', { class: 'choice' }, this.choice), this.star,
      this.bar,
      element('p', { class: 'words', title: prompt }, prompt),
      element('div', { class: 'foot' }, this.status, this.warnings, this.expiry, this.actions),
    );
    const tiles = this.element.querySelector('.tiles');
    tiles.dataset.count = Math.min(this.tiles.length, 9);
    tiles.dataset.kind = this.kind.id;
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
    else if (name === 'gone' || name === 'deleted') this.remove();
    else if (name === 'queued') return;
    else if (name === 'state' || data?.generation) this.update(data.generation ?? data);
  }

  /** Asks for new URLs of the files, because the old ones have expired. */
  async renew() {
    const generation = await api.get(this.id, this.kind).catch(() => null);
    if (generation) this.update(generation);
  }

  /** Shows the `progress` of a generation object or event; null before the first progress. */
  progress(progress) {
    this.bar.hidden = !this.active;
    if (this.generation.status === 'running' && progress?.percent > 0) this.bar.value = progress.percent;
    else this.bar.removeAttribute('value');
    this.say(stateText(this.generation, progress, this.canceling));
  }

  /** Shows what the server says about the request, such as words that it left out. */
  warn(warnings) {
    this.warnings.hidden = warnings.length === 0;
    this.warnings.replaceChildren(...warnings.map(({ detail }) => element('li', {}, detail)));
  }

  say(text) {
    if (this.status.textContent !== text) this.status.textContent = text;
  }

  showActions() {
    const { params, status } = this.generation;
    this.star.hidden = status !== 'succeeded';
    if (this.active) {
      const cancel = element('button', { type: 'button', class: 'plain', title: 'Cancel (Esc)', onclick: () => this.cancel() }, 'Cancel');
      this.actions.replaceChildren(cancel);
      return;
    }
    const held = this.actions.contains(document.activeElement);
    const use = iconButton('reuse', 'Use these settings', () => this.page.use(this.generation));
    const more = iconButton('more', `${this.kind.more} more`, () => this.page.more(params, this.kind));
    const curl = iconButton('curl', 'Copy as curl', () => this.page.copy(command(request(params, this.page.schemaOf(params.model)), this.kind)));
    const single = status === 'succeeded' && this.files.length === 1 ? this.files[0] : null;
    // Several pictures are downloaded from the large view.
    const files = this.kind === PICTURES ? [single].filter(Boolean) : this.files;
    const download = files.map((file) => this.downloadLink(file, files.length > 1 ? ` ${file.index + 1}` : ''));
    const start = single && this.kind === PICTURES ? [iconButton('picture', 'Use as source', () => this.page.start(single))] : [];
    this.actions.replaceChildren(...download, use, ...start, more, curl, this.deleteButton());
    if (held) this.focus();
  }

  downloadLink(file, number) {
    return downloadIcon(file, fileName({ prompt: this.caption(this.generation.params), seed: file.seed }, file.content_type), number);
  }

  deleteButton() {
    const button = iconButton('bin', 'Delete');
    return confirmed(button, {
      announce: this.page.announce,
      show: (asks) => { button.title = button.ariaLabel = asks ? 'Press again to delete' : 'Delete'; },
      act: () => this.erase().catch((problem) => this.page.announce(problem.message, true)),
    });
  }
}
