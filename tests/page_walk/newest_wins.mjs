// Whatever comes when: at most one request runs, the newest is the last to run, and a run after a canceled one ends by
// itself. Run by walk.mjs before the browser starts.

import assert from "node:assert/strict";
import { Newest } from "../../web/newest.js";

/** A random number from 0 to 1, the same for the same seed. */
function random(seed) {
  let state = seed;
  return () => {
    state = (state * 1664525 + 1013904223) % 2 ** 32;
    return state / 2 ** 32;
  };
}

export async function newestWins() {
  for (let seed = 0; seed < 200; seed += 1) {
    const next = random(seed);
    let clock = 0;
    let running = null;
    const log = [];
    const start = (request) => {
      assert.equal(running, null, "two requests run");
      let finish;
      const done = new Promise((resolve) => { finish = resolve; });
      running = { request, canceled: false, finish: () => { running = null; finish(); } };
      const own = running;
      log.push(own);
      return { done, cancel: () => { own.canceled = true; } };
    };
    const newest = new Newest(start, () => clock);
    let last = 0;
    for (let turn = 0; turn < 60; turn += 1) {
      clock += Math.floor(next() * 50);
      if (next() < 0.6) newest.want(last += 1);
      else if (running) running.finish();
      await new Promise((resolve) => setImmediate(resolve));
    }
    while (running) {
      running.finish();
      await new Promise((resolve) => setImmediate(resolve));
    }
    assert.equal(log.at(-1)?.request ?? 0, last, "the newest request is the last to run");
    assert.ok(log.every((run, at) => at === 0 || log[at - 1].request < run.request), "an older request runs after a newer one");
    assert.ok(log.every((run, at) => at === 0 || !(run.canceled && log[at - 1].canceled)), "two canceled runs in a row");
    assert.equal(log.at(-1)?.canceled ?? false, false, "the newest request is canceled");
  }
}
