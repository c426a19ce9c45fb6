// Converts a request into a curl command.

import { absolute } from './api.js';
import { print } from './json.js';
import { key } from './key.js';
import { EXTENSIONS, PICTURES, typeOf } from './kinds.js';

/** Longer arguments are refused by systems (128 KiB on Linux), so the request goes through the standard input. */
const MOST_ARGUMENT = 100_000;

/** The environment variable from which codes read the API key. */
export const KEY = 'LATENTD_KEY';

/**
 * The command that requests a file. For several files, the answer is a JSON document with links to them.
 * @param {object} request
 * @param {object} kind
 * @param {boolean} keyed whether the command sends an API key: by default, if this tab does
 */
export function command(request, kind = PICTURES, keyed = key() !== null) {
  const several = (request.n ?? 1) > 1;
  const type = typeOf(request, kind);
  const parts = [
    'curl -f', ...(keyed ? [`-H "Authorization: Bearer $${KEY}"`] : []),
    several ? "-H 'Prefer: wait=60'" : `-o ${fileName(request, type)}`,
    ...(several || kind === PICTURES ? [] : [`-H 'Prefer: wait=3600' -H 'Accept: ${type}'`]),
  ];
  const body = print(request);
  const isLong = body.length > MOST_ARGUMENT;
  parts.push("-H 'Content-Type: application/json'", `-d ${isLong ? '@-' : quoted(body)}`);
  parts.push(absolute(`${kind.root}${several || kind !== PICTURES ? '' : `.${EXTENSIONS[type]}`}`));
  return parts.join(' ') + (isLong ? ` <<'END'\n${body}\nEND\n` : '');
}

/** A file name from the words of the prompt, the seed and the media type. */
export function fileName({ prompt, seed }, type = 'image/png') {
  const words = (prompt ?? '').toLowerCase().replace(/[^a-z0-9]+/g, '-').replace(/^-+|-+$/g, '').slice(0, 40);
  return `${[words.replace(/-+$/, '') || (/^(video|audio)/.exec(type)?.[0] ?? 'picture'), seed].filter((part) => part !== undefined).join('-')}.${EXTENSIONS[type]}`;
}

/** Quotes a text for a POSIX shell. Inside single quotes, only the single quote must be escaped. */
function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
