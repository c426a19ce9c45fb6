// Starred generations. The server deletes every generation some time after its end, so this browser keeps starred ones
// with their pictures and the pictures that their requests started from, in IndexedDB.

import * as api from './api.js';
import { dataUrl } from './picture.js';

const STORE = 'generations';

let opened;

function open() {
  opened ??= new Promise((resolve, reject) => {
    // A server under another path has its own stars.
    const request = indexedDB.open(`latentd.stars ${new URL('.', document.baseURI).pathname}`, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: 'id' });
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
  return opened;
}

async function run(mode, act) {
  const database = await open();
  return new Promise((resolve, reject) => {
    const transaction = database.transaction(STORE, mode);
    const request = act(transaction.objectStore(STORE));
    transaction.oncomplete = () => resolve(request.result);
    transaction.onerror = transaction.onabort = () => reject(transaction.error ?? request.error);
  });
}

/** Keeps a generation with the bytes of its pictures and, as data URLs by their uploads, those of its request. */
export async function keep(generation) {
  const images = await Promise.all(generation.images.map(async (image) => ({ ...image, blob: await api.bytes(image) })));
  const sources = {};
  for (const upload of uploads(generation.params)) {
    const source = await api.bytes({ url: api.uploadUrl(upload) }).catch((problem) => {
      // The server may have deleted the picture already; the star keeps what there is.
      if (problem.status !== 404) throw problem;
    });
    if (source) sources[upload] = await dataUrl(source);
  }
  await run('readwrite', (store) => store.put({ ...generation, images, sources }));
}

/** The uploads that a request starts from: its picture, its mask, and the pictures that ControlNets follow. */
function uploads({ image, mask, controls }) {
  const all = [image, mask, ...(controls ?? []).map((control) => control.image)];
  return new Set(all.map((picture) => picture?.upload).filter(Boolean));
}

export const forget = (id) => run('readwrite', (store) => store.delete(id));

/** All starred generations, newest first; none if this browser does not allow storage. */
export async function all() {
  try {
    return (await run('readonly', (store) => store.getAll())).reverse();
  } catch {
    return [];
  }
}

/** A starred generation that the server no longer has: its pictures and those of its request come from this browser. */
export function apart(generation) {
  const images = generation.images.map((image) => ({ ...image, url: URL.createObjectURL(image.blob) }));
  return { ...generation, params: selfContained(generation), images, expires_at: null, apart: true };
}

/** The params with the kept pictures in place of uploads. */
function selfContained({ params, sources = {} }) {
  const kept = (picture) => {
    const { upload, ...size } = picture ?? {};
    return sources[upload] ? { data_url: sources[upload], ...size } : picture;
  };
  const { image, mask, controls } = params;
  return {
    ...params, ...(image ? { image: kept(image) } : {}), ...(mask ? { mask: kept(mask) } : {}),
    ...(controls ? { controls: controls.map((control) => ({ ...control, image: kept(control.image) })) } : {}),
  };
}
