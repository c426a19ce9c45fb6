// The settings of a reused generation that have no field in the form. The page shows them; each can be removed.

import { uploadUrl } from './api.js';
import { element, iconButton, mainField } from './element.js';
import { print } from './json.js';
import { schedulerName } from './scheduler.js';

const NAMES = {
  image: 'Input picture', mask: 'Mask', strength: 'Strength', image_guidance_scale: 'Image guidance scale', loras: 'LoRA',
  controls: 'ControlNet', refiner: 'Refiner', prompt_2: 'Second prompt', negative_prompt_2: 'Second negative prompt',
  negative_prompt: 'Negative prompt', scheduler: 'Sampler', model: 'Model', output: 'File format', sigmas: 'Noise levels', timesteps: 'Timesteps',
  start_timeout_s: 'Start timeout (s)', run_timeout_s: 'Run timeout (s)', metadata: 'Metadata',
};

export class Extras {
  /**
   * @param {HTMLElement} place the element that shows the settings
   * @param {(name: string) => void} removed called when the user removes a setting
   * @param {() => object} known the fields in the model's schema
   */
  constructor(place, removed, known) {
    this.place = place;
    this.removed = removed;
    this.known = known;
    this.fields = {};
    this.list = place.querySelector('ul');
  }

  /** Replaces all settings. Pictures come first. */
  set(fields) {
    const { image, mask, controls, ...others } = fields;
    const all = Object.entries({ image, mask, controls, ...others });
    this.fields = Object.fromEntries(all.filter(([, value]) => value !== undefined));
    this.show();
  }

  /** Removes a setting and the settings that need it. */
  remove(name) {
    if (!(name in this.fields)) return;
    delete this.fields[name];
    for (const [other, field] of Object.entries(this.known())) if (field['x-needs'] === name) this.remove(other);
    this.show();
  }

  /** One short text per setting. */
  summary() {
    return Object.entries(this.fields).map(([name, value]) => `${title(name).toLowerCase()} ${words(name, value)}`.trim());
  }

  // Private methods.

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

/** The pictures of a setting: the setting itself, or one picture per ControlNet. */
function pictures(name, value) {
  const all = name === 'controls' ? value.map(({ image }) => image) : [value];
  return all.filter((picture) => picture?.upload);
}

function thumbnail(label, { upload, width, height }) {
  const image = element('img', { class: 'thumbnail', src: uploadUrl(upload), alt: label, title: `${width} × ${height}` });
  // The server deletes an uploaded picture together with the last generation that uses it.
  image.addEventListener('error', () => image.replaceWith(element('span', { class: 'thumbnail' }, 'deleted')));
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

/** The keys of a scheduler object other than its class. */
function details(value) {
  if (typeof value === 'string') return '';
  const { _class_name, ...keys } = value;
  return Object.keys(keys).length === 0 ? '' : ` ${print(keys)}`;
}
