// Further pictures of the same request, with other seeds.

import { request } from './settings.js';

/** How many pictures "4 more" draws. */
const MORE = 4;

/** The request for further pictures of `params`, without a seed. */
export function variations(params, schema) {
  const { seed, n, ...same } = request(params, schema);
  const count = Math.min(MORE, schema?.properties.n?.maximum ?? MORE);
  // One class for each picture means other classes for another number of pictures.
  const classes = Array.isArray(same.class_label) ? { class_label: same.class_label[0] } : {};
  return { ...same, ...classes, ...(count > 1 ? { n: count } : {}) };
}
