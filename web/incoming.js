// What a picture that comes into the page is for: it becomes the input picture, or it gives its settings back.

import { bytes } from './api.js';
import { Found } from './found.js';
import { read } from './picture.js';
import { recipe } from './recipe.js';

export class Incoming {
  /**
   * @param {{takes(): boolean, isDrawing(): boolean, put(picture: object): void, use(request: object): void, hasModel(name: string): boolean,
   *   caption(request: object): string, announce(text: string, seen?: boolean): void}} form `takes` says whether the
   *   chosen model starts from pictures, `isDrawing` whether the settings of a picture fit the form
   */
  constructor(form) {
    this.form = form;
    this.found = new Found(document.getElementById('found'));
    this.source = document.getElementById('source');
  }

  /** Takes files of the user. If a single one contains its settings, the user chooses what it is for. */
  async receive(files) {
    await this.attempt(async () => {
      if (files.length > 1) {
        for (const file of files) await this.take(file);
        return;
      }
      const [file] = files;
      const made = this.form.isDrawing() ? await recipe(file, this.form.hasModel) : null;
      if (!made) return this.take(file);
      const { request, unused } = made;
      const use = () => {
        this.form.use(request);
        if (unused.length > 0) this.form.announce(`Not used: ${unused.join(', ')}.`, true);
      };
      const start = this.form.takes() ? () => this.start(file) : null;
      this.found.offer(file, this.form.caption(request), use, start);
    });
  }

  /** Starts the next picture from a picture of a generation. */
  async startFrom(image) {
    await this.attempt(async () => {
      const blob = await bytes(image);
      await this.start(new File([blob], 'picture', { type: blob.type }));
    });
  }

  // Private methods.

  async start(file) {
    await this.attempt(async () => {
      await this.take(file);
      this.source.scrollIntoView({ block: 'nearest', behavior: 'smooth' });
      this.source.querySelector('button').focus();
    });
  }

  async take(file) {
    if (!this.form.takes()) throw new Error('The chosen model does not start from a picture.');
    const picture = await read(file);
    this.form.put(picture);
    this.form.announce(`The input picture has ${picture.width} × ${picture.height} pixels.`);
  }

  async attempt(action) {
    try {
      await action();
    } catch (error) {
      this.form.announce(error.message, true);
    }
  }
}
