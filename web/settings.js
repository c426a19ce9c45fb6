// The settings of a generation: what a request says to make its pictures again. Which fields there are, and what their absence
// says, is told by the schema of the model (`GET /v1/models/{id}/schema`).

import { print } from './json.js';

/** Said even where they are the model's defaults: the form shows them, and a command says what it draws. */
const ALWAYS = new Set(['prompt', 'model', 'width', 'height', 'steps', 'guidance_scale', 'scheduler', 'seed']);
/** The page asks for its own number of previews. */
const NEVER = new Set(['previews']);
/** SDXL's sizes, each with the value that its absence stands for, which depends on the request. */
const SIZES = {
  original_size: ({ width, height }) => [height, width],
  target_size: ({ width, height }) => [height, width],
  negative_original_size: ({ original_size: size }) => size,
  negative_crop_top_left: (params) => (cropsApart(params) ? [0, 0] : params.crop_top_left),
  negative_target_size: ({ target_size: size }) => size,
};

/** The request that makes the pictures of `params` again: every field but those that go without saying by the schema. */
export function request(params, schema) {
  const { prompt, ...rest } = params;
  const fields = Object.entries({ prompt, ...rest }).map(([name, value]) => [name, terse(value, schema?.properties[name])]);
  return Object.fromEntries(fields.filter(([name, value]) => !isUnsaid(name, value, params, schema)));
}

/** All that a generation says of its request: its params, and the fields that stand beside them. */
export function everything(generation, schema) {
  const beside = Object.keys(schema?.properties ?? {}).filter((name) => name in generation && !(name in generation.params));
  return { ...Object.fromEntries(beside.map((name) => [name, generation[name]])), ...generation.params };
}

/** The params of one picture of a generation: image `index` alone is drawn by its own seed. */
export function paramsOfImage(params, image) {
  if (params.seed_mode === 'batch') return params;
  const classes = Array.isArray(params.class_label) ? { class_label: [params.class_label[image.index]] } : {};
  return { ...params, ...classes, n: 1, seed: image.seed };
}

/** An object without the keys that have their defaults, where none of its keys has to be there. */
function terse(value, field) {
  const keys = field?.properties;
  if (!keys || value === null || field.required?.length > 0) return value;
  const said = Object.entries(value).filter(([name, part]) => print(part) !== print(keys[name]?.default));
  return Object.keys(value).length > 0 && said.length === 0 ? null : Object.fromEntries(said);
}

function isUnsaid(name, value, params, schema) {
  if (value === null || value === undefined || NEVER.has(name)) return true;
  // What the model does not take says nothing: an empty prompt of a model that draws without one.
  if (schema && !(name in schema.properties)) return true;
  if (ALWAYS.has(name)) return false;
  const unsaid = name in SIZES ? SIZES[name](params) : schema?.properties[name]?.default;
  return unsaid !== undefined && print(value) === print(unsaid);
}

/** Whether negative sizes of their own leave the negative crop at its own default. */
function cropsApart(params) {
  return ['original_size', 'target_size'].some((name) => print(params[name]) !== print(params[`negative_${name}`]));
}
