// The words of the textual inversions of a model, which the user can add to the prompt.

import { element } from './element.js';

export class Words {
  /**
   * @param {HTMLElement} place
   * @param {HTMLTextAreaElement} prompt
   */
  constructor(place, prompt) {
    this.place = place;
    this.prompt = prompt;
  }

  /** @param {string[]} words such as `<teal>` */
  offer(words) {
    this.place.hidden = words.length === 0;
    const buttons = words.map((word) => element('button', { type: 'button', class: 'chip', onclick: () => this.insert(word) }, word));
    this.place.querySelector('.chips').replaceChildren(...buttons);
  }

  /** Writes a word at the cursor of the prompt, separated by spaces. */
  insert(word) {
    const { value, selectionStart: start, selectionEnd: end } = this.prompt;
    const before = value.slice(0, start);
    const after = value.slice(end);
    const text = `${before === '' || /\s$/.test(before) ? '' : ' '}${word}${/^\s/.test(after) ? '' : ' '}`;
    this.prompt.setRangeText(text, start, end, 'end');
    this.prompt.dispatchEvent(new Event('input', { bubbles: true }));
    this.prompt.focus();
  }
}
