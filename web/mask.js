// The dialog in which the user paints the mask of the input picture, with a pointer or with the keyboard.

import { openDialog } from './dialog.js';
import { element, icon, iconButton } from './element.js';
import { load, of } from './picture.js';
import { Strokes } from './strokes.js';

/** The largest brush, and the step of an arrow key, as shares of the picture's longer side and of the brush. */
const MOST_BRUSH = 0.5;
const KEY_STEP = 0.25;
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/**
 * Opens the dialog. `done` receives the mask, or undefined if nothing is painted. Rejects if the server no longer has
 * the picture.
 * @param {object} image the input picture
 * @param {object | undefined} mask
 * @param {(mask: object | undefined) => void} done
 */
export async function openMask(image, mask, done) {
  const [shown, before] = await Promise.all([load(image), mask && load(mask).catch(() => undefined)]);
  const { naturalWidth: width, naturalHeight: height } = shown;
  const color = getComputedStyle(document.documentElement).getPropertyValue('--accent');
  const strokes = new Strokes(width, height, before, color);
  const longer = Math.max(width, height);
  const at = { x: width / 2, y: height / 2, isDown: false };

  const size = element('input', {
    type: 'range', id: 'brush', min: Math.max(1, Math.round(longer / 64)), max: Math.round(longer * MOST_BRUSH), value: Math.round(longer / 10),
  });
  const brush = element('div', { class: 'brush' });
  const erase = element('button', { type: 'button', class: 'plain', 'aria-pressed': 'false', onclick: () => press(erase) }, 'Erase');
  const undo = iconButton('undo', 'Undo (Ctrl+Z)', () => act(() => strokes.undo()));
  strokes.canvas.className = 'paint';
  shown.className = 'paper';
  shown.alt = 'Input picture';
  const easel = element('div', {
    class: 'easel', tabindex: 0, role: 'application', 'aria-label': 'Mask', 'aria-describedby': 'easel-help',
  }, shown, strokes.canvas, brush);
  easel.style.aspectRatio = `${width} / ${height}`;
  easel.style.width = `min(100%, 62dvh * ${width / height})`;

  const content = element(
    'div', { class: 'mask' },
    element(
      'div', { class: 'mask-bar' },
      element('label', { for: 'brush' }, 'Brush'), size, erase, undo,
      element('button', { type: 'button', class: 'plain', onclick: () => act(() => strokes.act('invert')) }, icon('invert'), 'Invert'),
      element('button', { type: 'button', class: 'plain', onclick: () => act(() => strokes.act('clear')) }, 'Clear'),
    ),
    easel,
    element('p', { class: 'note', id: 'easel-help' }, 'Paint over what is to be redrawn. Keys: arrows move the brush, Space puts it down and lifts it.'),
    element('div', { class: 'mask-end' }, element('button', { type: 'button', class: 'primary', onclick: () => finish() }, 'Use this mask')),
  );
  const dialog = openDialog('Paint a mask', content);
  easel.focus();

  size.addEventListener('input', () => follow());
  dialog.addEventListener('keydown', (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === 'z') {
      event.preventDefault();
      act(() => strokes.undo());
    }
  });
  easel.addEventListener('keydown', (event) => {
    const step = ARROWS[event.key];
    if (!step && event.key !== ' ') return;
    event.preventDefault();
    if (!step) {
      if (event.repeat) return;
      at.isDown = !at.isDown;
      if (at.isDown) strokes.begin(at.x, at.y, Number(size.value), isErasing());
    } else {
      at.x = Math.min(width, Math.max(0, at.x + step[0] * size.value * KEY_STEP));
      at.y = Math.min(height, Math.max(0, at.y + step[1] * size.value * KEY_STEP));
      if (at.isDown) strokes.extend(at.x, at.y);
    }
    follow();
  });
  easel.addEventListener('pointerdown', (event) => {
    if (event.button !== 0) return;
    easel.setPointerCapture(event.pointerId);
    move(event);
    at.isDown = true;
    strokes.begin(at.x, at.y, Number(size.value), isErasing());
    follow();
  });
  easel.addEventListener('pointermove', (event) => {
    const isDrawing = at.isDown && easel.hasPointerCapture(event.pointerId);
    for (const point of event.getCoalescedEvents?.().concat(event) ?? [event]) {
      move(point);
      if (isDrawing) strokes.extend(at.x, at.y);
    }
    follow();
  });
  for (const end of ['pointerup', 'pointercancel']) {
    easel.addEventListener(end, () => {
      at.isDown = false;
      follow();
    });
  }

  function move({ clientX, clientY }) {
    const box = easel.getBoundingClientRect();
    at.x = (clientX - box.left) / box.width * width;
    at.y = (clientY - box.top) / box.height * height;
  }

  /** Shows the brush at its place. */
  function follow() {
    brush.style.left = `${at.x / width * 100}%`;
    brush.style.top = `${at.y / height * 100}%`;
    brush.style.width = `${size.value / width * 100}%`;
    brush.dataset.down = at.isDown;
    undo.disabled = strokes.actions.length === 0;
  }

  function act(action) {
    at.isDown = false;
    action();
    follow();
    if (undo.disabled && document.activeElement === document.body) easel.focus();
  }

  function press(button) {
    button.setAttribute('aria-pressed', button.getAttribute('aria-pressed') !== 'true');
  }

  function isErasing() {
    return erase.getAttribute('aria-pressed') === 'true';
  }

  function finish() {
    const painted = strokes.mask();
    dialog.close();
    done(painted ? of(painted) : undefined);
  }

  follow();
}
