// Shows JSON Schemas of the contract: types, bounds, defaults and fields, with nested schemas to unfold.

import { element } from './element.js';
import { inline, markdown } from './markdown.js';

const BOUNDS = [
  ['minimum', '≥'], ['maximum', '≤'], ['exclusiveMinimum', '>'], ['exclusiveMaximum', '<'], ['multipleOf', 'multiple of'],
  ['minLength', 'length ≥'], ['maxLength', 'length ≤'], ['minItems', 'items ≥'], ['maxItems', 'items ≤'], ['pattern', 'matches'], ['format', ''],
];
const ALTERNATIVES = [['oneOf', 'One of'], ['anyOf', 'Any of'], ['allOf', 'All of']];

/** Reads a contract and follows its references. */
export class Contract {
  constructor(document) {
    this.document = document;
  }

  /** The object that `$ref` names, with what is written beside `$ref`; other objects as they are. `name` is the last part of `$ref`. */
  read(object) {
    const { $ref: reference, ...beside } = object ?? {};
    if (!reference) return { name: null, value: object ?? {} };
    const parts = reference.slice(2).split('/').map((part) => part.replaceAll('~1', '/').replaceAll('~0', '~'));
    const found = parts.reduce((value, part) => value?.[part], this.document);
    return { name: parts.at(-1), value: { ...this.read(found).value, ...beside } };
  }
}

/** A schema with everything in it. */
export function schemaView(contract, schema) {
  const { value } = contract.read(schema);
  const parts = [element('p', { class: 'kind' }, ...kind(contract, schema)), ...markdown(value.description)];
  return element('div', { class: 'schema' }, ...parts, ...inside(contract, value));
}

/** The fields, items and alternatives of a schema. */
function inside(contract, schema) {
  const parts = [];
  const required = new Set(schema.required);
  const fields = Object.entries(schema.properties ?? {});
  for (const [name, field] of fields.toSorted(([one], [other]) => required.has(other) - required.has(one))) {
    parts.push(fieldView(contract, name, field, required.has(name)));
  }
  if (schema.additionalProperties && typeof schema.additionalProperties === 'object' && Object.keys(schema.additionalProperties).length > 0) {
    parts.push(fieldView(contract, 'any other name', schema.additionalProperties, false));
  }
  if (schema.items && deep(contract, schema.items)) parts.push(fieldView(contract, 'each item', schema.items, false));
  for (const [key, title] of ALTERNATIVES) {
    if (!schema[key]) continue;
    const views = schema[key].map((one) => alternative(contract, one));
    parts.push(element('div', { class: 'alternatives' }, element('p', { class: 'note' }, `${title}:`), ...views));
  }
  return parts.length > 0 ? [element('div', { class: 'fields' }, ...parts)] : [];
}

function fieldView(contract, name, field, required) {
  const { value } = contract.read(field);
  const head = [
    element('code', { class: 'field-name' }, name), ...(required ? [element('span', { class: 'required' }, 'required')] : []),
    element('span', { class: 'kind' }, ...kind(contract, field)),
  ];
  const text = value.description ? [element('div', { class: 'field-text' }, ...markdown(value.description))] : [];
  if (!deep(contract, field)) return element('div', { class: 'schema-field' }, element('div', { class: 'field-head' }, ...head), ...text);
  return element('div', { class: 'schema-field' }, unfold(head, () => inside(contract, value)), ...text);
}

function alternative(contract, schema) {
  const { name, value } = contract.read(schema);
  const head = [element('span', { class: 'kind' }, ...(value.title && !name ? [value.title] : kind(contract, schema)))];
  if (!deep(contract, schema) && !value.description) return element('div', { class: 'schema-field' }, ...head);
  return element('div', { class: 'schema-field' }, unfold(head, () => [...markdown(value.description), ...inside(contract, value)]));
}

/** Details whose content is made when they are first opened: schemas may contain themselves. */
export function unfold(head, make) {
  const details = element('details', {}, element('summary', { class: 'field-head' }, ...head));
  details.addEventListener('toggle', () => {
    if (details.open && details.childElementCount === 1) details.append(...make());
  });
  return details;
}

/** Whether a schema has parts of its own to show. */
function deep(contract, schema) {
  const { value } = contract.read(schema);
  return Object.keys(value.properties ?? {}).length > 0 || ALTERNATIVES.some(([key]) => value[key]) || (value.items ? deep(contract, value.items) : false)
    || (typeof value.additionalProperties === 'object' && Object.keys(value.additionalProperties).length > 0);
}

/** The type of a schema in a line: name, type, values, bounds, default. */
function kind(contract, schema) {
  const { name, value } = contract.read(schema);
  const parts = [];
  if (name) parts.push(name);
  const types = [value.type ?? []].flat();
  if (types.length > 0) parts.push(types.map((type) => (type === 'array' && value.items ? `array of ${plainType(contract, value.items)}` : type)).join(' or '));
  if ('const' in value) parts.push(JSON.stringify(value.const));
  if (value.enum) parts.push(value.enum.map((one) => JSON.stringify(one)).join(' | '));
  for (const [key, sign] of BOUNDS) if (key in value) parts.push(`${sign} ${value[key]}`.trim());
  if ('default' in value) parts.push(`default ${JSON.stringify(value.default)}`);
  return inline(parts.join(' · ').replaceAll('`', '') || 'any value');
}

function plainType(contract, schema) {
  const { name, value } = contract.read(schema);
  return name ?? [value.type ?? 'value'].flat().join(' or ');
}
