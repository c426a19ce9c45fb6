// A request as a command for the shell.

import { absolute } from './api.js';
import { print } from './json.js';

/** The extension of each type of picture. */
const EXTENSIONS = { 'image/png': 'png', 'image/jpeg': 'jpg', 'image/webp': 'webp' };

/** The command that draws a request's picture; several pictures come as a JSON document that links to them. */
export function command(request) {
  const several = (request.n ?? 1) > 1;
  const type = `image/${request.output?.format ?? 'png'}`;
  const parts = several
    ? ['curl -f', "-H 'Prefer: wait=60'"]
    : ['curl -f', `-o ${fileName(request, type)}`];
  parts.push("-H 'Content-Type: application/json'", `-d ${quoted(print(request))}`);
  parts.push(absolute(`v1/images${several ? '' : `.${EXTENSIONS[type]}`}`));
  return parts.join(' ');
}

/** A file name that tells the picture: the words of its prompt, its seed and its type. */
export function fileName({ prompt, seed }, type = 'image/png') {
  const words = (prompt ?? '').toLowerCase().replace(/[^a-z0-9]+/g, '-').replace(/^-+|-+$/g, '').slice(0, 40);
  return `${[words.replace(/-+$/, '') || 'picture', seed].filter((part) => part !== undefined).join('-')}.${EXTENSIONS[type]}`;
}

/** Between single quotes only the quote itself needs care in a POSIX shell. */
function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
