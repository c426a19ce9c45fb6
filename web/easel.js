// The input picture with the mask over it, which a brush paints: with a pointer, or with the arrow keys and Space.

import { element } from './element.js';

/** The step of an arrow key as a share of the brush. */
const KEY_STEP = 0.25;
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class Easel {
  /**
   * @param {HTMLImageElement} image
   * @param {import('./strokes.js').Strokes} strokes
   * @param {() => {size: number, erases: boolean}} brush its diameter in pixels of the picture
   * @param {() => void} changed called when the brush has moved or painted
   */
  constructor(image, strokes, brush, changed) {
    this.strokes = strokes;
    this.brush = brush;
    this.changed = changed;
    this.width = image.naturalWidth;
    this.height = image.naturalHeight;
    // Where the brush is, in pixels of the picture, and whether it paints.
    Object.assign(this, { x: this.width / 2, y: this.height / 2, isDown: false });
    image.className = 'paper';
    image.alt = 'Input picture';
    strokes.canvas.className = 'paint';
    this.ring = element('div', { class: 'brush' });
    this.element = element('div', {
      class: 'easel', tabindex: 0, role: 'application', 'aria-label': 'Mask', 'aria-describedby': 'easel-help',
    }, image, strokes.canvas, this.ring);
    this.element.style.aspectRatio = `${this.width} / ${this.height}`;
    this.element.style.width = `min(100%, 62dvh * ${this.width / this.height})`;
    this.listen();
  }

  /** Inverts, clears or undoes. A stroke ends before that. */
  act(action) {
    this.isDown = false;
    action(this.strokes);
    this.show();
  }

  /** Shows the brush at its place. */
  show() {
    const { style, dataset } = this.ring;
    style.left = `${this.x / this.width * 100}%`;
    style.top = `${this.y / this.height * 100}%`;
    style.width = `${this.brush().size / this.width * 100}%`;
    dataset.down = this.isDown;
    this.changed();
  }

  // Private methods.

  listen() {
    this.element.addEventListener('keydown', (event) => this.press(event));
    this.element.addEventListener('pointerdown', (event) => {
      if (event.button !== 0) return;
      this.element.setPointerCapture(event.pointerId);
      this.follow(event);
      this.lower();
      this.show();
    });
    this.element.addEventListener('pointermove', (event) => {
      const isDrawing = this.isDown && this.element.hasPointerCapture(event.pointerId);
      for (const point of [...event.getCoalescedEvents?.() ?? [], event]) {
        this.follow(point);
        if (isDrawing) this.strokes.extend(this.x, this.y);
      }
      this.show();
    });
    for (const end of ['pointerup', 'pointercancel']) {
      this.element.addEventListener(end, () => {
        this.isDown = false;
        this.show();
      });
    }
  }

  press(event) {
    const step = ARROWS[event.key];
    if (!step && event.key !== ' ') return;
    event.preventDefault();
    if (step) {
      const pixels = this.brush().size * KEY_STEP;
      this.x = Math.min(this.width, Math.max(0, this.x + step[0] * pixels));
      this.y = Math.min(this.height, Math.max(0, this.y + step[1] * pixels));
      if (this.isDown) this.strokes.extend(this.x, this.y);
    } else if (!event.repeat) {
      if (this.isDown) this.isDown = false;
      else this.lower();
    }
    this.show();
  }

  lower() {
    const { size, erases } = this.brush();
    this.isDown = true;
    this.strokes.begin(this.x, this.y, size, erases);
  }

  follow({ clientX, clientY }) {
    const box = this.element.getBoundingClientRect();
    this.x = (clientX - box.left) / box.width * this.width;
    this.y = (clientY - box.top) / box.height * this.height;
  }
}
