// The state of the server: how much it has to do, and whether it answers at all.

import * as api from './api.js';

const POLL_MS = 5000;
const RETRY_MS = 2000;

/** Keeps the line in the head and the banner true. `returned` is called when the server answers again. */
export function showStatus(returned) {
  const line = document.getElementById('queue');
  const banner = document.getElementById('offline');
  let timer;

  const ask = async () => {
    clearTimeout(timer);
    let wait = POLL_MS;
    try {
      if (!document.hidden) tell(line, await api.queue());
    } catch (problem) {
      line.hidden = true;
      if (problem.status === 0) wait = RETRY_MS;
    }
    timer = setTimeout(ask, wait);
  };

  api.reach.addEventListener('down', () => {
    banner.textContent = 'The server does not answer. Trying again; nothing it has accepted is lost.';
    banner.hidden = false;
    ask();
  });
  api.reach.addEventListener('up', () => {
    banner.hidden = true;
    returned();
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
