// What surrounds the control of a field: its label, its description, and the place for errors.

import { element } from './element.js';
import { title } from './names.js';

/** The frame of a control with the id `path`. */
export function frame(path, schema, ...control) {
  return element('div', { class: 'field' }, element('label', { for: path }, title(path)), ...control, ...about(path, schema));
}

/** The description of a field, and the place for its errors. */
export function about(path, { description }) {
  const note = element('p', { class: 'note', id: `${path}-note`, hidden: !description }, description ?? '');
  return [note, element('p', { class: 'error', id: `${path}-error`, hidden: true })];
}

/** The attribute `aria-describedby` of a control. The page finds the control of an error by it. */
export function describedBy(path) {
  return `${path}-note ${path}-error`;
}
