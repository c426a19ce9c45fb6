// What a request says beyond the form's fields: kept from a re-used generation, in sight, and removable one by one.

import { uploadUrl } from './api.js';
import { element, iconButton, mainField } from './element.js';
import { print } from './json.js';
import { schedulerName } from './scheduler.js';

const NAMES = {
  image: 'Picture to begin with', mask: 'Mask', strength: 'Strength', image_guidance_scale: 'Picture guidance', loras: 'LoRA',
  controls: 'ControlNet', refiner: 'Refiner', prompt_2: 'Second prompt', negative_prompt_2: 'Second negative prompt',
  negative_prompt: 'Negative prompt', scheduler: 'Sampler', model: 'Model', output: 'File', sigmas: 'Noise levels', timesteps: 'Timesteps',
  start_timeout_s: 'Longest wait (s)', run_timeout_s: 'Longest run (s)', metadata: 'Labels',
};

export class Extras {
  /**
   * @param {HTMLElement} place where they are shown
   * @param {(name: string) => void} removed told of each field that the user takes away
   * @param {() => object} known the fields that there are, as the model's schema describes them
   */
  constructor(place, removed, known) {
    this.place = place;
    this.removed = removed;
    this.known = known;
    this.fields = {};
    this.list = place.querySelector('ul');
  }

  /** Keeps these and nothing else; pictures come first. */
  set(fields) {
    const { image, mask, controls, ...others } = fields;
    const all = Object.entries({ image, mask, controls, ...others });
    this.fields = Object.fromEntries(all.filter(([, value]) => value !== undefined));
    this.show();
  }

  /** Forgets a field, with those that need it. */
  remove(name) {
    if (!(name in this.fields)) return;
    delete this.fields[name];
    for (const [other, field] of Object.entries(this.known())) if (field['x-needs'] === name) this.remove(other);
    this.show();
  }

  /** In a few words, one text a field. */
  summary() {
    return Object.entries(this.fields).map(([name, value]) => `${title(name).toLowerCase()} ${words(name, value)}`.trim());
  }

  // Below: how the above is done.

  show() {
    this.place.hidden = Object.keys(this.fields).length === 0;
    this.list.replaceChildren(...Object.entries(this.fields).map(([name, value]) => this.item(name, value)));
  }

  item(name, value) {
    const remove = iconButton('close', `Remove: ${title(name)}`, () => {
      const at = [...this.list.children].findIndex((other) => other.dataset.extra === name);
      this.remove(name);
      this.removed(name);
      const left = this.list.children;
      (left[Math.min(at, left.length - 1)]?.querySelector('button') ?? mainField()).focus();
    });
    const thumbnails = pictures(name, value).map((picture) => thumbnail(title(name), picture));
    return element(
      'li', { 'data-extra': name }, ...thumbnails,
      element('span', { class: 'extra-text' }, element('strong', {}, title(name)), ' ', words(name, value)), remove,
    );
  }
}

function title(name) {
  const plain = name.replaceAll('_', ' ');
  return NAMES[name] ?? plain[0].toUpperCase() + plain.slice(1);
}

/** The pictures of a field: it is one, or a list of controls that have one each. */
function pictures(name, value) {
  const all = name === 'controls' ? value.map(({ image }) => image) : [value];
  return all.filter((picture) => picture?.upload);
}

function thumbnail(label, { upload, width, height }) {
  const image = element('img', { class: 'thumbnail', src: uploadUrl(upload), alt: label, title: `${width} × ${height}` });
  // The server keeps a picture as long as a generation that uses it.
  image.addEventListener('error', () => image.replaceWith(element('span', { class: 'thumbnail' }, 'gone')));
  return image;
}

function words(name, value) {
  if (name === 'scheduler') return schedulerName(value) + details(value);
  if (value?.upload) return `${value.width}\u00a0×\u00a0${value.height}`;
  if (name === 'loras') return value.map((lora) => `${lora.name}\u00a0×\u00a0${lora.scale ?? 1}`).join(', ');
  if (name === 'controls') return value.map((control) => `${control.model}\u00a0×\u00a0${control.scale ?? 1}`).join(', ');
  if (name === 'refiner') return `${value.model} from ${value.switch_at}`;
  if (value === '') return 'empty';
  return typeof value === 'string' ? value : print(value);
}

/** The keys of a scheduler object beside its class. */
function details(value) {
  if (typeof value === 'string') return '';
  const { _class_name, ...keys } = value;
  return Object.keys(keys).length === 0 ? '' : ` ${print(keys)}`;
}
