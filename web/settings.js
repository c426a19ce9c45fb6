// Converts a generation into the request that draws its pictures again. The schema of the model
// (`GET /v1/models/{id}/schema`) defines the fields and their defaults.

import { print } from './json.js';

/** Fields that are included even if they have the model's defaults, so that the form and commands show them. */
const ALWAYS = new Set(['prompt', 'model', 'width', 'height', 'steps', 'guidance_scale', 'scheduler', 'seed']);
/** Fields that are never included. The page requests its own number of previews. */
const NEVER = new Set(['previews']);
/** Values without an effect, which the server fills in for models that do not have the fields. */
const IDLE = { guidance_scale: 1, guidance_interval: [0, 1], prompt_syntax: 'plain', clip_skip: 0, guidance_rescale: 0 };
/** SDXL's size fields with their defaults, which depend on the request. */
const SIZES = {
  original_size: ({ width, height }) => [height, width],
  target_size: ({ width, height }) => [height, width],
  negative_original_size: ({ original_size: size }) => size,
  negative_crop_top_left: (params) => (cropsApart(params) ? [0, 0] : params.crop_top_left),
  negative_target_size: ({ target_size: size }) => size,
};

/** The request that draws the pictures of `params` again, without fields that have the defaults of the schema. */
export function request(params, schema) {
  const { prompt, ...rest } = params;
  const fields = Object.entries({ prompt, ...rest }).map(([name, value]) => [name, terse(value, schema?.properties[name])]);
  return Object.fromEntries(fields.filter(([name, value]) => !isUnsaid(name, value, params, schema)));
}

/** All request fields of a generation: its params, and the fields next to them in the generation object. */
export function everything(generation, schema) {
  const beside = Object.keys(schema?.properties ?? {}).filter((name) => name in generation && !(name in generation.params));
  return { ...Object.fromEntries(beside.map((name) => [name, generation[name]])), ...generation.params };
}

/** The params that draw one picture of a generation with its own seed; those of all pictures in seed mode `batch`. */
export function paramsOfImage(params, image) {
  if (params.seed_mode === 'batch') return params;
  const classes = Array.isArray(params.class_label) ? { class_label: [params.class_label[image.index]] } : {};
  return { ...params, ...classes, n: 1, seed: image.seed };
}

/** The object without keys that have their defaults. Objects with required keys stay as they are. */
function terse(value, field) {
  const keys = field?.properties;
  if (!keys || value === null || field.required?.length > 0) return value;
  const said = Object.entries(value).filter(([name, part]) => print(part) !== print(keys[name]?.default));
  return Object.keys(value).length > 0 && said.length === 0 ? null : Object.fromEntries(said);
}

function isUnsaid(name, value, params, schema) {
  if (value === null || value === undefined || NEVER.has(name)) return true;
  if (schema && !(name in schema.properties)) return isIdle(name, value);
  if (ALWAYS.has(name)) return false;
  const unsaid = name in SIZES ? SIZES[name](params) : schema?.properties[name]?.default;
  return unsaid !== undefined && print(value) === print(unsaid);
}

/**
 * Whether a field that the model does not have changes nothing, such as the empty prompt of a model without prompts. A
 * model that was exchanged under the same name may lack a field that the picture was made with.
 */
function isIdle(name, value) {
  const isEmpty = value === '' || (Array.isArray(value) && value.length === 0);
  return isEmpty || print(value) === print(IDLE[name]);
}

/** Whether different negative sizes make [0, 0] the default of the negative crop. */
function cropsApart(params) {
  return ['original_size', 'target_size'].some((name) => print(params[name]) !== print(params[`negative_${name}`]));
}
