// A dialog with the code that sends a request.

import { openDialog } from './dialog.js';
import { element } from './element.js';
import { key } from './key.js';
import { snippets } from './snippets.js';
import { tabbed } from './tabbed.js';

/** @param {object} request @param {object} kind @param {(text: string) => void} copy */
export function showCode(request, kind, copy) {
  const parts = snippets(request, kind, key() !== null).map(({ name, code }) => ({
    name,
    panel: element(
      'div', { class: 'stack' }, element('pre', { class: 'code', tabindex: 0, 'aria-label': name }, element('code', {}, code)),
      element('div', { class: 'row' }, element('button', { class: 'plain', type: 'button', onclick: () => copy(code) }, 'Copy')),
    ),
  }));
  openDialog('Code for this request', tabbed('Language', parts));
}
