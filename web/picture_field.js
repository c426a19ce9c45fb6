// The control for a picture that a ControlNet follows, with a preview of what the ControlNet receives.

import { canny } from './canny.js';
import { element } from './element.js';
import { about, describedBy } from './frame.js';
import { print } from './json.js';
import { title } from './names.js';
import { drawn, load, read } from './picture.js';

export function pictureField(path, schema, change, page) {
  const preview = element('div', { class: 'hint', hidden: true });
  const button = element('button', {
    id: path, type: 'button', class: 'plain', 'aria-describedby': describedBy(path), onclick: () => page.pick(take),
  }, 'Choose a picture');
  let shown;

  async function take(file) {
    try {
      change(await read(file));
    } catch (error) {
      page.announce(error.message, true);
    }
  }

  /** Shows the picture, and its edges at the size of the request if the ControlNet receives the edges. */
  async function show(picture) {
    const { width, height } = page.size(picture);
    const edges = page.beside().preprocess === 'canny';
    const state = print([picture, edges, edges && [width, height]]);
    if (state === shown) return;
    shown = state;
    button.textContent = picture ? 'Choose another picture' : 'Choose a picture';
    preview.hidden = !picture;
    if (!picture) return;
    const image = await load(picture).catch(() => null);
    // Another picture was chosen meanwhile.
    if (state !== shown) return;
    if (!image) {
      preview.replaceChildren(element('p', { class: 'note' }, 'The server no longer has this picture.'));
      return;
    }
    const canvas = drawn(image, width, height);
    canvas.setAttribute('role', 'img');
    canvas.setAttribute('aria-label', edges ? 'The edges that the ControlNet receives' : 'The picture that the ControlNet receives');
    if (edges) canny(canvas);
    preview.replaceChildren(canvas);
  }

  const place = element('div', { class: 'field' }, element('p', { class: 'label' }, title(path)), preview, button, ...about(path, schema));
  // What is dropped on the control goes here, not to the input picture.
  place.takePicture = take;
  place.dataset.takesPicture = '';
  return { element: place, show };
}
