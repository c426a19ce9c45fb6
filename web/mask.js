// The dialog in which the user paints the mask of the input picture.

import { openDialog } from './dialog.js';
import { Easel } from './easel.js';
import { element, icon, iconButton } from './element.js';
import { load, of } from './picture.js';
import { Strokes } from './strokes.js';

/** The largest, first and smallest diameter of the brush, as shares of the picture's longer side. */
const BRUSH = { most: 1 / 2, first: 1 / 10, least: 1 / 64 };
const HELP = 'Paint over the part to redraw. The arrow keys move the brush. Space puts the brush down, and lifts it again.';

/**
 * Opens the dialog. `done` receives the mask, or undefined if nothing is painted. Rejects if the server no longer has
 * the picture.
 * @param {object} image the input picture
 * @param {object | undefined} mask
 * @param {(mask: object | undefined) => void} done
 */
export async function openMask(image, mask, done) {
  const [paper, before] = await Promise.all([load(image), mask && load(mask).catch(() => undefined)]);
  const color = getComputedStyle(document.documentElement).getPropertyValue('--accent');
  const strokes = new Strokes(paper.naturalWidth, paper.naturalHeight, before, color);
  const pixels = (share) => Math.max(1, Math.round(share * Math.max(paper.naturalWidth, paper.naturalHeight)));

  const [min, max, value] = [BRUSH.least, BRUSH.most, BRUSH.first].map(pixels);
  const size = element('input', { id: 'brush', type: 'range', min, max, value });
  const erase = element('button', { type: 'button', class: 'plain', 'aria-pressed': 'false' }, 'Erase');
  const undo = iconButton('undo', 'Undo (Ctrl+Z)', () => easel.act((all) => all.undo()));
  const isErasing = () => erase.getAttribute('aria-pressed') === 'true';
  const easel = new Easel(paper, strokes, () => ({ size: Number(size.value), erases: isErasing() }), () => {
    // A button that is no longer enabled loses the focus.
    if (strokes.isUnchanged && document.activeElement === undo) easel.element.focus();
    undo.disabled = strokes.isUnchanged;
  });
  size.addEventListener('input', () => easel.show());
  erase.addEventListener('click', () => erase.setAttribute('aria-pressed', !isErasing()));

  const act = (kind, ...content) => {
    return element('button', { type: 'button', class: 'plain', onclick: () => easel.act((all) => all.act(kind)) }, ...content);
  };
  const finish = element('button', { type: 'button', class: 'primary' }, 'Use this mask');
  const dialog = openDialog('Paint a mask', element(
    'div', { class: 'mask' },
    element(
      'div', { class: 'mask-bar' }, element('label', { for: 'brush' }, 'Brush'), size, erase, undo,
      act('invert', icon('invert'), 'Invert'), act('clear', 'Clear'),
    ),
    easel.element,
    element('p', { class: 'note', id: 'easel-help' }, HELP),
    element('div', { class: 'mask-end' }, finish),
  ));
  finish.addEventListener('click', () => {
    const painted = strokes.mask();
    dialog.close();
    done(painted ? of(painted) : undefined);
  });
  dialog.addEventListener('keydown', (event) => {
    if (!(event.ctrlKey || event.metaKey) || event.key.toLowerCase() !== 'z') return;
    event.preventDefault();
    easel.act((all) => all.undo());
  });
  easel.show();
  easel.element.focus();
}
