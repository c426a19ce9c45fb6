// The fields of the request that are not among the fixed fields of the form. The page shows them as a list, from which
// each can be removed, so that no setting of a reused generation is lost or hidden.

import { element, iconButton, mainField } from './element.js';
import { print } from './json.js';
import { title } from './names.js';
import { thumbnail } from './picture.js';
import { schedulerName } from './scheduler.js';

export class Extras {
  /**
   * @param {HTMLElement} place the element that shows the settings
   * @param {(name: string) => void} removed called when the user removes a setting
   * @param {() => object} known the fields in the model's schema
   * @param {(name: string) => boolean} isElsewhere whether another part of the form shows a setting, or the request leaves it out
   */
  constructor(place, removed, known, isElsewhere) {
    this.place = place;
    this.removed = removed;
    this.known = known;
    this.isElsewhere = isElsewhere;
    this.fields = {};
    /** The shown items, by their settings. */
    this.items = new Map();
    this.list = place.querySelector('ul');
  }

  /** Replaces all settings. Pictures come first. */
  set(fields) {
    const { image, mask, controls, ...others } = fields;
    const all = Object.entries({ image, mask, controls, ...others });
    this.fields = Object.fromEntries(all.filter(([, value]) => value !== undefined));
    this.show();
  }

  /** Sets one setting; undefined removes it. */
  put(name, value) {
    if (value === undefined) return this.remove(name);
    this.fields[name] = value;
    this.show();
  }

  /** Removes a setting and the settings that need it. */
  remove(name) {
    if (!(name in this.fields)) return;
    delete this.fields[name];
    for (const [other, field] of Object.entries(this.known())) if (field['x-needs'] === name) this.remove(other);
    this.show();
  }

  /** One short text per setting, without those that `isSaid`. */
  summary(isSaid) {
    return Object.entries(this.fields).filter(([name]) => !isSaid(name)).map(([name, value]) => `${title(name).toLowerCase()} ${words(name, value)}`.trim());
  }

  /** Updates the list. Items that stay the same stay in place, so that typing in a control does not load pictures again. */
  show() {
    const shown = Object.entries(this.fields).filter(([name]) => !this.isElsewhere(name));
    this.place.hidden = shown.length === 0;
    this.items = new Map(shown.map(([name, value]) => {
      const state = print([name, value]);
      return [state, this.items.get(state) ?? this.item(name, value)];
    }));
    this.list.replaceChildren(...this.items.values());
  }

  // Private methods.

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

/** The pictures of a setting: the setting itself, a list, or one picture per ControlNet. */
function pictures(name, value) {
  const all = name === 'controls' ? value.map(({ image }) => image) : [value].flat();
  return all.filter((picture) => picture?.upload || picture?.data_url);
}

function words(name, value) {
  if (name === 'scheduler') return schedulerName(value) + details(value);
  if (value?.upload || value?.data_url) return `${value.width}\u00a0×\u00a0${value.height}`;
  if (name === 'image' && Array.isArray(value)) return `${value.length} pictures`;
  if (name === 'loras') return value.map((lora) => `${lora.name}\u00a0×\u00a0${lora.scale ?? 1}`).join(', ');
  if (name === 'controls') return value.map((control) => `${control.model}\u00a0×\u00a0${control.scale ?? 1}`).join(', ');
  if (name === 'refiner') return `${value.model} from ${value.switch_at ?? 0.8}`;
  if (value === '') return 'empty';
  return typeof value === 'string' ? value : print(value);
}

/** The keys of a scheduler object other than its class. */
function details(value) {
  if (typeof value === 'string') return '';
  const { _class_name, ...keys } = value;
  return Object.keys(keys).length === 0 ? '' : ` ${print(keys)}`;
}
