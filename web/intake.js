// How pictures come into the page: dropped, pasted, or chosen from the user's files.

import { bytes } from './api.js';
import { element } from './element.js';

export class Intake {
  /**
   * @param {(files: File[]) => void} take receives pictures that were dropped, pasted, or chosen without another receiver
   * @param {() => number} most how many pictures it takes at a time
   * @param {(text: string, seen: boolean) => void} announce
   */
  constructor(take, most, announce) {
    this.take = (files) => take(files.slice(0, most()));
    this.receiver = this.take;
    this.most = most;
    this.announce = announce;
    this.input = element('input', { type: 'file', accept: 'image/*', hidden: true, 'aria-label': 'Picture' });
    document.body.append(this.input);
    this.input.addEventListener('change', () => {
      const files = [...this.input.files];
      this.input.value = '';
      if (files.length > 0) this.receiver(files);
    });
    document.addEventListener('paste', (event) => this.give(event, event.clipboardData, document.activeElement));
    document.addEventListener('dragover', (event) => {
      if (!offersPicture(event.dataTransfer, event.target) || document.querySelector('dialog[open]')) return;
      event.preventDefault();
      document.body.classList.add('dragging');
    });
    document.addEventListener('dragleave', (event) => {
      if (!event.relatedTarget) document.body.classList.remove('dragging');
    });
    document.addEventListener('drop', (event) => {
      document.body.classList.remove('dragging');
      this.give(event, event.dataTransfer, event.target);
    });
  }

  /** Lets the user choose a file, or several if no other receiver gets them. */
  pick(receiver) {
    this.receiver = receiver ? ([file]) => receiver(file) : this.take;
    this.input.multiple = !receiver && this.most() > 1;
    this.input.click();
  }

  // Private methods.

  async give(event, data, target) {
    if (document.querySelector('dialog[open]')) return;
    const other = target?.closest?.('[data-takes-picture]')?.takePicture;
    const receive = other ? ([file]) => other(file) : this.take;
    const files = [...data.files].filter(({ type }) => type.startsWith('image/'));
    const address = event.type === 'drop' && !isText(target) ? data.getData('text/uri-list') : '';
    if (address || data.files.length > 0) event.preventDefault();
    if (files.length > 0) return receive(files);
    if (data.files.length > 0) return this.announce(`${data.files[0].name} is not a picture.`, true);
    // A picture of this page. The page's policy forbids to fetch pictures of other sites.
    if (!URL.canParse(address) || new URL(address).origin !== location.origin) return;
    const blob = await bytes({ url: address }).catch(() => null);
    if (blob?.type.startsWith('image/')) receive([new File([blob], 'picture', { type: blob.type })]);
  }
}

/** Pictures of this page have an address. An address that is dropped on a text field becomes part of the text. */
function offersPicture({ types }, target) {
  return types.includes('Files') || (types.includes('text/uri-list') && !isText(target));
}

function isText(target) {
  return Boolean(target?.closest?.('input, textarea'));
}
