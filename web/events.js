// Watches generations: with one stream of server-sent events for all of them. While there is none, with a stream for each
// of the oldest, and by polling for the others.

import * as api from './api.js';
import { parse } from './json.js';
import { Stream } from './stream.js';

/** The most event streams. Browsers open about six connections to a server, and the page needs some of them. */
const MOST_STREAMS = 3;
const POLL_MS = 1500;

const TERMINAL = new Set(['succeeded', 'failed', 'canceled', 'expired']);
const PREFIX = 'generation.';

export const isTerminal = (status) => TERMINAL.has(status);

/** All watches that have not ended, oldest first. */
const watches = new Set();
/** The stream of all own generations. */
let feed = null;

/**
 * Calls `listener(name, data)` for every event of a generation until its end. `name` is the event without its prefix, such
 * as `deleted`; `state` for a polled generation, or `gone` for one that polling no longer finds. Durable events may be
 * repeated. `kind` is the kind of the generation. Returns a function that stops watching.
 */
export function watch(id, listener, kind) {
  const watching = new Watch(id, listener, kind);
  watches.add(watching);
  assign();
  return () => watching.end();
}

/**
 * Follows all own generations: calls `listener(name, id, data)` for their events, also for those of other pages. Calls
 * `opened` whenever the stream begins, because events of the time before may be missing.
 */
export function follow(listener, opened) {
  feed = new Feed(listener, opened);
  assign();
}

/** Whether the stream of all own generations brings their events now. */
export const isFollowing = () => feed?.open ?? false;

// A hidden page must not occupy connections that a visible page needs.
document.addEventListener('visibilitychange', assign);

/** Starts all streams again, with another key. */
export function restart() {
  feed?.restart();
  for (const watching of watches) {
    watching.close();
    watching.canStream = true;
  }
  assign();
}

function assign() {
  feed?.run(!document.hidden);
  let streams = document.hidden ? 0 : MOST_STREAMS;
  for (const watching of watches) {
    const streamed = watching.canStream && streams > 0;
    if (streamed) streams -= 1;
    if (feed?.open) watching.rest();
    else watching.run(streamed);
  }
}

/** The stream of all own generations. */
class Feed {
  /** Becomes false for good if the server or a proxy rejects the stream. */
  possible = true;
  /** Whether events arrive. */
  open = false;

  constructor(listener, opened) {
    this.listener = listener;
    this.opened = opened;
  }

  run(wanted) {
    if (!wanted || !this.possible) {
      this.stream?.stop();
      this.stream = undefined;
      this.open = false;
    } else {
      this.stream ??= new Stream(api.allEventsUrl(), {
        opened: () => {
          this.open = true;
          assign();
          this.opened();
        },
        lost: () => {
          this.open = false;
          assign();
        },
        event: (name, text) => name.startsWith(PREFIX) && this.tell(name.slice(PREFIX.length), parse(text)),
        closed: () => {
          this.possible = this.open = false;
          assign();
        },
      });
    }
  }

  restart() {
    this.possible = true;
    this.run(false);
  }

  tell(word, data) {
    const id = data.generation?.id ?? data.id;
    this.listener(word, id, data);
    for (const watching of watches) if (watching.id === id) watching.tell(word, data);
  }
}

class Watch {
  constructor(id, listener, kind) {
    this.id = id;
    this.kind = kind;
    this.listener = listener;
    /** Becomes false for good if the server or a proxy rejects the stream. */
    this.canStream = true;
  }

  run(streamed) {
    if (streamed) {
      clearTimeout(this.poll);
      this.poll = undefined;
      if (!this.stream) this.openStream();
    } else {
      this.close();
      this.poll ??= setTimeout(() => this.ask(), 0);
    }
  }

  /** Stops its own stream or polling, because the stream of all generations brings its events. */
  rest() {
    this.close();
    clearTimeout(this.poll);
    this.poll = undefined;
  }

  openStream() {
    this.stream = new Stream(api.eventsUrl(this.id, 0, this.kind), {
      event: (name, text) => name.startsWith(PREFIX) && this.tell(name.slice(PREFIX.length), parse(text)),
      closed: () => {
        this.canStream = false;
        assign();
      },
    });
  }

  close() {
    this.stream?.stop();
    this.stream = undefined;
  }

  tell(word, data) {
    if (!watches.has(this)) return;
    this.listener(word, data);
    if (TERMINAL.has(word) || word === 'deleted') this.end();
  }

  async ask() {
    const turn = this.poll;
    try {
      const generation = await api.get(this.id, this.kind);
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
