// Texts for the state of a generation.

import { duration } from './duration.js';
import { FILMS, SOUNDS, kindOf } from './kinds.js';

const PHASES = {
  loading: 'Loading the model', encoding: 'Encoding the prompt', decoding: 'Decoding', saving: 'Saving',
};

/** One line about a generation. `progress` is that of the generation object or of an event; null before the first. */
export function stateText(generation, progress, canceling) {
  const { status, queue } = generation;
  if (status === 'queued') return place(queue);
  if (status === 'running') return canceling ? 'Canceling …' : doing(progress);
  return ended(generation);
}

/** When a generation is deleted, or that the server keeps it. */
export function expiryText({ expires_at: expires, status, starred, object }, now = Date.now()) {
  if (starred) return `Starred: the server keeps this ${kindOf({ object }).noun}.`;
  if (!expires) return '';
  const left = (new Date(expires) - now) / 1000;
  return left > 0 ? `${status === 'succeeded' ? 'Expires' : 'Is deleted'} in ${duration(left)}` : 'Expired';
}

function place(queue) {
  if (!queue) return 'Queued';
  const begins = queue.estimated_start_s >= 1 ? ` · starts in ${duration(queue.estimated_start_s)}` : '';
  return (queue.position === 0 ? 'Next in the queue' : `Queued, ${queue.position} ahead`) + begins;
}

function doing(progress) {
  if (!progress) return 'Starting';
  if (PHASES[progress.phase]) return PHASES[progress.phase];
  const left = progress.eta_s > 0.5 ? ` · ${duration(progress.eta_s)} left` : '';
  return `Step ${progress.step} of ${progress.steps}${left}`;
}

function ended(generation) {
  const { status, error, params, started_at: started, finished_at: finished } = generation;
  const kind = kindOf(generation);
  const files = generation[kind.files] ?? [];
  if (status === 'failed') return error?.message ?? 'Failed';
  if (status === 'canceled') return 'Canceled';
  if (status === 'expired') return 'Expired: waited too long to start';
  const seconds = started && finished ? (new Date(finished) - new Date(started)) / 1000 : null;
  const took = seconds === null ? [] : [`${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`];
  return [...shape(kind, params, files), `${params.steps} ${params.steps === 1 ? 'step' : 'steps'}`, `seed ${params.seed}`, ...took,
    ...(files.some(({ flagged }) => flagged) ? ['flagged by the safety checker'] : [])].join(' · ');
}

/** What the files of a generation have in common. */
function shape(kind, { width, height, seconds, frames, fps }, [file]) {
  if (kind === SOUNDS) {
    const { sample_rate: rate, channels, seconds: exact = seconds } = file ?? {};
    return [`${tidy(exact)} s`, ...(rate ? [`${tidy(rate / 1000)} kHz`, channels === 1 ? 'mono' : 'stereo'] : [])];
  }
  return [`${width} × ${height}`, ...(kind === FILMS ? [`${frames} frames`, `${tidy(frames / fps)} s`] : [])];
}

const tidy = (number) => Math.round(100 * number) / 100;
