// A request as a command for the shell.

import { print } from './json.js';

/** Fields of a resolved generation that a request need not repeat, with the value that goes without saying. */
const UNSAID = {
  negative_prompt: '', n: 1, guidance_rescale: 0, guidance_interval: [0, 1], eta: 0, clip_skip: 0, decoder: 'full',
  seed_mode: 'per_image', mask_blur: 0, mask_invert: false, keep_unmasked: true,
};

/** Whether a field says no more than its absence does. */
export function isUnsaid(name, value) {
  return value === null || (name in UNSAID && print(value) === print(UNSAID[name]));
}

/** The request that makes the picture of `params` again, without what only matters once. */
export function request(params) {
  const { prompt, previews, output, on_disconnect, start_timeout_s, ...rest } = params;
  const said = Object.entries({ prompt, ...rest }).filter(([name, value]) => !isUnsaid(name, value));
  return Object.fromEntries(said);
}

/** The request for one picture of a generation: image `index` alone is drawn by its own seed. */
export function requestOfImage(params, image) {
  return params.seed_mode === 'batch' ? request(params) : request({ ...params, n: 1, seed: image.seed });
}

/** The command that draws a request's picture; several pictures come as a JSON document that links to them. */
export function command(request) {
  const several = (request.n ?? 1) > 1;
  const parts = several
    ? ['curl -f', "-H 'Prefer: wait=60'"]
    : ['curl -f', `-o ${fileName(request)}`];
  parts.push("-H 'Content-Type: application/json'", `-d ${quoted(print(request))}`);
  parts.push(`${location.origin}/v1/images${several ? '' : '.png'}`);
  return parts.join(' ');
}

/** A file name that tells the picture: the words of its prompt and its seed. */
export function fileName({ prompt, seed }) {
  const words = (prompt ?? '').toLowerCase().replace(/[^a-z0-9]+/g, '-').replace(/^-+|-+$/g, '').slice(0, 40);
  return `${[words.replace(/-+$/, '') || 'picture', seed].filter((part) => part !== undefined).join('-')}.png`;
}

/** Between single quotes only the quote itself needs care in a POSIX shell. */
function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
