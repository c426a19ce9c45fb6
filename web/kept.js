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

/** Stores the contents. Pictures that the storage has no room for are left out. */
export function keep(contents) {
  const { image, mask, controls, ...extras } = contents.extras;
  if (!store(contents)) store({ ...contents, extras });
}

/** Whether the browser has stored the contents. */
function store(contents) {
  try {
    localStorage.setItem(STORED_AS, print(contents));
    return true;
  } catch {
    return false;
  }
}
