// The form's contents between two visits, in the storage of the browser.

import { parse, print } from './json.js';
import { PICTURES } from './kinds.js';

/** Each kind has contents of its own. */
const place = ({ id }) => (id === PICTURES.id ? 'latentd.form' : `latentd.form.${id}`);

/** The stored contents; an empty object without usable ones. */
export function restore(kind) {
  try {
    return parse(localStorage.getItem(place(kind))) ?? {};
  } catch {
    return {};
  }
}

/** Stores the contents. Pictures that the storage has no room for are left out. */
export function keep(contents, kind) {
  const { image, mask, controls, ...extras } = contents.extras;
  if (!store(contents, kind)) store({ ...contents, extras }, kind);
}

/** Whether the browser has stored the contents. */
function store(contents, kind) {
  try {
    localStorage.setItem(place(kind), print(contents));
    return true;
  } catch {
    return false;
  }
}
