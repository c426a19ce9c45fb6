// A mask as a list of actions, which can be undone: strokes of a brush, inversion, clearing.

import { drawn } from './picture.js';
import { element } from './element.js';

export class Strokes {
  /**
   * @param {number} width in pixels, as the height
   * @param {HTMLImageElement} [before] a mask to start from
   * @param {string} color of the painted part on the screen
   */
  constructor(width, height, before, color) {
    this.canvas = element('canvas', { width, height });
    this.pen = this.canvas.getContext('2d');
    this.color = color;
    this.before = before && opaque(before, width, height, color);
    this.actions = [];
    this.draw();
  }

  /** Whether there is nothing to undo. */
  get isUnchanged() {
    return this.actions.length === 0;
  }

  /** Starts a stroke at a point. `erases` removes paint. */
  begin(x, y, size, erases) {
    this.actions.push({ kind: 'stroke', points: [[x, y]], size, erases });
    this.paint(this.actions.at(-1));
  }

  /** Continues the last stroke. */
  extend(x, y) {
    const stroke = this.actions.at(-1);
    stroke.points.push([x, y]);
    this.paint({ ...stroke, points: stroke.points.slice(-2) });
  }

  /** `invert` or `clear`. */
  act(kind) {
    this.actions.push({ kind });
    this.paint(this.actions.at(-1));
  }

  undo() {
    this.actions.pop();
    this.draw();
  }

  /** The mask as a picture: white where it is painted, otherwise black. Null if nothing is painted. */
  mask() {
    const { width, height } = this.canvas;
    const pixels = this.pen.getImageData(0, 0, width, height);
    let isEmpty = true;
    for (let at = 0; at < pixels.data.length; at += 4) {
      const level = pixels.data[at + 3];
      if (level > 0) isEmpty = false;
      pixels.data.fill(level, at, at + 3);
      pixels.data[at + 3] = 255;
    }
    if (isEmpty) return null;
    const canvas = element('canvas', { width, height });
    canvas.getContext('2d').putImageData(pixels, 0, 0);
    return canvas;
  }

  // Private methods.

  draw() {
    this.pen.clearRect(0, 0, this.canvas.width, this.canvas.height);
    if (this.before) this.pen.drawImage(this.before, 0, 0);
    for (const action of this.actions) this.paint(action);
  }

  paint({ kind, points, size, erases }) {
    const { pen, canvas } = this;
    if (kind === 'clear') {
      pen.clearRect(0, 0, canvas.width, canvas.height);
      return;
    }
    pen.fillStyle = pen.strokeStyle = this.color;
    if (kind === 'invert') {
      pen.globalCompositeOperation = 'xor';
      pen.fillRect(0, 0, canvas.width, canvas.height);
    } else {
      pen.globalCompositeOperation = erases ? 'destination-out' : 'source-over';
      Object.assign(pen, { lineWidth: size, lineCap: 'round', lineJoin: 'round' });
      pen.beginPath();
      for (const point of points) pen.lineTo(...point);
      pen.stroke();
      // A stroke of a single point has no length, and would be invisible.
      pen.beginPath();
      pen.arc(...points[0], size / 2, 0, 2 * Math.PI);
      pen.fill();
    }
    pen.globalCompositeOperation = 'source-over';
  }
}

/** A canvas in the color of the brush that is as opaque as the mask is white. */
function opaque(image, width, height, color) {
  const canvas = drawn(image, width, height);
  const pen = canvas.getContext('2d');
  const pixels = pen.getImageData(0, 0, width, height);
  for (let at = 0; at < pixels.data.length; at += 4) pixels.data[at + 3] = pixels.data[at];
  pen.putImageData(pixels, 0, 0);
  pen.globalCompositeOperation = 'source-in';
  pen.fillStyle = color;
  pen.fillRect(0, 0, width, height);
  return canvas;
}
