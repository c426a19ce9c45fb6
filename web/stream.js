// A stream of server-sent events, read with `fetch`, because `EventSource` cannot send a key. Reconnects after the last
// numbered event.

import { keyHeaders } from './key.js';

/** The server pings every 15 s, so a stream that is silent for this long is broken. */
const SILENCE_MS = 50_000;
const RETRY_MS = 2000;

export class Stream {
  /**
   * @param {string} path
   * @param {{event(name: string, text: string): void, opened?(): void, lost?(): void,
   *   closed(status: number): void}} page `lost` is called when the connection is lost, before it is opened again, and
   *   `closed` if the server rejects the stream: with 204 (no more events) or the status of an error
   */
  constructor(path, page) {
    this.path = path;
    this.page = page;
    this.last = null;
    this.retryMs = RETRY_MS;
    this.connect();
  }

  stop() {
    this.stopped = true;
    this.abort?.abort();
    clearTimeout(this.silence);
    clearTimeout(this.retry);
  }

  // Private methods.

  async connect() {
    this.abort = new AbortController();
    this.heard();
    try {
      const headers = { Accept: 'text/event-stream', ...keyHeaders(), ...(this.last === null ? {} : { 'Last-Event-ID': this.last }) };
      const response = await fetch(this.path, { headers, cache: 'no-store', signal: this.abort.signal });
      if (this.stopped) return;
      if (response.status === 204 || (response.status >= 400 && response.status < 500)) {
        this.stop();
        this.page.closed(response.status);
        return;
      }
      if (response.ok) {
        this.page.opened?.();
        await this.read(response.body.pipeThrough(new TextDecoderStream()).getReader());
      }
    } catch {
      // The connection was lost, or it was silent for too long.
    }
    clearTimeout(this.silence);
    if (!this.stopped) this.page.lost?.();
    if (!this.stopped) this.retry = setTimeout(() => this.connect(), this.retryMs);
  }

  async read(reader) {
    const parser = new Parser();
    for (;;) {
      const { value, done } = await reader.read();
      if (done || this.stopped) return;
      this.heard();
      for (const { id, event, data, retry } of parser.push(value)) {
        if (retry !== undefined) this.retryMs = retry;
        if (id !== undefined) this.last = id;
        if (event && !this.stopped) this.page.event(event, data);
      }
    }
  }

  heard() {
    clearTimeout(this.silence);
    this.silence = setTimeout(() => this.abort.abort(), SILENCE_MS);
  }
}

/** Splits the text of a stream into its events. */
export class Parser {
  rest = '';

  /** @returns {{id?: string, event?: string, data: string, retry?: number}[]} the events that `text` completes */
  push(text) {
    // A line break of two characters may arrive in two parts.
    const all = this.rest + text;
    const held = all.endsWith('\r') ? '\r' : '';
    const blocks = all.slice(0, all.length - held.length).replaceAll('\r\n', '\n').replaceAll('\r', '\n').split('\n\n');
    this.rest = blocks.pop() + held;
    return blocks.map(parseBlock);
  }
}

function parseBlock(block) {
  const found = { data: [] };
  for (const line of block.split('\n')) {
    const colon = line.indexOf(':');
    if (colon === 0 || line === '') continue;
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
    if (name === 'data') found.data.push(value);
    else if (name === 'retry' && /^\d+$/.test(value)) found.retry = Number(value);
    else if (name === 'id' || name === 'event') found[name] = value;
  }
  return { ...found, data: found.data.join('\n') };
}
