// Entry point of the page: creates its parts and connects them.

import * as api from './api.js';
import { caption } from './classes.js';
import { showCode } from './code.js';
import { compare } from './compare.js';
import { command } from './curl.js';
import { restart } from './events.js';
import { Form } from './form.js';
import { Gallery } from './gallery.js';
import { History } from './history.js';
import { showKey } from './key.js';
import { PICTURES, SOUNDS, kindsOfModel } from './kinds.js';
import { KindTabs } from './kind_tabs.js';
import { showNearest } from './known.js';
import { Large } from './large.js';
import { Live } from './live.js';
import { showModels } from './models_panel.js';
import { showStatus } from './status.js';
import { variations } from './variations.js';

const TOAST_MS = 3500;
/** The number of previews while a picture or a film is made. */
const PREVIEWS = 10;

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
    toast('Copied.');
  } catch {
    // Browsers provide the clipboard only for https and localhost. Otherwise the user copies the text from a dialog.
    window.prompt('Copy the text:', text);
  }
}

/** The JSON Schema of the requests of each model, by the model's name. */
let schemas = new Map();
/** The kind of work that the page shows. */
let shown = PICTURES;
const schemaOf = (model) => schemas.get(shown)?.get(model);

/** Sends a request and adds its card. Rejects with a Problem. */
async function create(request, kind = PICTURES) {
  const generation = await api.create(request, kind);
  const card = gallery.created(generation);
  announce(`${caption(generation.params, schemaOf(generation.params.model))}: accepted`);
  card.element.scrollIntoView({ block: 'nearest', behavior: 'smooth' });
  status.refresh();
  return generation;
}

const form = new Form(at('form'), async (request) => {
  form.lastSeed = (await create(request, form.kind)).params.seed;
}, schemaOf, announce);

const use = (generation) => form.use(generation);
const start = (image) => form.startFrom(image);
const suggest = (prompt) => {
  form.suggest(prompt);
  form.form.dispatchEvent(new Event('input', { bubbles: true }));
};
const more = (params, kind = PICTURES) => {
  const previews = kind === SOUNDS ? {} : { previews: PREVIEWS };
  create({ ...variations(params, schemaOf(params.model), kind), ...previews }, kind).catch((problem) => announce(problem.message, true));
};
const code = (request, kind = PICTURES) => showCode(request, kind, copy);
const comparing = (first, second) => compare(gallery.pictures(), first, second);
const gallery = new Gallery({
  use, start, copy, announce, schemaOf, more,
  open: (card, index) => large.open(card, index),
  finished: () => status.refresh(),
  changed: () => history.changed(),
  chosen: () => history.choose(),
});
const history = new History({ gallery, announce, compare: comparing });
const large = new Large({ use, start, copy, schemaOf, more, code, compare: comparing, pictures: () => gallery.pictures() });
const live = new Live({ form, announce, keep: create });
const showsNearest = showNearest({ form, suggest });
const tabs = new KindTabs((kind) => choose(kind).catch((problem) => announce(problem.message, true)));
const keys = showKey(() => {
  // Another key may belong to another tenant.
  gallery.clear();
  restart();
  load();
});

/** What the server has: its models, schedulers and add-ons. */
let server = { models: [], schedulers: [], addOns: {} };

/** Shows the models of a kind in the form. */
function offer(kind) {
  const makers = (of) => server.models.filter((model) => kindsOfModel(model).includes(of));
  form.offer(makers(kind), server.schedulers, server.addOns, kind);
  live.load(makers(PICTURES), server.addOns.loras);
  showsNearest();
}

/** Shows the form and the generations of another kind. */
async function choose(kind) {
  name(kind);
  offer(kind);
  await gallery.show(kind);
}

/** Shows the words and schemas of a kind. */
function name(kind) {
  shown = kind;
  at('pictures').ariaLabel = kind.nouns[0].toUpperCase() + kind.nouns.slice(1);
  at('empty').querySelector('strong').textContent = `No ${kind.nouns} yet.`;
  at('more').textContent = `Show older ${kind.nouns}`;
  document.querySelector('.skip').textContent = `Skip to the ${kind.nouns}`;
  history.name(kind);
}

async function load() {
  try {
    const [models, schedulers, loras, embeddings, controlNets] = await Promise.all([
      api.models(), api.schedulers(), api.loras(), api.embeddings(), api.controlNets(),
    ]);
    const usable = models.filter((model) => model.capabilities);
    const kinds = new Set(usable.flatMap(kindsOfModel));
    schemas = new Map(await Promise.all([...kinds].map(async (kind) => {
      const makers = usable.filter((model) => kindsOfModel(model).includes(kind));
      return [kind, new Map(await Promise.all(makers.map(async ({ id }) => {
        // A model that was removed meanwhile has no schema.
        return [id, await api.schema(id, kind).catch((problem) => { if (problem.status !== 404) throw problem; })];
      })))];
    })));
    // Motion adapters are in the schemas of the models that make films with them.
    const steering = controlNets.filter(({ kind }) => kind !== 'motion_adapter');
    server = { models, schedulers, addOns: { loras, embeddings, controlNets: steering } };
    // Without a usable model, the page is that of pictures.
    const kind = tabs.offer(kinds.size > 0 ? kinds : new Set([PICTURES]));
    name(kind);
    offer(kind);
    if (gallery.kind === kind) await gallery.load();
    else await gallery.show(kind);
  } catch (problem) {
    // If the server does not answer, the banner says so, and load() runs again when the server is back. If it wants a
    // key, a dialog asks for the key.
    if (problem.status !== 0 && problem.status !== 401) toast(problem.message);
  }
}

function returned() {
  form.reached();
  load();
}

api.reach.addEventListener('locked', () => keys.ask());
const status = showStatus({ returned, seen: (queue) => gallery.refreshQueued(queue.own) });
at('copy-request').addEventListener('click', () => copy(command(form.request(), form.kind)));
at('code-open').addEventListener('click', () => code(form.request(), form.kind));
at('models-open').addEventListener('click', () => showModels({ use: suggest, copy }));
at('shortcut').textContent = /Mac|iPhone|iPad/.test(navigator.userAgent) ? '⌘ ↵' : 'Ctrl ↵';
// Wide windows show the settings.
at('settings').open = matchMedia('(min-width: 56rem)').matches;
load();
