// Watches generations: with server-sent events, or by polling if these are not available.

import * as api from './api.js';
import { parse } from './json.js';

/** The most event streams. Browsers open about six connections to a server, and the page needs some of them. */
const MOST_STREAMS = 3;
/** The server pings every 15 s, so a stream that is silent for this long is broken. */
const SILENCE_MS = 50_000;
const POLL_MS = 1500;

const TERMINAL = new Set(['succeeded', 'failed', 'canceled', 'expired']);
const DURABLE = ['queued', 'started', 'image', 'retrying', ...TERMINAL].map((word) => `generation.${word}`);
const EPHEMERAL = ['generation.progress', 'generation.preview'];

export const isTerminal = (status) => TERMINAL.has(status);

/** All watches that have not ended, oldest first. The oldest get event streams, the others poll. */
const watches = new Set();

/**
 * Calls `listener(name, data)` for every event of a generation until its end. `name` is the event without its prefix,
 * `state` for a polled generation, or `gone` for a deleted one. Durable events may be repeated. Returns a function that
 * stops watching.
 */
export function watch(id, listener) {
  const watching = new Watch(id, listener);
  watches.add(watching);
  assign();
  return () => watching.end();
}

// A hidden page must not occupy connections that a visible page needs.
document.addEventListener('visibilitychange', assign);

function assign() {
  let streams = document.hidden ? 0 : MOST_STREAMS;
  for (const watching of watches) {
    const streamed = watching.canStream && streams > 0;
    if (streamed) streams -= 1;
    watching.run(streamed);
  }
}

class Watch {
  constructor(id, listener) {
    this.id = id;
    this.listener = listener;
    /** Number of the last durable event. A new stream begins after it. */
    this.after = 0;
    /** Becomes false for good if the server or a proxy rejects the stream. */
    this.canStream = true;
  }

  run(streamed) {
    if (streamed) {
      clearTimeout(this.poll);
      this.poll = undefined;
      if (!this.source) this.open();
    } else {
      this.close();
      this.poll ??= setTimeout(() => this.ask(), 0);
    }
  }

  open() {
    const source = new EventSource(api.eventsUrl(this.id, this.after));
    this.source = source;
    this.heard();
    for (const name of DURABLE) {
      source.addEventListener(name, (event) => {
        this.after = Math.max(this.after, Number(event.lastEventId) || 0);
        this.tell(name, event);
      });
    }
    for (const name of EPHEMERAL) source.addEventListener(name, (event) => this.tell(name, event));
    source.addEventListener('ping', () => this.heard());
    source.addEventListener('open', () => this.heard());
    source.addEventListener('error', () => {
      // CONNECTING: the connection was lost, and the browser reconnects by itself. CLOSED: the server rejected the
      // stream with 204 (no more events) or an error status.
      if (source.readyState === EventSource.CLOSED) {
        this.canStream = false;
        assign();
      }
    });
  }

  close() {
    this.source?.close();
    this.source = undefined;
    clearTimeout(this.silence);
  }

  heard() {
    clearTimeout(this.silence);
    this.silence = setTimeout(() => {
      this.close();
      assign();
    }, SILENCE_MS);
  }

  tell(name, event) {
    this.heard();
    const word = name.slice('generation.'.length);
    this.listener(word, parse(event.data));
    if (TERMINAL.has(word)) this.end();
  }

  async ask() {
    const turn = this.poll;
    try {
      const generation = await api.get(this.id);
      if (!watches.has(this)) return;
      this.listener('state', generation);
      if (TERMINAL.has(generation.status)) return this.end();
    } catch (problem) {
      if (problem.status === 404) {
        this.listener('gone', null);
        return this.end();
      }
    }
    // Polls again, unless a stream or a newer poll has replaced this one.
    if (watches.has(this) && this.poll === turn) this.poll = setTimeout(() => this.ask(), POLL_MS);
  }

  end() {
    this.close();
    clearTimeout(this.poll);
    if (watches.delete(this)) assign();
  }
}
