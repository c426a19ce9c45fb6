// Controls for single values: numbers, choices, switches and texts; and for lists that are written as a text.

import { element } from './element.js';
import { about, describedBy, frame } from './frame.js';
import { print } from './json.js';
import { title } from './names.js';

/** Numbers whose bounds are at most this far apart also have a slider. */
const SLIDER = 100;

export function numberField(path, schema, change) {
  const whole = [schema.type].flat().includes('integer');
  const min = schema.minimum ?? schema.exclusiveMinimum;
  const max = schema.maximum ?? schema.exclusiveMaximum;
  const input = element('input', {
    id: path, type: 'number', inputmode: whole ? 'numeric' : 'decimal', min, max, step: whole ? 1 : 'any',
    'aria-describedby': describedBy(path),
  });
  const read = () => (input.value.trim() === '' ? undefined : Number(input.value));
  const step = whole ? 1 : (max - min) / 20 > 0.1 ? 0.1 : 0.05;
  const slider = max - min <= SLIDER && element('input', {
    type: 'range', min: whole ? min : Math.ceil(min / step) * step, max, step, tabindex: -1, 'aria-label': title(path),
  });
  let standard = schema.default;
  const follow = () => { if (slider) slider.value = read() ?? standard ?? min; };
  input.addEventListener('input', () => { follow(); change(unlessDefault(read(), schema)); });
  if (slider) {
    slider.addEventListener('input', () => {
      // The lowest place of a slider whose bound is excluded is its first step.
      input.value = Math.max(Number(slider.value), schema.exclusiveMinimum === undefined ? -Infinity : min + step);
      change(unlessDefault(read(), schema));
    });
  }
  follow();
  return {
    element: frame(path, schema, slider ? element('div', { class: 'dial' }, slider, input) : input),
    /** `unset` is the number that the server uses without the field, if the schema has no default. */
    show(value, unset = schema.default) {
      if (unlessDefault(read(), schema) !== value) input.value = value ?? '';
      standard = unset;
      input.placeholder = unset ?? '';
      follow();
    },
  };
}

export function choiceField(path, schema, change) {
  const { default: standard } = schema;
  const values = schema.enum.filter((value) => value !== null);
  const none = standard === undefined ? [element('option', { value: '' }, '–')] : [];
  const option = (value) => element('option', { value }, value);
  const input = element('select', { id: path, 'aria-describedby': describedBy(path) }, ...none, ...values.map(option));
  input.addEventListener('input', () => change(input.value === '' ? undefined : unlessDefault(input.value, schema)));
  return {
    element: frame(path, schema, input),
    show(value = standard ?? '') {
      // A value that is no longer offered stays until the user chooses another one.
      if (value !== '' && !values.includes(value)) {
        values.push(value);
        input.append(option(value));
      }
      input.value = value;
    },
  };
}

export function toggleField(path, schema, change) {
  const input = element('input', { id: path, type: 'checkbox', 'aria-describedby': describedBy(path) });
  input.addEventListener('input', () => change(unlessDefault(input.checked, { default: false, ...schema })));
  const label = element('label', { class: 'toggle', for: path }, input, element('span', {}, title(path)));
  return {
    element: element('div', { class: 'field' }, label, ...about(path, schema)),
    show(value) {
      input.checked = value ?? schema.default ?? false;
    },
  };
}

/** A text; `long` texts have several lines. */
export function textField(long) {
  return (path, schema, change) => written(path, schema, change, long, {
    parse: (text) => (text === '' ? undefined : text),
    text: (value) => value,
  });
}

/** A list, separated by commas: `0.2, 0.8`. The server checks it, so that what is no number stays a text. */
export function listField(path, schema, change) {
  const parsed = (part) => (part !== '' && Number.isFinite(Number(part)) ? Number(part) : part);
  return written(path, schema, change, false, {
    parse: (text) => (text.trim() === '' ? undefined : text.replace(/,\s*$/, '').split(',').map((part) => parsed(part.trim()))),
    text: (list) => list.join(', '),
    hint: schema.default?.length > 0 ? schema.default.join(', ') : 'Values, separated by commas',
  });
}

/** Pairs of a name and a text, one per line: `album: animals`. */
export function pairsField(path, schema, change) {
  return written(path, schema, change, true, {
    parse(text) {
      const lines = text.split('\n').filter((line) => line.trim() !== '');
      if (lines.length === 0) return undefined;
      const pairs = lines.map((line) => {
        const colon = line.indexOf(':') < 0 ? line.length : line.indexOf(':');
        return [line.slice(0, colon).trim(), line.slice(colon + 1).trim()];
      });
      return Object.fromEntries(pairs);
    },
    text: (pairs) => Object.entries(pairs).map((pair) => pair.join(': ')).join('\n'),
    hint: 'One per line, such as album: animals',
  });
}

function written(path, schema, change, long, { parse, text, hint }) {
  const shared = { id: path, placeholder: hint, 'aria-describedby': describedBy(path), autocomplete: 'off', spellcheck: 'false' };
  const input = long ? element('textarea', { ...shared, rows: 1 }) : element('input', { ...shared, type: 'text' });
  input.addEventListener('input', () => change(unlessDefault(parse(input.value), schema)));
  return {
    element: frame(path, schema, input),
    show(value) {
      // The text stays as the user writes it as long as it means the value.
      if (print(unlessDefault(parse(input.value), schema)) !== print(value)) input.value = value === undefined ? '' : text(value);
    },
  };
}

/** A request does not need a field that has its default. */
function unlessDefault(value, schema) {
  return value !== undefined && print(value) === print(schema.default) ? undefined : value;
}
