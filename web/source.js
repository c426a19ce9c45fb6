// The input picture of the request, with the fields that need it: its strength, its mask, and the fields of the mask. Some
// models take several input pictures, in an order.

import { element, icon, iconButton } from './element.js';
import { field } from './field.js';
import { openMask } from './mask.js';
import { all, thumbnail } from './picture.js';

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
    this.most = Math.max(1, ...choices(this.properties.image).map(({ maxItems }) => maxItems ?? 1));
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
    const state = [this.most, ...all(image).map(address), 'mask', address(mask)].join(' ');
    if (state !== this.shown) {
      this.shown = state;
      this.place.replaceChildren(...(image ? this.filled(image, mask) : this.empty()), ...errors('image'), ...errors('mask'));
    }
    const unset = { strength: mask ? STRENGTH.mask : STRENGTH.image };
    for (const { name, control } of [...this.ofImage, ...this.ofMask]) control.show(this.extras.fields[name], unset[name]);
  }

  /** The value of `image` with another picture: behind the others, or in their place if the model takes one. */
  joined(picture) {
    if (this.most === 1) return picture;
    const pictures = all(this.extras.fields.image);
    if (pictures.length >= this.most) throw new Error(`This model takes at most ${this.most} input pictures. Remove one of them first.`);
    return list([...pictures, picture]);
  }

  // Private methods.

  put(name, value) {
    this.extras.put(name, value);
    this.changed();
  }

  empty() {
    const isOptional = choices(this.properties.image).some(({ type }) => [type].flat().includes('null'));
    const notes = [
      'You can also drop or paste a picture.', ...(isOptional ? [] : ['This model needs one.']),
      ...(this.most > 1 ? [`This model takes up to ${this.most}.`] : []),
    ];
    return [element(
      'div', { class: 'source-empty' }, this.button('plain', 'image', () => this.page.pick(), icon('picture'), 'Add a picture'),
      element('p', { class: 'note' }, notes.join(' ')),
    )];
  }

  /** A button that shows the errors of a field. */
  button(kind, name, onclick, ...content) {
    return element('button', { type: 'button', class: kind, 'aria-describedby': `${name}-error`, onclick }, ...content);
  }

  filled(image, mask) {
    const pictures = all(image);
    const brush = [icon('brush'), mask ? 'Change the mask' : 'Paint a mask'];
    const takesMask = 'mask' in this.properties && pictures.length === 1;
    const bar = [
      ...(pictures.length < this.most || this.most === 1
        ? [this.button('plain', 'image', () => this.page.pick(), this.most > 1 ? 'Add another picture' : 'Replace')] : []),
      ...(takesMask ? [this.button('plain mask-open', 'mask', () => this.paint(), ...brush)] : []),
    ];
    const removeMask = () => {
      this.put('mask', undefined);
      this.place.querySelector('.mask-open')?.focus();
    };
    const masked = mask ? [
      row(mask, 'Mask', 'White is redrawn.', iconButton('close', 'Remove the mask', removeMask)),
      ...this.ofMask.map(({ control }) => control.element),
    ] : [];
    const tooMany = pictures.length > this.most ? [element('p', { class: 'note' }, 'This model takes one picture. Remove the others.')] : [];
    return [
      ...pictures.map((picture, at) => this.row(pictures, at)), ...tooMany, element('div', { class: 'row source-bar' }, ...bar),
      ...this.ofImage.map(({ control }) => control.element), ...masked,
    ];
  }

  /** The row of one of the input pictures. */
  row(pictures, at) {
    const { width, height } = pictures[at];
    const several = pictures.length > 1;
    const change = (next, focus) => {
      // The mask belongs to the only picture.
      this.put('mask', undefined);
      this.put('image', list(next));
      (this.place.querySelectorAll('.source-row')[focus]?.querySelector('button') ?? this.place.querySelector('button'))?.focus();
    };
    const removed = () => change(pictures.toSpliced(at, 1), Math.min(at, pictures.length - 2));
    const moved = () => change(pictures.toSpliced(at, 1).toSpliced(at - 1, 0, pictures[at]), at - 1);
    const name = several ? `Input picture ${at + 1}` : 'Input picture';
    return row(
      pictures[at], name, `${width} × ${height}`, ...(at > 0 ? [iconButton('up', `Move input picture ${at + 1} up`, moved)] : []),
      iconButton('close', several ? `Remove input picture ${at + 1}` : 'Remove the input picture', removed),
    );
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

/** A picture with its name and buttons. */
function row(picture, name, note, ...buttons) {
  return element(
    'div', { class: 'source-row' }, thumbnail(name, picture),
    element('p', { class: 'source-text' }, element('strong', {}, name), element('span', { class: 'note' }, note)), ...buttons,
  );
}

/** The value of the field `image` with these pictures. */
function list(pictures) {
  return pictures.length > 1 ? pictures : pictures[0];
}

/** The schemas of the kinds of values that a field takes. */
function choices(schema) {
  return schema.anyOf ?? [schema];
}

function errors(name) {
  return [element('p', { class: 'error', id: `${name}-error`, hidden: true })];
}

/** What distinguishes a picture from another one. */
function address(picture) {
  return picture ? picture.upload ?? picture.data_url : '';
}
