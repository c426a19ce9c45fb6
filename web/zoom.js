// The zoom of a picture: as large as the window allows, or one or two screen pixels per pixel of the picture.

import { element } from './element.js';

/** The largest factor by which a picture is enlarged to fit. */
const MOST_ENLARGED = 8;
const LEVELS = [['fit', 'Fit'], ['1', '1×'], ['2', '2×']];

export class Zoom {
  /**
   * @param {HTMLElement} place where the buttons are put
   * @param {HTMLElement} frame the element that scrolls
   * @param {HTMLElement} content the element that shows the picture
   * @param {number} share the largest part of the window's height in percent that a fitted picture takes
   */
  constructor(place, frame, content, share = 72) {
    this.share = share;
    this.frame = frame;
    this.content = content;
    this.level = 'fit';
    this.buttons = LEVELS.map(([level, text]) => {
      return element('button', { type: 'button', class: 'zoom-level', 'data-zoom': level, 'aria-pressed': level === 'fit', onclick: () => this.set(level) }, text);
    });
    place.append(element('span', { class: 'zoom', role: 'group', 'aria-label': 'Zoom' }, ...this.buttons));
  }

  /** Shows a picture of this size at the present zoom. */
  show({ width, height }) {
    this.size = { width, height };
    this.set(this.level);
  }

  set(level) {
    this.level = level;
    for (const button of this.buttons) button.setAttribute('aria-pressed', button.dataset.zoom === level);
    const { width, height } = this.size;
    const { style } = this.content;
    style.aspectRatio = `${width} / ${height}`;
    const fits = `min(100%, min(${MOST_ENLARGED * height}px, ${this.share}dvh) * ${width / height})`;
    style.width = level === 'fit' ? fits : `${width * Number(level) / devicePixelRatio}px`;
    style.maxWidth = level === 'fit' ? '100%' : 'none';
    this.frame.toggleAttribute('data-zoomed', level !== 'fit');
    // What scrolls must be reachable with the keyboard.
    if (level === 'fit') this.frame.removeAttribute('tabindex');
    else this.frame.tabIndex = 0;
  }
}
