// The form's contents between two visits, in the storage of the browser.

import { parse, print } from './json.js';

const STORED_AS = 'latentd.form';

/** The stored contents; an empty object without usable ones. */
export function restore() {
  try {
    return parse(localStorage.getItem(STORED_AS)) ?? {};
  } catch {
    return {};
  }
}

export function keep(contents) {
  try {
    localStorage.setItem(STORED_AS, print(contents));
  } catch {
    // Without storage, or with more pictures than it takes, the form starts with its defaults.
    forget();
  }
}

function forget() {
  try {
    localStorage.removeItem(STORED_AS);
  } catch {
    // There is no storage.
  }
}
