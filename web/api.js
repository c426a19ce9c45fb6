// The server's HTTP API: one function per operation, and one error class. All paths are relative to the page, because a
// proxy may serve the page under a path.

import { parse, print } from './json.js';
import { key, keyHeaders } from './key.js';
import { PICTURES } from './kinds.js';

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

/** Fires `up` and `down` when the server starts or stops answering, and `locked` when it wants another key. */
export const reach = new EventTarget();
let up = true;

function reached(now) {
  if (now === up) return;
  up = now;
  reach.dispatchEvent(new Event(up ? 'up' : 'down'));
}

/** The code of the problem that replaces an answer for an earlier key: the tenant of the present key may be another one. */
export const OTHER_KEY = 'other_key';

/** Sends a request, and reads the whole answer with `read`. */
async function send(method, path, { body, signal, accept = 'application/json', prefer, read }) {
  const sentWith = key();
  const headers = { Accept: accept, ...keyHeaders(), ...(prefer ? { Prefer: prefer } : {}) };
  if (body !== undefined) headers['Content-Type'] = 'application/json';
  let response, content;
  try {
    response = await fetch(path, { method, headers, signal, body: body === undefined ? undefined : print(body) });
    content = await (response.ok ? read(response) : response.text());
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    reached(false);
    throw new Problem({ status: 0, code: 'unreachable', detail: 'The server does not answer.' });
  }
  reached(true);
  if (key() !== sentWith) throw new Problem({ status: 0, code: OTHER_KEY, detail: 'The answer came after the key had been changed.' });
  if (response.ok) return content;
  if (response.status === 401) reach.dispatchEvent(new Event('locked'));
  const retryAfter = Number(response.headers.get('Retry-After'));
  throw new Problem({ ...json(content, response.status), status: response.status }, retryAfter > 0 ? retryAfter : null);
}

async function call(method, path, options = {}) {
  return json(await send(method, path, { ...options, read: (response) => response.text() }));
}

function json(text, status = 200) {
  try {
    return text === '' ? null : parse(text);
  } catch {
    // Not an answer of latentd, but for example a proxy's error page.
    throw new Problem({ status, detail: `The answer (status ${status}) is not JSON.` });
  }
}

/**
 * Converts a URL from an answer into a URL relative to the page. It is relative to the server's root, or absolute behind a
 * proxy, perhaps under another name than that of the page.
 */
export const local = (url) => url.replace(/^[^?]*?\/(?=v1\/)/, '');
/** The absolute URL of a path, for use outside the page. */
export const absolute = (path) => new URL(path, document.baseURI).href;

/** The path of a generation. Each kind has its own routes. */
const one = (id, { root } = PICTURES) => `${root}/${encodeURIComponent(id)}`;

/** Creates a generation. Resolves when the server has accepted the request. */
export const create = (request, { root } = PICTURES) => call('POST', root, { body: request });
/** Resolves when a generation has ended, or after a minute. */
export const wait = (id) => call('GET', one(id), { prefer: 'wait=60' });
export const get = (id, kind) => call('GET', one(id, kind));
export const cancel = (id, kind) => call('POST', `${one(id, kind)}/cancel`);
export const erase = (id, kind) => call('DELETE', one(id, kind));
/** Gives a generation a star, or takes the star away. */
export const star = (id, starred, kind) => call(starred ? 'PUT' : 'DELETE', `${one(id, kind)}/star`);

/** A page of generations of a kind, newest first. `after` is the last id of the previous page. */
export function list({ limit, ...filters }, { root } = PICTURES) {
  const set = Object.entries(filters).filter(([, value]) => value !== undefined);
  return call('GET', `${root}?${new URLSearchParams([['limit', limit], ...set])}`);
}

export const models = async () => (await call('GET', 'v1/models')).data;
/** The JSON Schema of a model's requests for work of a kind. */
export const schema = (model, kind) => call('GET', `v1/models/${encodeURIComponent(model)}/schema?kind=${kind.id}`);
/** The text of a model's card, written by the authors of the model. */
export const modelCard = (model) => send('GET', `v1/models/${encodeURIComponent(model)}/card`, { accept: 'text/markdown', read: (response) => response.text() });
export const schedulers = async () => (await call('GET', 'v1/schedulers')).data;
export const loras = async () => (await call('GET', 'v1/loras')).data;
export const embeddings = async () => (await call('GET', 'v1/embeddings')).data;
export const controlNets = async () => (await call('GET', 'v1/controlnets')).data;
export const queue = () => call('GET', 'v1/queue');

/** The URL of the stream of a generation's events after number `after`. */
export const eventsUrl = (id, after, kind) => `${one(id, kind)}/events${after > 0 ? `?after=${after}` : ''}`;
/** The URL of the stream of the events of all own generations. */
export const allEventsUrl = () => 'v1/events';

/** The URL of a picture that was uploaded with a request. */
export const uploadUrl = (sha256) => `v1/uploads/${sha256}`;

/** The bytes of a file. `file` is an image or an artifact of a generation object. */
export const bytes = (file) => send('GET', local(file.url), { accept: '*/*', read: (response) => response.blob() });

/** Whether a browser cannot load the URL by itself: it needs the key, which only `fetch` sends. */
export const needsKey = (url) => key() !== null && !/[?&]sig=/.test(url);

/** Loads a file of the server into an `<img>`, `<video>` or `<audio>`. */
export async function show(img, url) {
  if (!needsKey(url)) {
    img.src = local(url);
    return;
  }
  try {
    const source = URL.createObjectURL(await bytes({ url }));
    // A player reads its file again when it seeks.
    const ends = img.tagName === 'IMG' ? ['load', 'error'] : [];
    for (const end of ends) img.addEventListener(end, () => URL.revokeObjectURL(source), { once: true });
    img.src = source;
  } catch {
    img.dispatchEvent(new Event('error'));
  }
}
