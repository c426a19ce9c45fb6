// The gallery: one card per generation, newest first. Generations of other pages of this browser appear as well.

import * as api from './api.js';
import { Card } from './card.js';
import { mainField } from './element.js';
import { follow, isFollowing, isTerminal } from './events.js';
import * as stars from './stars.js';
import * as tabs from './tabs.js';

/** Generations per page of the list. */
const PAGE = 24;
/** Time between two updates of the times until pictures are deleted. */
const AGE_MS = 30_000;
/** The key of `metadata` that marks generations which no gallery shows, such as those of the live picture. */
export const UNLISTED = 'latentd-page';

export class Gallery {
  /** @param {object} page the callbacks of `Card`, without `removed` and `star`, and `changed()` for a change of the cards */
  constructor(page) {
    this.page = { ...page, removed: (card) => this.erased(card), star: (card) => this.star(card) };
    /** @type {Map<string, Card>} */
    this.cards = new Map();
    /** The generations that this browser keeps, by id. */
    this.stars = new Map();
    this.list = document.getElementById('cards');
    this.more = document.getElementById('more');
    this.empty = document.getElementById('empty');
    this.more.addEventListener('click', () => this.older());
    tabs.listen((kind, id) => this.hear(kind, id));
    follow((name, id, data) => this.happened(name, id, data), () => this.loaded && this.refresh());
    document.addEventListener('visibilitychange', () => !document.hidden && this.loaded && this.refresh());
    setInterval(() => this.age(), AGE_MS);
  }

  /** Adds a card for a generation at its place by age, if there is none yet. Ids sort by age. */
  add(generation) {
    const known = this.cards.get(generation.id);
    if (known || generation.metadata?.[UNLISTED]) return known;
    const card = new Card(generation, this.page);
    this.cards.set(card.id, card);
    card.mark(this.stars.has(card.id));
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

  /** Loads running and queued generations, the newest others, and those that this browser keeps. */
  async load() {
    this.stars = new Map((await stars.all()).map((generation) => [generation.id, generation]));
    const page = await this.newest();
    this.remember(page);
    await this.addLost();
    this.loaded = true;
    this.empty.hidden = this.cards.size > 0;
    this.page.changed();
  }

  /** Takes over what has changed on the server since the last time. */
  async refresh() {
    try {
      const page = await this.newest();
      const present = new Set(page.data.map(({ id }) => id));
      const oldest = page.has_more ? page.data.at(-1)?.id : '';
      for (const card of this.cards.values()) {
        const missing = card.id >= oldest && !present.has(card.id) && !card.active && !card.generation.apart;
        if (missing) this.lost(card);
      }
    } catch {
      // The banner says that the server does not answer.
    }
  }

  /** Removes all cards, because another key may see others. Generations and stars stay as they are. */
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
    const page = await api.list({ limit, after: this.last });
    for (const generation of page.data) this.add(generation);
    this.remember(page);
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

  /** Stars a generation, or removes its star. */
  async star(card) {
    try {
      if (card.starred) {
        await stars.forget(card.id);
        this.unstarred(card);
      } else {
        await stars.keep(card.generation);
        this.starred(card);
      }
      tabs.tell('starred', card.id);
    } catch (problem) {
      this.page.announce(problem.status === undefined ? `This browser cannot keep the picture: ${problem.message}` : problem.message, true);
    }
  }

  // Private methods.

  /** Reads the first page of generations and all that wait or run, and adds their cards. */
  async newest() {
    const lists = [api.list({ limit: 100, status: 'running' }), api.list({ limit: 100, status: 'queued' }), api.list({ limit: PAGE })];
    const pages = await Promise.all(lists);
    for (const generation of pages.flatMap((page) => page.data)) {
      const card = this.add(generation);
      // An event may have arrived before this answer.
      if (card?.active && (isTerminal(generation.status) || card.generation.status === 'queued')) card.update(generation);
    }
    return pages[2];
  }

  /** Adds the starred generations that the server no longer has. */
  async addLost() {
    for (const generation of this.stars.values()) {
      if (this.cards.has(generation.id)) continue;
      const expired = generation.expires_at && new Date(generation.expires_at) < Date.now();
      // A newer generation than the oldest of the list is on the server if the list has it.
      const missing = expired || !this.last || generation.id > this.last || !this.hasOlder;
      const there = missing ? null : await api.get(generation.id).catch((problem) => {
        if (problem.code === api.OTHER_KEY) throw problem;
        return problem.status === 404 ? null : generation;
      });
      this.add(there ?? stars.apart(generation));
    }
  }

  /** An event of the stream of all own generations. */
  happened(name, id, data) {
    const card = this.cards.get(id);
    if (!card && name === 'queued') this.add(data.generation);
    if (card && !card.active && (name === 'deleted' || name === 'gone')) this.lost(card);
  }

  /** A message of another tab. */
  async hear(kind, id) {
    const card = this.cards.get(id);
    if (kind === 'created' && !card) await api.get(id).then((generation) => this.add(generation), () => {});
    else if (kind === 'deleted' && card) this.forget(card);
    else if (kind === 'starred') {
      this.stars = new Map((await stars.all()).map((generation) => [generation.id, generation]));
      if (card && this.stars.has(id)) this.starred(card);
      else if (card) this.unstarred(card);
      else await this.addLost();
    }
  }

  starred(card) {
    this.stars.set(card.id, card.generation);
    card.mark(true);
    this.page.announce('Starred. This browser keeps the picture even after the server has deleted it.');
    this.page.changed();
  }

  unstarred(card) {
    this.stars.delete(card.id);
    card.mark(false);
    // Only this browser had the picture.
    if (card.generation.apart) this.forget(card);
    this.page.changed();
  }

  /** The server no longer has a generation. */
  async lost(card) {
    const kept = (await stars.all()).find(({ id }) => id === card.id);
    if (!this.cards.has(card.id)) return;
    if (kept) card.update(stars.apart(kept));
    else this.forget(card);
  }

  age() {
    for (const card of this.cards.values()) {
      const { expires_at: expires } = card.generation;
      if (expires && new Date(expires) < Date.now()) this.lost(card);
      else card.age();
    }
  }

  remember(page) {
    this.last = page.last_id ?? page.data.at(-1)?.id;
    this.more.hidden = !page.has_more;
  }

  /** A generation was deleted by this page, or while it ran by another client. */
  erased(card) {
    stars.forget(card.id).catch(() => {});
    tabs.tell('deleted', card.id);
    this.forget(card);
  }

  forget(card) {
    const neighbour = card.element.nextElementSibling ?? card.element.previousElementSibling;
    const held = card.element.contains(document.activeElement);
    card.stop?.();
    card.element.remove();
    this.cards.delete(card.id);
    this.stars.delete(card.id);
    this.empty.hidden = this.cards.size > 0;
    if (held) (neighbour ?? mainField()).focus();
    this.page.changed();
  }
}
