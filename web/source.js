// The input picture of the request, with the fields that need it: its strength, its mask, and the fields of the mask.

import { element, icon, iconButton } from './element.js';
import { field } from './field.js';
import { openMask } from './mask.js';
import { thumbnail } from './picture.js';

/** The order of the fields of the mask. */
const ORDER = ['mask_blur', 'padding_mask_crop', 'mask_invert', 'keep_unmasked'];
/** The strength that the server uses without the field: for a picture, and for a picture with a mask. */
const STRENGTH = { image: 0.75, mask: 1 };

export class Source {
  /**
   * @param {import('./extras.js').Extras} extras the values
   * @param {object} page `pick()`, `announce(text, seen)`
   * @param {() => void} changed
   */
  constructor(extras, page, changed) {
    this.extras = extras;
    this.page = page;
    this.changed = changed;
    this.place = document.getElementById('source');
  }

  /** Makes the controls for the schema of a model. */
  offer(schema) {
    this.properties = schema?.properties ?? {};
    this.place.hidden = !('image' in this.properties);
    if (this.place.hidden) return;
    const needing = (needed) => Object.entries(this.properties)
      .filter(([name, part]) => part['x-needs'] === needed && name !== 'mask')
      .sort(([one], [other]) => ORDER.indexOf(one) - ORDER.indexOf(other))
      .map(([name, part]) => ({ name, control: field(name, part, (value) => this.put(name, value), this.page) }));
    this.ofImage = needing('image');
    this.ofMask = needing('mask');
    this.shown = undefined;
    this.show();
  }

  /** Whether this part of the form shows a field. */
  has(name) {
    if (!(name in (this.properties ?? {}))) return false;
    return name === 'image' || ['image', 'mask'].includes(this.properties[name]['x-needs']);
  }

  show() {
    if (this.place.hidden) return;
    const { image, mask } = this.extras.fields;
    const state = `${address(image)} ${address(mask)}`;
    if (state !== this.shown) {
      this.shown = state;
      this.place.replaceChildren(...(image ? this.filled(image, mask) : this.empty()), ...errors('image'), ...errors('mask'));
    }
    const unset = { strength: mask ? STRENGTH.mask : STRENGTH.image };
    for (const { name, control } of [...this.ofImage, ...this.ofMask]) control.show(this.extras.fields[name], unset[name]);
  }

  // Private methods.

  put(name, value) {
    this.extras.put(name, value);
    this.changed();
  }

  empty() {
    const isOptional = [this.properties.image.type].flat().includes('null');
    return [element(
      'div', { class: 'source-empty' }, this.button('plain', 'image', () => this.page.pick(), icon('picture'), 'Add a picture'),
      element('p', { class: 'note' }, isOptional ? 'You can also drop or paste a picture.' : 'You can also drop or paste a picture. This model needs one.'),
    )];
  }

  /** A button that shows the errors of a field. */
  button(kind, name, onclick, ...content) {
    return element('button', { type: 'button', class: kind, 'aria-describedby': `${name}-error`, onclick }, ...content);
  }

  filled(image, mask) {
    const remove = (name, then) => () => {
      this.put(name, undefined);
      this.place.querySelector(then)?.focus();
    };
    const brush = [icon('brush'), mask ? 'Change the mask' : 'Paint a mask'];
    const bar = [
      this.button('plain', 'image', () => this.page.pick(), 'Replace'),
      ...('mask' in this.properties ? [this.button('plain mask-open', 'mask', () => this.paint(), ...brush)] : []),
    ];
    const row = (picture, name, note, close) => element(
      'div', { class: 'source-row' }, thumbnail(name, picture),
      element('p', { class: 'source-text' }, element('strong', {}, name), element('span', { class: 'note' }, note)), close,
    );
    const masked = mask ? [
      row(mask, 'Mask', 'White is redrawn.', iconButton('close', 'Remove the mask', remove('mask', '.mask-open'))),
      ...this.ofMask.map(({ control }) => control.element),
    ] : [];
    const close = iconButton('close', 'Remove the input picture', remove('image', 'button'));
    return [
      row(image, 'Input picture', `${image.width} × ${image.height}`, close), element('div', { class: 'row source-bar' }, ...bar),
      ...this.ofImage.map(({ control }) => control.element), ...masked,
    ];
  }

  async paint() {
    const { image, mask } = this.extras.fields;
    try {
      await openMask(image, mask, (next) => {
        this.put('mask', next);
        this.page.announce(next ? 'The mask is part of the request.' : 'The mask is empty, so it is removed.');
        this.place.querySelector('.mask-open')?.focus();
      });
    } catch (error) {
      this.page.announce(error.message, true);
    }
  }
}

function errors(name) {
  return [element('p', { class: 'error', id: `${name}-error`, hidden: true })];
}

/** What distinguishes a picture from another one. */
function address(picture) {
  return picture ? picture.upload ?? picture.data_url : '';
}
