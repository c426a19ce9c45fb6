// The server's HTTP interface: one function an operation, one error for all that can go wrong. Every path is relative to the
// page, which a proxy may show under a path of its own.

import { parse, print } from './json.js';

/** A refusal of the server (RFC 9457 problem document), or its silence (`status` 0). */
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

/** Tells `up` and `down` whenever the server begins or ceases to answer. */
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
    // Not the server's own answer, such as a proxy's page.
    throw new Problem({ status: response.status, detail: `The answer (status ${response.status}) is not JSON.` });
  }
  if (response.ok) return answer;
  const retryAfter = Number(response.headers.get('Retry-After'));
  throw new Problem({ ...answer, status: response.status }, retryAfter > 0 ? retryAfter : null);
}

/** A URL of one of the server's answers, which begins at the server's root, as one that begins at the page. */
export const local = (url) => (url.startsWith('/') ? url.slice(1) || '.' : url);
/** The whole URL of a path, for use outside the page. */
export const absolute = (path) => new URL(path, document.baseURI).href;

const one = (id) => `v1/images/${encodeURIComponent(id)}`;

/** Creates a generation; resolves as soon as the server has accepted it. */
export const create = (request) => call('POST', 'v1/images', { body: request });
export const get = (id, signal) => call('GET', one(id), { signal });
export const cancel = (id) => call('POST', `${one(id)}/cancel`);
export const erase = (id) => call('DELETE', one(id));

/** A page of generations, newest first. `after` is the last id of the page before. */
export function list({ limit, status, after }) {
  const query = new URLSearchParams({ limit, status });
  if (after) query.set('after', after);
  return call('GET', `v1/images?${query}`);
}

export const models = async () => (await call('GET', 'v1/models')).data;
/** The JSON Schema of what a model takes. */
export const schema = (model) => call('GET', `v1/models/${encodeURIComponent(model)}/schema`);
export const schedulers = async () => (await call('GET', 'v1/schedulers')).data;
export const queue = () => call('GET', 'v1/queue');

/** Where the events of a generation after number `after` are streamed. */
export const eventsUrl = (id, after) => `${one(id)}/events${after > 0 ? `?after=${after}` : ''}`;

/** Where a picture that a request brought along can be seen. */
export const uploadUrl = (sha256) => `v1/uploads/${sha256}`;
