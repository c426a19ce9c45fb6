// The gallery: one card per generation of the chosen kind, newest first. Generations of other pages of this browser appear as well.

import * as api from './api.js';
import { Card } from './card.js';
import { mainField } from './element.js';
import { follow, isFollowing, isTerminal } from './events.js';
import { PICTURES } from './kinds.js';
import * as tabs from './tabs.js';

/** Generations per page of the list. */
const PAGE = 24;
/** Time between two updates of the times until pictures are deleted. */
const AGE_MS = 30_000;
/** The key of `metadata` that marks generations which no gallery shows, such as those of the live picture. */
export const UNLISTED = 'latentd-page';

export class Gallery {
  /** @param {object} page the callbacks of `Card`, without `removed`; `changed()` also tells of new and removed cards */
  constructor(page) {
    this.kind = PICTURES;
    this.page = { ...page, removed: (card) => this.erased(card) };
    /** @type {Map<string, Card>} */
    this.cards = new Map();
    this.list = document.getElementById('cards');
    this.more = document.getElementById('more');
    this.empty = document.getElementById('empty');
    this.more.addEventListener('click', () => this.older());
    tabs.listen((kind, id) => this.hear(kind, id));
    follow((name, id, data) => this.happened(name, id, data), () => this.loaded && this.refresh());
    document.addEventListener('visibilitychange', () => !document.hidden && this.loaded && this.refresh());
    setInterval(() => this.age(), AGE_MS);
  }

  /** Adds a card for a generation of the chosen kind at its place by age, if there is none yet. Ids sort by age. */
  add(generation) {
    const known = this.cards.get(generation.id);
    if (known || generation.metadata?.[UNLISTED] || generation.object !== this.kind.object) return known;
    const card = new Card(generation, this.page);
    this.cards.set(card.id, card);
    const follower = [...this.list.children].find((element) => element.dataset.id < card.id);
    card.element.dataset.id = card.id;
    this.list.insertBefore(card.element, follower ?? null);
    this.empty.hidden = true;
    this.page.changed();
    return card;
  }

  /** Adds a generation that this page has created. */
  created(generation) {
    tabs.tell('created', generation.id);
    return this.add(generation);
  }

  /** Loads running and queued generations, and the newest others. */
  async load() {
    const { kind } = this;
    const page = await this.newest();
    // Another tab may have been chosen meanwhile.
    if (kind !== this.kind) return;
    this.remember(page);
    this.loaded = true;
    this.empty.hidden = this.cards.size > 0;
    this.page.changed();
  }

  /** Takes over what has changed on the server since the last time. */
  async refresh() {
    const { kind } = this;
    try {
      const page = await this.newest();
      if (kind !== this.kind) return;
      const present = new Set(page.data.map(({ id }) => id));
      const oldest = page.has_more ? page.data.at(-1)?.id : '';
      for (const card of this.cards.values()) {
        if (card.id >= oldest && !present.has(card.id) && !card.active) this.forget(card);
      }
    } catch {
      // The banner says that the server does not answer.
    }
  }

  /** Shows the generations of another kind. */
  async show(kind) {
    this.clear();
    this.kind = kind;
    await this.load();
  }

  /** Removes all cards, because another key may see others. Generations stay as they are. */
  clear() {
    this.loaded = false;
    this.last = undefined;
    this.more.hidden = true;
    for (const card of [...this.cards.values()]) this.forget(card);
  }

  /** Updates the positions in the queue, for which there are no events, and notices generations of other pages. */
  async refreshQueued(own) {
    const active = [...this.cards.values()].filter((card) => card.active);
    if (this.loaded && (!isFollowing() || own.queued + own.running > active.length)) await this.refresh();
    if (!active.some((card) => card.generation.status === 'queued')) return;
    const page = await api.list({ limit: 100, status: 'queued' }, this.kind);
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
      await this.loadOlder(PAGE);
      // The button may be hidden now, so the focus moves to the first of the added pictures.
      (last?.nextElementSibling ?? last)?.focus();
    } catch (problem) {
      this.page.announce(problem.message, true);
    }
    this.more.disabled = false;
  }

  /** Loads the next older generations. */
  async loadOlder(limit) {
    const { kind } = this;
    const page = await api.list({ limit, after: this.last }, kind);
    if (kind !== this.kind) return;
    for (const generation of page.data) this.add(generation);
    this.remember(page);
  }

  /** Loads all generations with a star. */
  async loadStarred() {
    let page;
    do {
      page = await api.list({ limit: 100, starred: true, after: page?.last_id }, this.kind);
      for (const generation of page.data) {
        const card = this.add(generation);
        if (card && !card.generation.starred) card.update(generation);
      }
    } while (page.has_more);
  }

  /** Whether the server has older generations than the cards. */
  get hasOlder() {
    return !this.more.hidden;
  }

  /** The cards in the order of the page, without those that a filter hides. */
  get shown() {
    return [...this.list.children].filter((element) => !element.hidden).map((element) => this.cards.get(element.dataset.id));
  }

  /** All pictures in the order of the page: `[{card, image}]`. */
  pictures() {
    return this.shown.flatMap((card) => card.images.map((image) => ({ card, image })));
  }

  // Private methods.

  /** Reads the first page of generations and all that wait or run, and adds their cards. */
  async newest() {
    const lists = [{ limit: 100, status: 'running' }, { limit: 100, status: 'queued' }, { limit: PAGE }].map((what) => api.list(what, this.kind));
    const told = new Map([...this.cards.values()].map((card) => [card, card.told]));
    const pages = await Promise.all(lists);
    for (const generation of pages.flatMap((page) => page.data)) {
      const card = this.add(generation);
      if (!card) continue;
      const { status, starred } = card.generation;
      // An event may have arrived before this answer.
      const isNewer = card.active ? isTerminal(generation.status) || status === 'queued' : starred !== generation.starred && told.get(card) === card.told;
      if (isNewer) card.update(generation);
    }
    return pages[2];
  }

  /** An event of the stream of all own generations. */
  happened(name, id, data) {
    const card = this.cards.get(id);
    if (!card && (name === 'queued' || name === 'starred')) this.add(data.generation);
    if (card && !card.active && (name === 'deleted' || name === 'gone')) this.forget(card);
    if (card && (name === 'starred' || name === 'unstarred')) card.starChanged(data.generation);
  }

  /** A message of another tab. */
  async hear(kind, id) {
    const card = this.cards.get(id);
    if (kind === 'created' && !card) await api.get(id, this.kind).then((generation) => this.add(generation), () => {});
    else if (kind === 'deleted' && card) this.forget(card);
  }

  age() {
    for (const card of this.cards.values()) {
      const { expires_at: expires } = card.generation;
      if (expires && new Date(expires) < Date.now()) this.forget(card);
      else card.age();
    }
  }

  remember(page) {
    this.last = page.last_id ?? page.data.at(-1)?.id;
    this.more.hidden = !page.has_more;
  }

  /** A generation was deleted by this page, or while it ran by another client. */
  erased(card) {
    tabs.tell('deleted', card.id);
    this.forget(card);
  }

  forget(card) {
    const neighbour = card.element.nextElementSibling ?? card.element.previousElementSibling;
    const held = card.element.contains(document.activeElement);
    card.stop?.();
    card.element.remove();
    this.cards.delete(card.id);
    this.empty.hidden = this.cards.size > 0;
    if (held) (neighbour ?? mainField()).focus();
    this.page.changed();
  }
}
