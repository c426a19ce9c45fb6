// The question what a picture that latentd made is for: for its settings, or as the input picture.

import { element, mainField } from './element.js';

export class Found {
  /** @param {HTMLElement} place */
  constructor(place) {
    this.place = place;
  }

  /**
   * @param {File} file
   * @param {string} caption of the picture
   * @param {() => void} use
   * @param {(() => void) | null} start null if the chosen model does not start from pictures
   */
  offer(file, caption, use, start) {
    const answer = (text, action, kind) => element('button', {
      type: 'button', class: kind, onclick: () => {
        this.place.replaceChildren();
        this.place.hidden = true;
        mainField().focus();
        action();
      },
    }, text);
    this.place.hidden = false;
    this.place.replaceChildren(
      element('p', { id: 'found-text' }, 'This picture contains its settings: ', element('strong', {}, caption || file.name)),
      element(
        'div', { class: 'row' }, answer('Use its settings', use, 'plain chosen'),
        ...(start ? [answer('Start from it', start, 'plain')] : []), answer('Cancel', () => {}, 'plain'),
      ),
    );
    this.place.scrollIntoView({ block: 'nearest' });
    this.place.querySelector('button').focus();
  }
}
