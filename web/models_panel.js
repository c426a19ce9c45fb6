// A dialog with the models, LoRAs, ControlNets and textual inversions of the server, and how to add some.

import * as api from './api.js';
import { openDialog } from './dialog.js';
import { element } from './element.js';
import { knowsAbout, showKnown } from './known.js';

const STATES = {
  ready: 'In memory', loading: 'Loading', cold: 'On disk: the first picture loads it', available: 'Available', failed: 'Not usable',
};

/** What to download, with the folder where the server finds it. */
const DOWNLOADS = [
  {
    name: 'Stable Diffusion 1.5', size: '4.3 GB',
    command: "hf download stable-diffusion-v1-5/stable-diffusion-v1-5 --local-dir models/sd15 --exclude '*.bin' --exclude '*.ckpt' --exclude '*fp16*' --exclude '*non_ema*' --exclude 'v1-5*' --exclude 'safety_checker/*.safetensors'",
  },
  {
    name: 'Stable Diffusion XL', size: '13.9 GB',
    command: "hf download stabilityai/stable-diffusion-xl-base-1.0 --local-dir models/sdxl --exclude '*.bin' --exclude '*.onnx*' --exclude '*.msgpack' --exclude '*fp16*' --exclude 'sd_xl*' --exclude 'vae_1_0/*'",
  },
  {
    name: 'LCM LoRA for Stable Diffusion 1.5, for pictures in four steps', size: '135 MB',
    command: 'hf download latent-consistency/lcm-lora-sdv1-5 pytorch_lora_weights.safetensors --local-dir loras/lcm',
  },
  {
    name: 'ControlNet for Stable Diffusion 1.5 that follows edges', size: '1.4 GB',
    command: "hf download lllyasviel/control_v11p_sd15_canny --local-dir controlnets/canny --exclude '*.bin' --exclude '*fp16*'",
  },
];
/** The start of a server that has these folders. */
const START = 'mkdir -p models loras controlnets && LATENTD_MODELS__DIR=./models LATENTD_LORAS__DIR=./loras LATENTD_CONTROLNETS__DIR=./controlnets latentd serve';

/** @param {{use(prompt: string): void, copy(text: string): void}} page */
export async function showModels(page) {
  const place = element('div', { class: 'stack' }, element('p', { class: 'note' }, 'Reading the list …'));
  openDialog('Models', place);
  try {
    const [models, loras, embeddings, controlNets] = await Promise.all([api.models(), api.loras(), api.embeddings(), api.controlNets()]);
    place.replaceChildren(
      section('Models', models.map((model) => row(model.id, model, page))),
      section('LoRAs', loras.map((lora) => row(lora.name, lora))),
      section('Textual inversions', embeddings.map((one) => row(one.word ?? one.name, one))),
      section('ControlNets', controlNets.map((one) => row(one.name, one))),
      more(page),
    );
  } catch (problem) {
    place.replaceChildren(element('p', { class: 'error', role: 'alert' }, problem.message));
  }
}

function section(title, rows) {
  const content = rows.length > 0 ? element('ul', { class: 'entries' }, ...rows) : element('p', { class: 'note' }, 'None.');
  return element('section', {}, element('h3', {}, title), content);
}

function row(name, entry, page) {
  const { state, bytes, error, notes = [], models, capabilities: can, default: isDefault } = entry;
  const facts = [
    STATES[state] ?? state, ...(isDefault ? ['default'] : []), ...(bytes ? [amount(bytes)] : []),
    ...(can ? [`${can.default_width} × ${can.default_height}`, `${can.default_steps} steps`] : []),
    ...(models?.length ? [`for ${models.join(', ')}`] : []),
  ];
  const card = can && page ? [element('button', { class: 'plain', type: 'button', onclick: () => showCard(name) }, 'Model card')] : [];
  const known = can && page && knowsAbout(can.name ?? name)
    ? [element('button', { class: 'plain', type: 'button', onclick: () => showKnown(page.use) }, 'What it knows')] : [];
  return element(
    'li', { 'data-state': state },
    element('p', { class: 'entry-name' }, element('strong', {}, name), ' ', element('span', { class: 'note' }, facts.join(' · '))),
    ...(can?.description ? [element('p', { class: 'note' }, can.description)] : []),
    ...(error ? [element('p', { class: 'error' }, typeof error === 'string' ? error : error.message ?? String(error))] : []),
    ...notes.map((note) => element('p', { class: 'note' }, note)),
    ...known, ...card,
  );
}

/** Shows the card of a model as plain text, because it comes from the files of the model and may contain anything. */
async function showCard(name) {
  const text = element('code', {}, 'Reading the card …');
  openDialog(`Card of ${name}`, element('pre', { class: 'code wrapped', tabindex: 0, 'aria-label': `Card of ${name}` }, text));
  try {
    text.textContent = await api.modelCard(name);
  } catch (problem) {
    text.textContent = problem.status === 404 ? 'This model has no card.' : problem.message;
  }
}

/** How to add models, LoRAs and ControlNets. */
function more(page) {
  const items = DOWNLOADS.map(({ name, size, command }) => element(
    'li', {}, element('p', { class: 'entry-name' }, element('strong', {}, name), ' ', element('span', { class: 'note' }, size)),
    ...toCopy(command, `Command for ${name}`, page),
  ));
  const code = (text) => element('code', {}, text);
  return element(
    'section', {}, element('h3', {}, 'Add a model'),
    element(
      'p', {}, 'Put models into the folder of the server\'s setting ', code('models.dir'), ', LoRAs into that of ', code('loras.dir'),
      ', and ControlNets into that of ', code('controlnets.dir'), '. The server finds new files within seconds. If it has no such folder ',
      'yet, start it with the settings:',
    ),
    ...toCopy(START, 'Start with the folders', page),
    element('p', {}, 'Run a download where these folders are:'),
    element('ul', { class: 'entries' }, ...items),
  );
}

/** A command with a button that copies it. */
function toCopy(command, name, page) {
  return [
    element('pre', { class: 'code', tabindex: 0, 'aria-label': name }, element('code', {}, command)),
    element('button', { class: 'plain', type: 'button', onclick: () => page.copy(command) }, 'Copy'),
  ];
}

function amount(bytes) {
  const [unit, size] = [['GB', 1e9], ['MB', 1e6], ['kB', 1e3]].find(([, size]) => bytes >= size) ?? ['bytes', 1];
  return `${(bytes / size).toFixed(bytes / size < 10 && size > 1 ? 1 : 0)} ${unit}`;
}
