// Controls that are made from the JSON Schema of a field. A control shows a value with `show(value)` and calls
// `change(value)` when the user changes it; undefined means that the request does not have the field.

import { groupField, rowsField } from './groups.js';
import { pictureField } from './picture_field.js';
import { choiceField, listField, numberField, pairsField, textField, toggleField } from './scalars.js';

/** Longer texts have several lines. */
const ONE_LINE = 1000;

/**
 * @param {string} path such as `refiner.switch_at`; errors of the server find the control by it
 * @param {object} schema
 * @param {(value: any) => void} change
 * @param {object} page what controls need from the page: see `Form.makeParts`
 * @returns {{element: HTMLElement, show(value: any): void}}
 */
export function field(path, schema, change, page) {
  return maker(schema)(path, schema, change, page);
}

function maker(schema) {
  const type = [schema.type ?? []].flat().find((name) => name !== 'null');
  if (schema.enum) return choiceField;
  if (schema.properties?.upload) return pictureField;
  if (schema.properties) return groupField;
  if (type === 'boolean') return toggleField;
  if (type === 'integer' || type === 'number') return numberField;
  if (type === 'array') return schema.items?.properties ? rowsField : listField;
  if (type === 'object') return pairsField;
  return textField(schema.maxLength > ONE_LINE);
}
