// How pictures come into the page: dropped, pasted, or chosen from the user's files.

import { bytes } from './api.js';
import { element } from './element.js';

export class Intake {
  /**
   * @param {(file: File) => void} take receives a picture that was dropped, pasted, or chosen without another receiver
   * @param {(text: string, seen: boolean) => void} announce
   */
  constructor(take, announce) {
    this.take = take;
    this.receiver = take;
    this.announce = announce;
    this.input = element('input', { type: 'file', accept: 'image/*', hidden: true, 'aria-label': 'Picture' });
    document.body.append(this.input);
    this.input.addEventListener('change', () => {
      const [file] = this.input.files;
      this.input.value = '';
      if (file) this.receiver(file);
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

  /** Lets the user choose a file. */
  pick(receiver = this.take) {
    this.receiver = receiver;
    this.input.click();
  }

  // Private methods.

  async give(event, data, target) {
    if (document.querySelector('dialog[open]')) return;
    const receiver = target?.closest?.('[data-takes-picture]')?.takePicture ?? this.take;
    const file = [...data.files].find(({ type }) => type.startsWith('image/'));
    const address = event.type === 'drop' && !isText(target) ? data.getData('text/uri-list') : '';
    if (file || address || data.files.length > 0) event.preventDefault();
    if (file) return receiver(file);
    if (data.files.length > 0) return this.announce(`${data.files[0].name} is not a picture.`, true);
    // A picture of this page. The page's policy forbids to fetch pictures of other sites.
    if (!URL.canParse(address) || new URL(address).origin !== location.origin) return;
    const blob = await bytes({ url: address }).catch(() => null);
    if (blob?.type.startsWith('image/')) receiver(new File([blob], 'picture', { type: blob.type }));
  }
}

/** Pictures of this page have an address. An address that is dropped on a text field becomes part of the text. */
function offersPicture({ types }, target) {
  return types.includes('Files') || (types.includes('text/uri-list') && !isText(target));
}

function isText(target) {
  return Boolean(target?.closest?.('input, textarea'));
}
