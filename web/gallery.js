// The gallery: one card per generation, newest first.

import * as api from './api.js';
import { Card } from './card.js';
import { mainField } from './element.js';

/** Generations per page of the list. */
const PAGE = 24;

export class Gallery {
  /** @param {object} page the callbacks of `Card`, without `removed` */
  constructor(page) {
    this.page = { ...page, removed: (card) => this.remove(card) };
    /** @type {Map<string, Card>} */
    this.cards = new Map();
    this.list = document.getElementById('cards');
    this.more = document.getElementById('more');
    this.empty = document.getElementById('empty');
    this.more.addEventListener('click', () => this.older());
  }

  /** Adds a card for a generation at its place by age, if there is none yet. Ids sort by age. */
  add(generation) {
    const known = this.cards.get(generation.id);
    if (known) return known;
    const card = new Card(generation, this.page);
    this.cards.set(card.id, card);
    const follower = [...this.list.children].find((element) => element.dataset.id < card.id);
    card.element.dataset.id = card.id;
    this.list.insertBefore(card.element, follower ?? null);
    this.empty.hidden = true;
    return card;
  }

  /** Loads running and queued generations and the newest pictures. */
  async load() {
    const pages = await Promise.all([
      api.list({ limit: 100, status: 'running' }),
      api.list({ limit: 100, status: 'queued' }),
      api.list({ limit: PAGE, status: 'succeeded' }),
    ]);
    for (const page of pages) for (const generation of page.data) this.add(generation);
    this.remember(pages[2]);
    this.empty.hidden = this.cards.size > 0;
  }

  /** Updates the positions in the queue, for which there are no events. */
  async refreshQueued() {
    if (![...this.cards.values()].some((card) => card.generation.status === 'queued')) return;
    const page = await api.list({ limit: 100, status: 'queued' });
    for (const generation of page.data) {
      const card = this.cards.get(generation.id);
      // An event may have arrived before this answer.
      if (card?.generation.status === 'queued') card.update(generation);
    }
  }

  async older() {
    const last = this.list.lastElementChild;
    this.more.disabled = true;
    try {
      const page = await api.list({ limit: PAGE, status: 'succeeded', after: this.last });
      for (const generation of page.data) this.add(generation);
      this.remember(page);
      // The button may be hidden now, so the focus moves to the first of the added pictures.
      (last?.nextElementSibling ?? last)?.focus();
    } catch (problem) {
      this.page.announce(problem.message, true);
    }
    this.more.disabled = false;
  }

  /** All pictures in the order of the page: `[{card, image}]`. */
  pictures() {
    return [...this.list.children].flatMap((element) => {
      const card = this.cards.get(element.dataset.id);
      return card.images.map((image) => ({ card, image }));
    });
  }

  // Private methods.

  remember(page) {
    this.last = page.last_id ?? page.data.at(-1)?.id;
    this.more.hidden = !page.has_more;
  }

  remove(card) {
    const neighbour = card.element.nextElementSibling ?? card.element.previousElementSibling;
    const held = card.element.contains(document.activeElement);
    card.element.remove();
    this.cards.delete(card.id);
    this.empty.hidden = this.cards.size > 0;
    if (held) (neighbour ?? mainField()).focus();
  }
}
