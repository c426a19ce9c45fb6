// Controls for objects, and for lists of objects.

import { element, iconButton } from './element.js';
import { field } from './field.js';
import { about, describedBy } from './frame.js';
import { title } from './names.js';

/** The order of keys. Others follow. */
const ORDER = ['name', 'model', 'image', 'preprocess', 'scale', 'switch_at', 'start', 'end', 'guess_mode', 'url', 'events'];

/** An object: one control for each key. A required key with a single value is filled in, and has no control. */
export function groupField(path, schema, change, page) {
  const parts = keys(path, schema, change, page);
  const legend = element('legend', {}, title(path));
  return {
    element: element('fieldset', { class: 'field group' }, legend, ...about(path, schema), ...parts.elements),
    show: parts.show,
  };
}

/** A list of objects. Each row can be removed; the button below adds a row. */
export function rowsField(path, schema, change, page) {
  const noun = title(path);
  let values = [];
  let rows = [];
  const list = element('div', { class: 'rows' });
  const add = element('button', {
    id: path, type: 'button', class: 'plain', 'aria-describedby': describedBy(path),
    onclick: () => {
      set([...values, page.fresh(path, values)]);
      rows.at(-1).element.querySelector('select, input, button')?.focus();
    },
  }, `Add a ${noun}`);

  function set(next) {
    show(next);
    change(next.length > 0 ? next : undefined);
  }

  function row(at) {
    const part = keys(`${path}.${at}`, schema.items, (value) => set(values.with(at, value ?? {})), page);
    const remove = iconButton('close', `Remove ${noun} ${at + 1}`, () => {
      set(values.toSpliced(at, 1));
      (rows[Math.min(at, rows.length - 1)]?.remove ?? add).focus();
    });
    const legend = element('legend', { class: 'unseen' }, `${noun} ${at + 1}`);
    return { element: element('fieldset', { class: 'field group row-of' }, legend, remove, ...part.elements), remove, show: part.show };
  }

  function show(next = []) {
    if (next.length !== rows.length) {
      rows = next.map((_, at) => row(at));
      list.replaceChildren(...rows.map((one) => one.element));
    }
    values = next;
    rows.forEach((one, at) => one.show(values[at]));
    add.hidden = values.length >= (schema.maxItems ?? Infinity) || (values.length === 0 && !page.fresh(path, values));
  }

  return { element: element('fieldset', { class: 'field' }, element('legend', {}, noun), list, add, ...about(path, schema)), show };
}

/**
 * The controls for the keys of an object. If the object needs exactly one key, the other keys appear together with it,
 * and disappear with it.
 */
function keys(path, schema, change, page) {
  const implied = impliedKeys(schema);
  const needed = (schema.required ?? []).filter((name) => !(name in implied));
  const head = needed.length === 1 ? needed[0] : undefined;
  let value = {};
  const beside = { ...page, beside: () => value };
  const names = Object.keys(schema.properties).filter((name) => !(name in implied));
  const place = (name) => (ORDER.includes(name) ? ORDER.indexOf(name) : ORDER.length);
  const parts = names.sort((one, other) => place(one) - place(other)).map((name) => {
    const set = (part) => {
      const { [name]: _, ...others } = value;
      const next = part === undefined ? others : { ...others, [name]: part };
      const isGone = name === head ? part === undefined : Object.keys(next).every((other) => other in implied);
      show(isGone ? {} : { ...implied, ...next });
      change(isGone ? undefined : value);
    };
    return { name, key: schema.properties[name], control: field(`${path}.${name}`, schema.properties[name], set, beside) };
  });

  function show(next = {}) {
    value = next;
    for (const { name, key, control } of parts) {
      control.show(value[name]);
      const needs = key['x-needs'] ?? (name === head ? undefined : head);
      control.element.hidden = needs !== undefined && value[needs] === undefined;
    }
  }

  show();
  return { elements: parts.map(({ control }) => control.element), show };
}

/** The required keys that have a single possible value. */
function impliedKeys({ properties, required = [] }) {
  const choices = (name) => properties[name].enum?.filter((value) => value !== null) ?? [];
  const implied = required.filter((name) => choices(name).length === 1 && !properties[name]['x-offered']);
  return Object.fromEntries(implied.map((name) => [name, choices(name)[0]]));
}
