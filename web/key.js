// The API key of this browser tab. It is kept until the tab is closed, and sent only to this server.

import { element } from './element.js';
import { openDialog } from './dialog.js';

const STORED_AS = 'latentd.key';

let kept = null;
try {
  kept = sessionStorage.getItem(STORED_AS);
} catch {
  // Without storage, the key lasts until the page is loaded again.
}

/** The key, or null. */
export const key = () => kept;

/** The headers that a request needs. */
export const keyHeaders = () => (kept ? { Authorization: `Bearer ${kept}` } : {});

function keep(text) {
  kept = text || null;
  try {
    if (kept) sessionStorage.setItem(STORED_AS, kept);
    else sessionStorage.removeItem(STORED_AS);
  } catch {
    // Without storage, the key lasts until the page is loaded again.
  }
}

/**
 * Connects the button of the header and the dialog with the field for the key.
 * @param {() => void} changed called after the key has changed
 */
export function showKey(changed) {
  const button = document.getElementById('key-open');
  let dialog = null;
  // The page asks once for each key; afterwards the button opens the dialog.
  let asked = false;

  const ask = (said) => {
    if (dialog?.open) return;
    const field = element('input', {
      id: 'key-field', type: 'password', autocomplete: 'off', spellcheck: 'false', placeholder: 'ltd_…', 'aria-describedby': 'key-said',
    });
    const set = (text) => {
      keep(text);
      asked = false;
      dialog.close();
      changed();
    };
    const form = element(
      'form', { class: 'stack', onsubmit: (event) => { event.preventDefault(); set(field.value.trim()); } },
      element('p', { id: 'key-said' }, said),
      element('div', { class: 'field' }, element('label', { for: 'key-field' }, 'API key'), field),
      element('p', { class: 'note' }, 'The key stays in this tab until the tab is closed, and is sent only to this server.'),
      element(
        'div', { class: 'row' }, element('button', { class: 'primary', type: 'submit' }, 'Use this key'),
        ...(kept ? [element('button', { class: 'plain', type: 'button', onclick: () => set('') }, 'Forget the key')] : []),
      ),
    );
    dialog = openDialog('API key', form, { narrow: true });
    field.focus();
  };
  button.addEventListener('click', () => ask(kept ? 'This tab sends an API key.' : 'This tab sends no API key.'));
  return {
    ask: () => {
      if (asked) return;
      asked = true;
      ask(kept ? 'The server does not accept this key.' : 'The server requires an API key.');
    },
  };
}
