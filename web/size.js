// The size of the picture: two numbers, preset sizes, and advice against sizes that the model was not made for.

import { element } from './element.js';
import * as shape from './shape.js';

export class Size {
  /**
   * @param {HTMLInputElement} width
   * @param {HTMLInputElement} height
   * @param {() => void} changed called when the user chooses another size
   */
  constructor(width, height, changed) {
    this.sides = { width, height };
    this.changed = changed;
    this.shapes = document.getElementById('shapes');
    this.note = document.getElementById('size-note');
    document.getElementById('swap').addEventListener('click', () => {
      this.set({ width: height.value, height: width.value });
      this.changed();
    });
  }

  /**
   * Takes the bounds and the own size of a model.
   * @param {object | null} capabilities
   * @param {(name: string) => object} rule the schema of a field
   */
  offer(capabilities, rule) {
    this.capabilities = capabilities;
    for (const [name, input] of Object.entries(this.sides)) {
      const { multipleOf: multiple, minimum, maximum } = rule(name);
      input.step = multiple ?? capabilities?.size_multiple ?? 8;
      input.min = minimum ?? capabilities?.min_side_pixels ?? 8;
      input.max = maximum ?? capabilities?.max_side_pixels ?? '';
    }
    this.shapes.replaceChildren(...shape.presets(capabilities).map((preset) => this.button(preset)));
  }

  set({ width, height }) {
    this.sides.width.value = width;
    this.sides.height.value = height;
  }

  /** Makes the size fit the input picture. */
  fit(picture) {
    if (this.capabilities) this.set(shape.fitting(picture, this.capabilities));
  }

  /** The sides that are filled in. */
  get() {
    const sides = Object.entries(this.sides).map(([name, input]) => [name, Math.round(Number(input.value))]);
    return Object.fromEntries(sides.filter(([name, pixels]) => pixels > 0 && pixels <= (this.sides[name].max || Infinity)));
  }

  /** Marks the preset, and advises against other sizes than the model's own unless the picture around a mask has the size. */
  show(isMasked) {
    const { width, height } = this.sides;
    for (const button of this.shapes.children) {
      button.setAttribute('aria-pressed', button.dataset.size === `${width.value.trim()}x${height.value.trim()}`);
    }
    this.note.textContent = isMasked ? '' : shape.advice(this.get(), this.capabilities);
    this.note.hidden = this.note.textContent === '';
  }

  // Private methods.

  button({ name, width, height }) {
    const title = `${name}, ${width} × ${height}`;
    const outline = element('span', { class: 'outline' });
    outline.style.aspectRatio = `${width} / ${height}`;
    return element('button', {
      type: 'button', title, 'aria-label': title, 'data-size': `${width}x${height}`,
      onclick: () => {
        this.set({ width, height });
        this.changed();
      },
    }, outline, name);
  }
}
