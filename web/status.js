// The state of the server: the length of its queue, and whether it answers.

import * as api from './api.js';

/** Time between two requests for the state. */
const IDLE_MS = 5000;
const BUSY_MS = 2000;

/**
 * Updates the status line in the header and the banner.
 * @param {{returned(): void, seen(queue: object): Promise<void>}} page `returned` is called when the server answers
 *   again, `seen` regularly with the answer of `GET /v1/queue`
 */
export function showStatus(page) {
  const line = document.getElementById('queue');
  const banner = document.getElementById('offline');
  let timer;

  const ask = async () => {
    clearTimeout(timer);
    let wait = IDLE_MS;
    try {
      if (!document.hidden) {
        const queue = await api.queue();
        tell(line, queue);
        if (queue.running > 0) wait = BUSY_MS;
        await page.seen(queue);
      }
    } catch (problem) {
      line.hidden = true;
      if (problem.status === 0) wait = BUSY_MS;
    }
    clearTimeout(timer);
    timer = setTimeout(ask, wait);
  };

  api.reach.addEventListener('down', () => {
    banner.textContent = 'The server does not answer. The page tries again. Accepted requests are not lost.';
    banner.hidden = false;
    ask();
  });
  api.reach.addEventListener('up', () => {
    banner.hidden = true;
    page.returned();
  });
  document.addEventListener('visibilitychange', () => document.hidden || ask());
  ask();
  return { refresh: ask };
}

function tell(line, { running = 0, queued = 0 }) {
  line.hidden = false;
  line.dataset.busy = running > 0;
  if (running + queued === 0) line.textContent = 'Idle';
  else line.textContent = queued === 0 ? `${running} running` : `${running} running · ${queued} waiting`;
}
