// The live picture: follows the form while the user types, with a model or LoRA that draws in few steps.

import * as api from './api.js';
import { element } from './element.js';
import { isTerminal } from './events.js';
import { fewSteps, quick } from './few_steps.js';
import { UNLISTED } from './gallery.js';
import { print } from './json.js';
import { Newest } from './newest.js';

const STORED_AS = 'latentd.live';
/** The name of the measures of the time from a change of the form to its picture, in the browser's performance entries. */
export const MEASURE = 'latentd.live';

export class Live {
  /** @param {{form: object, keep(request: object): Promise<void>, announce(text: string, seen?: boolean): void}} page */
  constructor(page) {
    this.page = page;
    this.place = document.getElementById('live-view');
    this.newest = new Newest((wanted) => this.draw(wanted));
    this.build();
    page.form.form.addEventListener('input', () => this.want());
    page.form.form.addEventListener('change', () => this.offer());
    // Buttons of the form and dialogs change the request as well.
    for (const [kind, place] of [['click', page.form.form], ['close', document]]) {
      place.addEventListener(kind, () => setTimeout(() => this.want()), true);
    }
  }

  /** @param {object[]} models @param {object[]} loras */
  load(models, loras) {
    this.models = models;
    this.loras = loras;
    this.offer();
    let on = false;
    try {
      on = localStorage.getItem(STORED_AS) === 'on';
    } catch {
      // Without storage, the live picture starts switched off.
    }
    if (on && this.few) this.turn(true);
  }

  // Private methods.

  build() {
    this.toggle = element('button', { id: 'live-toggle', type: 'button', class: 'switch', role: 'switch', 'aria-checked': 'false' }, 'Live');
    this.note = element('span', { class: 'note live-note' });
    this.image = element('img', { class: 'live-image', alt: '' });
    this.error = element('p', { class: 'error', role: 'status', hidden: true });
    this.keep = element('button', { type: 'button', class: 'plain', disabled: true, onclick: () => this.keepIt() }, 'Keep this picture');
    this.dice = element('button', { type: 'button', class: 'plain', onclick: () => { this.seed = undefined; this.want(); } }, 'Another one');
    this.body = element('div', { class: 'live-body', hidden: true }, this.image, this.error, element('div', { class: 'row' }, this.keep, this.dice));
    this.place.append(element('div', { class: 'live-bar' }, this.toggle, this.note), this.body);
    this.toggle.addEventListener('click', () => this.turn(this.body.hidden));
  }

  /** Shows the switch if the chosen model can draw in few steps. Films and sounds have no live picture. */
  offer() {
    const chosen = this.page.form.request().model;
    this.few = fewSteps(this.models?.find(({ id }) => id === chosen), this.loras ?? []);
    this.place.hidden = !this.few;
    if (!this.few) this.newest.stop();
    else if (this.body.hidden) this.note.textContent = 'The picture follows your typing.';
  }

  turn(on) {
    this.body.hidden = !on;
    this.toggle.setAttribute('aria-checked', on);
    try {
      localStorage.setItem(STORED_AS, on ? 'on' : 'off');
    } catch {
      // Without storage, the live picture starts switched off.
    }
    if (on) this.want();
    else this.newest.stop();
    this.offer();
  }

  /** Draws what the form says now, unless it is what the picture shows already. */
  want() {
    if (this.body.hidden || !this.few) return;
    const request = quick(this.page.form.request(), this.few);
    if ((request.prompt ?? '').trim() === '' && request.class_label === undefined) return;
    // The seed stays the same while the user types, so that only what the text changes changes in the picture.
    this.seed ??= crypto.getRandomValues(new Uint32Array(1))[0];
    request.seed ??= this.seed;
    const text = print(request);
    if (text === this.wanted) return;
    this.wanted = text;
    this.newest.want({ request, since: performance.now() });
  }

  draw({ request, since }) {
    let canceled = false;
    // The id of what can be canceled.
    let id = null;
    let made = null;
    let canceling = Promise.resolve();
    const body = { ...request, start_timeout_s: 30, metadata: { ...request.metadata, [UNLISTED]: 'live' } };
    const drawn = async () => {
      try {
        made = id = (await api.create(body)).id;
        if (canceled) await api.cancel(id);
        const { status, images, error } = await untilEnd(id);
        id = null;
        if (status === 'succeeded' && !canceled) await this.show(await api.bytes(images[0]), request, since);
        if (status === 'failed' || status === 'expired') this.fail({ message: error?.message ?? 'The server is too busy for a live picture.' });
      } catch (problem) {
        if (!canceled) this.fail(problem);
      }
      // Live pictures stay in the browser only. What is erased cannot be canceled, so erasing waits for a cancel.
      id = null;
      await canceling;
      if (made) api.erase(made).catch(() => {});
    };
    const cancel = () => {
      canceled = true;
      // Before the server has accepted the request, and after its end, there is nothing to cancel.
      if (id) canceling = api.cancel(id).catch(() => {});
    };
    return { done: drawn(), cancel };
  }

  async show(blob, request, since) {
    const source = URL.createObjectURL(blob);
    this.image.src = source;
    await this.image.decode().catch(() => {});
    URL.revokeObjectURL(this.source);
    this.source = source;
    this.shown = request;
    this.image.alt = request.prompt ?? 'Live picture';
    this.image.style.aspectRatio = `${this.image.naturalWidth} / ${this.image.naturalHeight}`;
    this.keep.disabled = false;
    this.error.hidden = true;
    const { duration } = performance.measure(MEASURE, { start: since, end: performance.now() });
    const steps = request.steps === 1 ? '1 step' : `${request.steps} steps`;
    this.note.textContent = `${Math.round(duration)} ms · ${steps}${this.few?.lora ? ` with ${this.few.lora}` : ''}`;
  }

  fail(problem) {
    // The same text can be tried again.
    this.wanted = null;
    this.error.textContent = problem.errors?.length ? problem.errors.map(({ detail }) => detail).join('\n') : problem.message;
    this.error.hidden = false;
  }

  /** Puts the shown picture into the gallery: its request draws the same picture again. */
  async keepIt() {
    this.keep.disabled = true;
    try {
      await this.page.keep(this.shown);
    } catch (problem) {
      this.page.announce(problem.message, true);
    }
    this.keep.disabled = false;
  }
}

/** The generation when it has ended. */
async function untilEnd(id) {
  for (;;) {
    const generation = await api.wait(id);
    if (isTerminal(generation.status)) return generation;
  }
}
