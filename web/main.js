// Entry point of the page: creates its parts and connects them.

import * as api from './api.js';
import { caption } from './classes.js';
import { command } from './curl.js';
import { Form } from './form.js';
import { Gallery } from './gallery.js';
import { Large } from './large.js';
import { showStatus } from './status.js';

const TOAST_MS = 3500;

const at = (id) => document.getElementById(id);

/** Announces a text to screen readers and, if `seen`, also shows it as a toast. */
function announce(text, seen = false) {
  at('live').textContent = text;
  if (seen) toast(text);
}

function toast(text) {
  // An open dialog hides and silences everything outside it.
  (document.querySelector('dialog[open]') ?? document.body).append(at('toast'));
  at('toast').textContent = text;
  at('toast').classList.add('seen');
  clearTimeout(toast.timer);
  toast.timer = setTimeout(() => at('toast').classList.remove('seen'), TOAST_MS);
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    toast('Copied. Paste the command into a shell.');
  } catch {
    // Browsers provide the clipboard only for https and localhost. Otherwise the user copies the text from a dialog.
    window.prompt('Copy the command:', text);
  }
}

/** The JSON Schema of the requests of each model, by the model's name. */
let schemas = new Map();
const schemaOf = (model) => schemas.get(model);

const form = new Form(at('form'), async (request) => {
  const generation = await api.create(request);
  const card = gallery.add(generation);
  form.lastSeed = generation.params.seed;
  announce(`${caption(generation.params, schemaOf(generation.params.model))}: accepted`);
  card.element.scrollIntoView({ block: 'nearest', behavior: 'smooth' });
  status.refresh();
}, schemaOf, announce);

const use = (generation) => form.use(generation);
const gallery = new Gallery({
  use, copy, announce, schemaOf,
  open: (card, index) => large.open(card, index),
  finished: () => status.refresh(),
});
const large = new Large({ use, copy, schemaOf, pictures: () => gallery.pictures() });

async function load() {
  try {
    const [models, schedulers, loras, embeddings, controlNets] = await Promise.all([
      api.models(), api.schedulers(), api.loras(), api.embeddings(), api.controlNets(),
    ]);
    const usable = models.filter((model) => model.capabilities);
    schemas = new Map(await Promise.all(usable.map(async ({ id }) => {
      // A model that was removed meanwhile has no schema.
      return [id, await api.schema(id).catch((problem) => { if (problem.status !== 404) throw problem; })];
    })));
    form.offer(models, schedulers, { loras, embeddings, controlNets });
    await gallery.load();
  } catch (problem) {
    // If the server does not answer, the banner says so, and load() runs again when the server is back.
    if (problem.status !== 0) toast(problem.message);
  }
}

function returned() {
  form.reached();
  load();
}

const status = showStatus({ returned, waiting: () => gallery.refreshQueued() });
at('copy-request').addEventListener('click', () => copy(command(form.request())));
at('shortcut').textContent = /Mac|iPhone|iPad/.test(navigator.userAgent) ? '⌘ ↵' : 'Ctrl ↵';
// Wide windows show the settings.
at('settings').open = matchMedia('(min-width: 56rem)').matches;
load();
