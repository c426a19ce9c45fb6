// Compares two pictures: one above the other, with a slider that moves the border between them.

import { show } from './api.js';
import { openDialog } from './dialog.js';
import { element } from './element.js';
import { Zoom } from './zoom.js';

/** The most pictures that the two choices offer. */
const MOST_OFFERED = 100;

/**
 * Opens the comparison.
 * @param {{card: object, image: object}[]} pictures the pictures to choose from
 * @param {{card: object, image: object}} first
 * @param {{card: object, image: object}} second
 */
export function compare(pictures, first, second) {
  const offered = [...new Set([first, second, ...pictures].map(name))].slice(0, MOST_OFFERED);
  const byName = new Map([...pictures, first, second].map((picture) => [name(picture), picture]));
  const under = element('img', { class: 'under' });
  const over = element('img', { class: 'over' });
  const line = element('span', { class: 'border', 'aria-hidden': 'true' });
  const stage = element('div', { class: 'stage' }, under, over, line);
  const frame = element('div', { class: 'compare-frame', role: 'group', 'aria-label': 'Both pictures' }, stage);
  const slider = element('input', { type: 'range', min: 0, max: 100, step: 1, value: 50, 'aria-label': 'Border between the pictures' });
  const move = () => {
    over.style.clipPath = `inset(0 ${100 - slider.value}% 0 0)`;
    line.style.left = `${slider.value}%`;
  };
  slider.addEventListener('input', move);
  const drag = (event) => {
    if (event.buttons !== 1) return;
    const { left, width } = stage.getBoundingClientRect();
    slider.value = 100 * (event.clientX - left) / width;
    move();
  };
  stage.addEventListener('pointerdown', drag);
  stage.addEventListener('pointermove', drag);

  const choice = (label, picture) => {
    const select = element('select', { 'aria-label': label, onchange: () => fill() }, ...offered.map((value) => element('option', { value }, value)));
    select.value = name(picture);
    return select;
  };
  const left = choice('Left picture', first);
  const right = choice('Right picture', second);
  const bar = element('div', { class: 'compare-choices' }, left, right);
  const zoomPlace = element('div', { class: 'compare-zoom' });
  openDialog('Compare two pictures', element('div', { class: 'stack' }, bar, frame, slider, zoomPlace));
  const zoom = new Zoom(zoomPlace, frame, stage, 52);
  const fill = () => {
    for (const [img, select] of [[over, left], [under, right]]) {
      img.alt = select.value;
      show(img, byName.get(select.value).image.url);
    }
    const { image } = byName.get(left.value);
    const other = byName.get(right.value).image;
    zoom.show(image.width * image.height >= other.width * other.height ? image : other);
    move();
  };
  fill();
}

/** A name that tells a picture from all others. */
function name({ card, image }) {
  const words = card.element.getAttribute('aria-label');
  return `${words.length > 40 ? `${words.slice(0, 40)} …` : words} · seed ${image.seed} · ${new Date(card.generation.created_at).toLocaleTimeString()}`;
}
