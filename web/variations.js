// Further pictures, films or sounds of the same request, with other seeds.

import { PICTURES } from './kinds.js';
import { request } from './settings.js';

/** The request for as many as the kind's button says, without a seed. */
export function variations(params, schema, kind = PICTURES) {
  const { seed, n, ...same } = request(params, schema);
  const count = Math.min(kind.more, schema?.properties.n?.maximum ?? kind.more);
  // One class for each picture means other classes for another number of pictures.
  const classes = Array.isArray(same.class_label) ? { class_label: same.class_label[0] } : {};
  return { ...same, ...classes, ...(count > 1 ? { n: count } : {}) };
}
