// The server's HTTP API: one function per operation, and one error class. All paths are relative to the page, because a
// proxy may serve the page under a path.

import { parse, print } from './json.js';

/** An error answer of the server (RFC 9457 problem document), or no answer at all (`status` 0). */
export class Problem extends Error {
  /** @param {{status: number, code?: string, title?: string, detail?: string, errors?: {pointer: string, detail: string}[]}} document */
  constructor(document, retryAfterS = null) {
    super(document.detail || document.title || `The server answered with status ${document.status}.`);
    this.status = document.status;
    this.code = document.code;
    this.errors = document.errors ?? [];
    this.retryAfterS = retryAfterS;
  }
}

/** Fires the events `up` and `down` when the server starts or stops answering. */
export const reach = new EventTarget();
let up = true;

function reached(now) {
  if (now === up) return;
  up = now;
  reach.dispatchEvent(new Event(up ? 'up' : 'down'));
}

async function call(method, path, { body, signal } = {}) {
  const headers = { Accept: 'application/json' };
  if (body !== undefined) headers['Content-Type'] = 'application/json';
  let response, text;
  try {
    response = await fetch(path, { method, headers, signal, body: body === undefined ? undefined : print(body) });
    text = await response.text();
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    reached(false);
    throw new Problem({ status: 0, code: 'unreachable', detail: 'The server does not answer.' });
  }
  reached(true);
  let answer = null;
  try {
    answer = text === '' ? null : parse(text);
  } catch {
    // Not an answer of latentd, but for example a proxy's error page.
    throw new Problem({ status: response.status, detail: `The answer (status ${response.status}) is not JSON.` });
  }
  if (response.ok) return answer;
  const retryAfter = Number(response.headers.get('Retry-After'));
  throw new Problem({ ...answer, status: response.status }, retryAfter > 0 ? retryAfter : null);
}

/**
 * Converts a URL from an answer into a URL relative to the page. It is relative to the server's root, or absolute behind a
 * proxy, perhaps under another name than that of the page.
 */
export const local = (url) => url.replace(/^[^?]*?\/(?=v1\/)/, '');
/** The absolute URL of a path, for use outside the page. */
export const absolute = (path) => new URL(path, document.baseURI).href;

const one = (id) => `v1/images/${encodeURIComponent(id)}`;

/** Creates a generation. Resolves when the server has accepted the request. */
export const create = (request) => call('POST', 'v1/images', { body: request });
export const get = (id, signal) => call('GET', one(id), { signal });
export const cancel = (id) => call('POST', `${one(id)}/cancel`);
export const erase = (id) => call('DELETE', one(id));

/** A page of generations, newest first. `after` is the last id of the previous page. */
export function list({ limit, status, after }) {
  const query = new URLSearchParams({ limit, status });
  if (after) query.set('after', after);
  return call('GET', `v1/images?${query}`);
}

export const models = async () => (await call('GET', 'v1/models')).data;
/** The JSON Schema of a model's requests. */
export const schema = (model) => call('GET', `v1/models/${encodeURIComponent(model)}/schema`);
export const schedulers = async () => (await call('GET', 'v1/schedulers')).data;
export const queue = () => call('GET', 'v1/queue');

/** The URL of the stream of a generation's events after number `after`. */
export const eventsUrl = (id, after) => `${one(id)}/events${after > 0 ? `?after=${after}` : ''}`;

/** The URL of a picture that was uploaded with a request. */
export const uploadUrl = (sha256) => `v1/uploads/${sha256}`;
