// The tabs of the page: pictures, films and sounds. They appear only if models make more than one kind.

import { element } from './element.js';
import { KINDS, PICTURES } from './kinds.js';

const STORED_AS = 'latentd.kind';

export class KindTabs {
  /** @param {(kind: object) => void} chosen called when another kind becomes the chosen one */
  constructor(chosen) {
    this.chosen = chosen;
    this.kind = PICTURES;
    this.list = document.getElementById('kinds');
    this.panel = document.getElementById('work');
    this.list.addEventListener('keydown', (event) => this.press(event));
  }

  /** Offers these kinds, and returns the chosen one: that of the last visit, if it is among them. */
  offer(kinds) {
    const offered = KINDS.filter((kind) => kinds.has(kind));
    this.tabs = offered.map((kind) => element(
      'button', { id: `tab-${kind.id}`, type: 'button', role: 'tab', 'aria-controls': 'work', onclick: () => this.choose(kind) }, kind.tab,
    ));
    this.offered = offered;
    this.list.hidden = offered.length < 2;
    const held = this.list.contains(document.activeElement);
    this.list.replaceChildren(...this.tabs);
    const stored = restored();
    this.kind = offered.find(({ id }) => id === stored) ?? offered[0] ?? PICTURES;
    this.show();
    if (held) this.tabs[this.offered.indexOf(this.kind)].focus();
    return this.kind;
  }

  // Private methods.

  choose(kind) {
    if (kind === this.kind) return;
    this.kind = kind;
    try {
      localStorage.setItem(STORED_AS, kind.id);
    } catch {
      // Without storage, the next visit begins with the first tab.
    }
    this.show();
    this.chosen(kind);
  }

  show() {
    for (const [at, tab] of this.tabs.entries()) {
      const isChosen = this.offered[at] === this.kind;
      tab.setAttribute('aria-selected', isChosen);
      tab.tabIndex = isChosen ? 0 : -1;
    }
    const isTabbed = this.offered.length > 1;
    for (const [name, value] of [['role', 'tabpanel'], ['aria-labelledby', `tab-${this.kind.id}`]]) {
      if (isTabbed) this.panel.setAttribute(name, value);
      else this.panel.removeAttribute(name);
    }
  }

  press(event) {
    const last = this.tabs.length - 1;
    const at = this.offered.indexOf(this.kind);
    const next = { ArrowRight: at === last ? 0 : at + 1, ArrowLeft: at === 0 ? last : at - 1, Home: 0, End: last }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    this.choose(this.offered[next]);
    this.tabs[next].focus();
  }
}

function restored() {
  try {
    return localStorage.getItem(STORED_AS);
  } catch {
    return null;
  }
}
