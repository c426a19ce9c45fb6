// The bar above the gallery: search, filter, and actions on several generations.

import * as api from './api.js';
import { confirmed } from './confirm.js';
import { fileName } from './curl.js';
import { save } from './download.js';
import { duration } from './duration.js';
import { element } from './element.js';
import { PICTURES } from './kinds.js';
import { zip } from './zip.js';

/** The most generations that a search loads before it asks whether to go on. */
const MOST_SEARCHED = 2000;
const FILTERS = {
  all: { name: 'All', holds: () => true },
  succeeded: { name: 'Finished', holds: (card) => card.generation.status === 'succeeded' },
  starred: { name: 'Starred', holds: (card) => card.generation.starred },
  failed: { name: 'Failed or canceled', holds: (card) => ['failed', 'canceled', 'expired'].includes(card.generation.status) },
};

export class History {
  /** @param {{gallery: object, announce(text: string, seen?: boolean): void, compare(first: object, second: object): void}} page */
  constructor(page) {
    this.page = page;
    /** The number of cards at which a search stops. */
    this.most = MOST_SEARCHED;
    this.place = document.getElementById('history');
    this.build();
    this.name(PICTURES);
  }

  /** Takes the words of a kind. */
  name({ id, nouns }) {
    this.nouns = nouns;
    this.search.placeholder = this.search.ariaLabel = `Search the ${nouns}`;
    this.further.textContent = `Search older ${nouns}`;
    this.bar.ariaLabel = `Selected ${nouns}`;
    this.buttons.compare.hidden = id !== PICTURES.id;
  }

  /** Updates everything that depends on the cards. */
  changed() {
    const { cards } = this.page.gallery;
    this.place.hidden = cards.size === 0;
    const wanted = this.search.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    const { holds } = FILTERS[this.filter.value];
    for (const card of cards.values()) {
      const text = `${card.element.getAttribute('aria-label')} ${card.generation.params.model} ${card.generation.params.seed}`.toLowerCase();
      const hidden = !holds(card) || !wanted.every((word) => text.includes(word));
      // What has the focus must not disappear, such as the star of a card that loses it.
      if (hidden && card.element.contains(document.activeElement)) this.filter.focus();
      if (card.element.hidden !== hidden) card.element.hidden = hidden;
      if (hidden) card.chosen = false;
    }
    this.say();
    this.choose();
  }

  // Private methods.

  build() {
    this.search = element('input', { id: 'search', type: 'search' });
    this.filter = element(
      'select', { id: 'filter', 'aria-label': 'Show' },
      ...Object.entries(FILTERS).map(([value, { name }]) => element('option', { value }, name)),
    );
    this.toggle = element('button', { id: 'choose', class: 'plain', type: 'button', 'aria-pressed': 'false' }, 'Select');
    this.note = element('p', { class: 'note', role: 'status' });
    this.further = element('button', { id: 'search-on', class: 'plain', type: 'button', hidden: true, onclick: () => this.findOlder() });
    this.count = element('span', { class: 'count', role: 'status' });
    const button = (id, text, onclick) => element('button', { id, class: 'plain', type: 'button', ...(onclick ? { onclick } : {}) }, text);
    this.buttons = {
      all: button('choose-all', 'All', () => this.chooseAll()),
      compare: button('choose-compare', 'Compare', () => this.compare()),
      zip: button('choose-zip', 'Download as ZIP', () => this.download()),
      erase: confirmed(button('choose-erase', 'Delete'), {
        announce: this.page.announce, act: () => this.erase(),
        show: (asks) => { this.buttons.erase.textContent = asks ? 'Press again to delete' : 'Delete'; },
      }),
    };
    this.bar = element('div', { class: 'chosen', role: 'group', hidden: true }, this.count, ...Object.values(this.buttons));
    this.place.append(element('div', { class: 'history-bar' }, this.search, this.filter, this.toggle), this.bar, this.note, this.further);
    this.search.addEventListener('input', () => this.find());
    this.filter.addEventListener('change', () => this.find());
    this.toggle.addEventListener('click', () => this.select(this.bar.hidden));
  }

