// Tabs: one of several panels, chosen with buttons or the arrow keys.

import { element } from './element.js';

let made = 0;

/** @param {{name: string, panel: HTMLElement}[]} parts */
export function tabbed(label, parts) {
  const group = made += 1;
  const id = (kind, at) => `${kind}-${group}-${at}`;
  const panels = parts.map(({ panel }, at) => {
    return element('div', { id: id('panel', at), role: 'tabpanel', 'aria-labelledby': id('tab', at), tabindex: 0 }, panel);
  });
  const tabs = parts.map(({ name }, at) => {
    return element('button', { id: id('tab', at), type: 'button', role: 'tab', 'aria-controls': id('panel', at), onclick: () => choose(at) }, name);
  });
  const choose = (chosen) => {
    for (const [at, tab] of tabs.entries()) {
      tab.setAttribute('aria-selected', at === chosen);
      tab.tabIndex = at === chosen ? 0 : -1;
      panels[at].hidden = at !== chosen;
    }
  };
  const list = element('div', { class: 'tabs', role: 'tablist', 'aria-label': label }, ...tabs);
  list.addEventListener('keydown', (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    const next = (tabs.indexOf(document.activeElement) + by + tabs.length) % tabs.length;
    choose(next);
    tabs[next].focus();
  });
  choose(0);
  return element('div', {}, list, ...panels);
}
