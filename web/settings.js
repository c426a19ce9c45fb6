// The settings of a generation: what a request says to make its pictures again.

import { print } from './json.js';

/** Fields whose absence says the same as one value. */
const UNSAID = {
  n: 1, prompt_syntax: 'plain', loras: [], controls: [], guidance_rescale: 0, guidance_interval: [0, 1], eta: 0, clip_skip: 0,
  decoder: 'full', feature_cache: null, seed_mode: 'per_image', mask_blur: 0, mask_invert: false, keep_unmasked: true,
  crop_top_left: [0, 0], aesthetic_score: 6, negative_aesthetic_score: 2.5,
};
/** The quality of a JPEG whose request names none. */
const QUALITY = 90;
/** Fields that say when and for whom a generation runs, not what it draws. */
const ONCE = new Set(['previews', 'on_disconnect', 'start_timeout_s']);
/** SDXL's sizes, each with the value that its absence stands for. */
const SIZES = {
  original_size: ({ width, height }) => [height, width],
  target_size: ({ width, height }) => [height, width],
  negative_original_size: ({ original_size: size }) => size,
  negative_crop_top_left: (params) => (cropsApart(params) ? [0, 0] : params.crop_top_left),
  negative_target_size: ({ target_size: size }) => size,
};

/** The request that makes the pictures of `params` again: every field but those that go without saying. */
export function request(params) {
  const { prompt, ...rest } = params;
  const said = Object.entries({ prompt, ...rest }).filter(([name, value]) => !isUnsaid(name, value, params));
  return Object.fromEntries(said.map(([name, value]) => [name, name === 'output' ? file(value) : value]));
}

/** The params of one picture of a generation: image `index` alone is drawn by its own seed. */
export function paramsOfImage(params, image) {
  return params.seed_mode === 'batch' ? params : { ...params, n: 1, seed: image.seed };
}

/** What is to be said of the file: its format, and what is not the format's own way. */
function file({ format, quality = QUALITY, metadata }) {
  return { format, ...(quality === QUALITY ? {} : { quality }), ...(metadata === 'full' ? {} : { metadata }) };
}

function isUnsaid(name, value, params) {
  if (value === null || value === undefined || ONCE.has(name)) return true;
  // For SDXL's kind an empty negative prompt is another thing than none.
  if (name === 'negative_prompt' && value === '') return !('original_size' in params);
  if (name === 'output') return print(file(value)) === print({ format: 'png' });
  const unsaid = name in SIZES ? SIZES[name](params) : UNSAID[name];
  return unsaid !== undefined && print(value) === print(unsaid);
}

/** Whether negative sizes of their own leave the negative crop at its own default. */
function cropsApart(params) {
  return ['original_size', 'target_size'].some((name) => print(params[name]) !== print(params[`negative_${name}`]));
}
