// Starred generations. The server deletes every generation some time after its end, so this browser keeps starred ones
// with their pictures, in IndexedDB.

import * as api from './api.js';

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

/** Keeps a generation with the bytes of its pictures. */
export async function keep(generation) {
  const images = await Promise.all(generation.images.map(async (image) => ({ ...image, blob: await api.bytes(image) })));
  await run('readwrite', (store) => store.put({ ...generation, images }));
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

/** A starred generation that the server no longer has: its pictures come from this browser. */
export function apart(generation) {
  const images = generation.images.map((image) => ({ ...image, url: URL.createObjectURL(image.blob) }));
  return { ...generation, images, expires_at: null, apart: true };
}
