// Messages between the tabs of this page: what one of them has created or deleted.

const channel = typeof BroadcastChannel === 'undefined' ? null : new BroadcastChannel(`latentd ${document.baseURI}`);

/** Tells the other tabs. */
export const tell = (kind, id) => channel?.postMessage({ kind, id });

/** Calls `listener(kind, id)` for messages of other tabs. */
export const listen = (listener) => channel?.addEventListener('message', ({ data }) => listener(data.kind, data.id));