  /** Says how many generations are found, and how long pictures are kept. */
  say() {
    const { gallery } = this.page;
    const found = this.filtered ? `${gallery.shown.length} of ${gallery.cards.size} found. ` : '';
    this.further.hidden = !this.filtered || this.filter.value === 'starred' || this.searching || !gallery.hasOlder;
    const rest = this.further.hidden ? this.kept() : `Older ${this.nouns} are not searched yet.`;
    const text = found + (this.searching ? `Searching older ${this.nouns} …` : rest);
    if (this.note.textContent !== text) this.note.textContent = text;
  }

  /** Whether a text or a filter is set. */
  get filtered() {
    return this.search.value.trim() !== '' || this.filter.value !== 'all';
  }

  /** How long the server keeps generations, as the finished ones show. */
  kept() {
    const ended = [...this.page.gallery.cards.values()].map((card) => card.generation).filter((one) => one.expires_at && one.finished_at);
    if (ended.length === 0) return '';
    // A generation whose star was taken away is kept longer.
    const kept = Math.min(...ended.map((one) => new Date(one.expires_at) - new Date(one.finished_at)));
    return `The server deletes ${this.nouns} ${duration(kept / 1000)} after they are ${this.nouns === PICTURES.nouns ? 'drawn' : 'made'}. It keeps those with a star.`;
  }

  /** Shows what matches, and loads older generations so that all are searched; those with a star need no search. */
  async find() {
    const { gallery } = this.page;
    if (this.searching || !this.filtered) return this.changed();
    this.searching = true;
    try {
      this.changed();
      while (this.filter.value !== 'starred' && gallery.hasOlder && gallery.cards.size < this.most) {
        await gallery.loadOlder(100);
        this.changed();
      }
      if (this.filter.value === 'starred') await gallery.loadStarred();
    } catch (problem) {
      this.page.announce(problem.message, true);
    }
    this.searching = false;
    this.changed();
  }

  /** Continues a search that has stopped. */
  async findOlder() {
    this.most = this.page.gallery.cards.size + MOST_SEARCHED;
    this.search.focus();
    await this.find();
  }

  select(on) {
    this.bar.hidden = !on;
    this.toggle.setAttribute('aria-pressed', on);
    document.getElementById('cards').toggleAttribute('data-choosing', on);
    if (!on) for (const card of this.page.gallery.cards.values()) card.chosen = false;
    this.choose();
  }

  get chosen() {
    return this.page.gallery.shown.filter((card) => card.chosen);
  }

  /** Updates what depends on the chosen cards. */
  choose() {
    const { chosen } = this;
    const files = chosen.flatMap((card) => card.files).length;
    this.count.textContent = `${chosen.length} selected`;
    this.buttons.compare.disabled = files !== 2;
    this.buttons.zip.disabled = files === 0;
    this.buttons.erase.disabled = !chosen.some((card) => !card.active);
  }

  chooseAll() {
    const all = this.page.gallery.shown;
    const on = all.some((card) => !card.chosen);
    for (const card of all) card.chosen = on;
    this.choose();
  }

  compare() {
    this.page.compare(...this.chosen.flatMap((card) => card.images.map((image) => ({ card, image }))));
  }

  async download() {
    const chosen = this.chosen.flatMap((card) => card.files.map((made) => ({ card, made })));
    this.buttons.zip.disabled = true;
    try {
      const files = [];
      for (const { card, made } of chosen) {
        const bytes = new Uint8Array(await (await api.bytes(made)).arrayBuffer());
        const name = fileName({ prompt: card.element.getAttribute('aria-label'), seed: made.seed }, made.content_type);
        files.push({ name, bytes, date: new Date(card.generation.created_at) });
      }
      save(zip(files), `${this.nouns}.zip`);
    } catch (problem) {
      this.page.announce(problem.message, true);
    }
    this.choose();
  }

  async erase() {
    const ended = this.chosen.filter((card) => !card.active);
    let erased = 0;
    try {
      for (const card of ended) {
        await card.erase();
        erased += 1;
      }
    } catch (problem) {
      this.page.announce(problem.message, true);
    }
    this.page.announce(erased === 1 ? '1 deleted' : `${erased} deleted`, true);
    this.toggle.focus();
  }
}
