// The form: the request for the next pictures, films or sounds.

import { AddOns } from './add_ons.js';
import * as classes from './classes.js';
import { element, mainField } from './element.js';
import { Errors } from './errors.js';
import { Extras } from './extras.js';
import { Incoming } from './incoming.js';
import { Intake } from './intake.js';
import { print } from './json.js';
import * as kept from './kept.js';
import { FILMS, PICTURES, SOUNDS } from './kinds.js';
import { More } from './more.js';
import { all } from './picture.js';
import { schedulerName } from './scheduler.js';
import * as settings from './settings.js';
import { Size } from './size.js';
import { Source } from './source.js';
import { Words } from './words.js';

/** The fixed fields of the form. All other fields of the request are extras. */
const TEXTS = ['prompt', 'negative_prompt'];
const NUMBERS = ['width', 'height', 'steps', 'guidance_scale', 'class_guidance_scale', 'n'];
const PREVIEWS = 10;
const MOST_SEED = 2n ** 63n - 1n;

export class Form {
  /**
   * @param {HTMLFormElement} form
   * @param {(request: object) => Promise<void>} send rejects with a Problem
   * @param {(model: string) => object | undefined} schemaOf the JSON Schema of a model's requests
   * @param {(text: string, seen?: boolean) => void} announce
   */
  constructor(form, send, schemaOf, announce = () => {}) {
    this.form = form;
    this.send = send;
    this.schemaOf = schemaOf;
    this.announce = announce;
    this.models = [];
    this.kind = PICTURES;
    /** The seed of the last picture, which the user can keep afterwards. */
    this.lastSeed = null;
    this.at = (id) => document.getElementById(id);
    this.errors = new Errors(form);
    this.addOns = new AddOns(schemaOf);
    this.makeParts();
    this.listen();
  }

  /**
   * Fills in what the server has for a kind of work. Called again when the kind or the server's catalogue has changed.
   * @param {object[]} models the models that make the kind
   * @param {object[]} schedulers
   * @param {{loras: object[], embeddings: object[], controlNets: object[]}} addOns
   * @param {object} kind
   */
  offer(models, schedulers, addOns = {}, kind = PICTURES) {
    const first = this.models.length === 0 || kind !== this.kind;
    this.take(kind);
    const chosen = this.field('model').value;
    this.models = models;
    this.schedulers = schedulers;
    this.addOns.offer({ models, ...addOns });
    this.field('model').replaceChildren(...models.map((model) => {
      return element('option', { value: model.id, disabled: model.state === 'failed' }, model.id);
    }));
    if (first) this.restore();
    else this.field('model').value = chosen;
    this.showModel();
  }

  /** The request of the current form. The server checks it. */
  request() {
    const request = this.takes('prompt') ? { prompt: this.field('prompt').value } : {};
    if (this.takes('negative_prompt') && this.field('negative_prompt').value.trim()) {
      request.negative_prompt = this.field('negative_prompt').value;
    }
    const label = this.field('class_label').value;
    if (this.takes('class_label') && label.trim()) request.class_label = classes.value(label);
    if (this.field('model').value) request.model = this.field('model').value;
    for (const name of NUMBERS.filter((name) => this.takes(name))) {
      const text = this.field(name).value.trim();
      if (text !== '') request[name] = Number(text);
    }
    if (request.n === 1) delete request.n;
    if (this.field('scheduler').value) request.scheduler = this.field('scheduler').value;
    const seed = this.field('seed').value.trim();
    if (/^\d+$/.test(seed)) request.seed = Number.isSafeInteger(Number(seed)) ? Number(seed) : BigInt(seed);
    else if (seed) request.seed = seed;
    const { output, ...extras } = Object.fromEntries(Object.entries(this.extras.fields).filter(([name]) => this.sends(name)));
    const known = this.rule('output').properties;
    const keys = Object.entries(output ?? {}).filter(([key]) => !known || key in known);
    const file = { format: this.field('output').value, ...Object.fromEntries(keys) };
    if (print(file) !== print({ format: this.format() })) request.output = file;
    return { ...request, ...extras };
  }

  /** Fills in the settings of a generation. Settings without a field become extras. */
  use(generation) {
    const schema = this.schemaOf(generation.params.model);
    const { model, seed, scheduler, ...rest } = settings.request(settings.everything(generation, schema), schema);
    const extras = {};
    if (this.models.some(({ id }) => id === model)) this.field('model').value = model;
    else extras.model = model;
    if ('class_label' in rest) this.field('class_label').value = classes.text(rest.class_label, schema);
    delete rest.class_label;
    // Fields that this model does not have keep their values for other models.
    for (const name of [...TEXTS, ...NUMBERS].filter((name) => this.takes(name))) {
      this.field(name).value = rest[name] ?? (name === 'n' ? 1 : '');
      // The form omits an empty negative prompt, so an explicit empty one stays an extra.
      if (rest[name] !== '' || name === 'prompt') delete rest[name];
    }
    this.offerSchedulers();
    this.field('scheduler').value = typeof scheduler === 'string' ? scheduler : '';
    const named = this.field('scheduler').selectedIndex > 0;
    if (!named) this.field('scheduler').value = '';
    if (!named && scheduler && schedulerName(scheduler) !== schedulerName()) extras.scheduler = scheduler;
    const { output: { format = this.format(), ...file } = {}, ...others } = rest;
    this.field('output').value = format;
    if (Object.keys(file).length > 0) extras.output = file;
    Object.assign(extras, others);
    this.extras.set(extras);
    this.setSeed(seed ?? '');
    this.showModel();
    this.changed();
    mainField().focus();
  }

  /** Starts the next picture from a picture of a generation. */
  async startFrom(image) {
    await this.incoming.startFrom(image);
  }

  suggest(prompt) {
    this.field('prompt').value = prompt;
    this.changed();
    this.field('prompt').focus();
  }

  async submit() {
    // Pressing a key twice or holding it sends one request.
    if (this.sending) return;
    this.errors.clear();
    const request = this.request();
    const faults = this.faults();
    if (faults.length > 0) {
      this.errors.show(faults);
      return;
    }
    this.sending = true;
    try {
      await this.send({ ...request, ...(this.kind === SOUNDS ? {} : { previews: PREVIEWS }) });
    } catch (problem) {
      this.showProblem(problem);
    }
    this.sending = false;
  }

  /** Removes the message that the server does not answer. */
  reached() {
    if (this.unreachable) this.errors.tell('');
    this.unreachable = false;
  }

  showProblem(problem) {
    const waits = problem.retryAfterS ? ` Try again in ${Math.ceil(problem.retryAfterS)} s.` : '';
    this.unreachable = problem.status === 0;
    this.errors.show(problem.errors?.length ? problem.errors : [{ pointer: '', detail: problem.message + waits }]);
  }

  // Private methods.

  /** Shows the words and the file formats of a kind of work. */
  take(kind) {
    if (kind === this.kind) return;
    this.errors.clear();
    this.kind = kind;
    this.lastSeed = null;
    this.extras.set({});
    for (const name of TEXTS) this.field(name).value = '';
    this.setSeed('', false);
    this.form.setAttribute('aria-label', `New ${kind.noun}`);
    this.field('prompt').placeholder = kind.asks;
    this.field('negative_prompt').placeholder = kind.asksNot;
    this.at('n-label').textContent = `Number of ${kind.nouns}`;
    this.form.querySelector('[data-for=n]').ariaLabel = `Number of ${kind.nouns}`;
    this.at('size-field').hidden = kind === SOUNDS;
    this.field('output').closest('.field').hidden = kind.formats.length < 2;
    this.field('output').replaceChildren(...kind.formats.map(([value, name]) => element('option', { value }, name)));
  }

  /** The server's file format. */
  format() {
    return this.kind.formats[0][0];
  }

  /** Makes the parts of the form that show and change the extras. */
  makeParts() {
    const changed = () => this.changed();
    const known = () => this.schema()?.properties ?? {};
    const hidden = (name) => this.source.has(name) || this.more.isSetting(name) || !this.sends(name);
    this.extras = new Extras(this.at('extras'), changed, known, hidden);
    this.incoming = new Incoming({
      takes: () => this.takes('image'),
      isDrawing: () => this.kind === PICTURES,
      put: (picture) => this.put(picture),
      use: (request) => this.use({ params: request }),
      hasModel: (name) => this.models.some(({ id }) => id === name),
      caption: (request) => classes.caption(request, this.schemaOf(request.model)),
      announce: this.announce,
    });
    const intake = new Intake((files) => this.incoming.receive(files), () => this.source.most ?? 1, this.announce);
    const page = {
      pick: (receiver) => intake.pick(receiver),
      announce: this.announce,
      size: (picture) => ({ ...picture, ...this.size.get() }),
      fresh: (path, rows) => this.fresh(path, rows),
    };
    this.size = new Size(this.field('width'), this.field('height'), () => this.sized());
    this.source = new Source(this.extras, page, changed);
    this.more = new More(this.extras, (name) => this.has(name) || this.source.has(name), page, changed);
    this.words = new Words(this.at('words'), this.field('prompt'));
  }

  /** Makes a picture the input picture, or one more of them. A mask belongs to a single picture, so it goes. */
  put(picture) {
    const image = this.source.joined(picture);
    this.extras.remove('mask');
    this.extras.put('image', image);
    this.forgive('image');
    // The size fits the first of several pictures.
    if (!Array.isArray(image)) this.size.fit(picture);
    this.sized();
  }

  /** The first value of a new LoRA or ControlNet; a ControlNet follows the input picture. */
  fresh(path, rows) {
    const row = this.addOns.fresh(path, rows, this.field('model').value);
    const [image] = all(this.extras.fields.image);
    return path === 'controls' && row && image ? { ...row, image } : row;
  }

  /** Whether the form has a fixed field of this name. */
  has(name) {
    return this.field(name)?.name === name;
  }

  /** Errors in values that JSON cannot represent, which the server cannot check. */
  faults() {
    const numbers = [...this.form.querySelectorAll('input[type=number]')];
    const bad = numbers.filter((input) => input.validity.badInput && !input.closest('[hidden]'));
    const faults = bad.map(({ id }) => ({ pointer: `/${id.replaceAll('.', '/')}`, detail: 'must be a number' }));
    const seed = this.field('seed').value.trim();
    if (/^\d+$/.test(seed) && BigInt(seed) > MOST_SEED) {
      faults.push({ pointer: '/seed', detail: `must be between 0 and ${MOST_SEED}` });
    }
    return faults;
  }

  field(name) {
    return this.form.elements.namedItem(name);
  }

  /** The schema of the selected model, if it is known. */
  schema() {
    return this.schemaOf(this.field('model').value);
  }

  /** Whether the selected model has a field. A model without a known schema is assumed to have a prompt. */
  takes(name) {
    const schema = this.schema();
    return schema ? name in schema.properties : !name.startsWith('class_');
  }

  /** Whether the request has an extra: the selected model takes it, or the extras name another model. */
  sends(name) {
    return this.takes(name) || 'model' in this.extras.fields;
  }

  /** The schema of a field of the selected model. */
  rule(name) {
    return this.schema()?.properties[name] ?? {};
  }

  /** The capabilities of the selected model; null if the model is not usable. */
  capabilities() {
    return this.models.find(({ id }) => id === this.field('model').value)?.capabilities ?? null;
  }

  listen() {
    this.form.addEventListener('submit', (event) => {
      event.preventDefault();
      this.submit();
    });
    document.addEventListener('keydown', (event) => {
      if (event.key !== 'Enter' || document.querySelector('dialog[open]')) return;
      const sends = event.ctrlKey || event.metaKey;
      // A held key sends one request.
      const held = event.repeat && (sends || event.target.matches('#form input, #form [type=submit]'));
      if (sends || held) event.preventDefault();
      if (sends && !held) this.submit();
    });
    this.form.addEventListener('input', (event) => {
      const name = event.target.dataset.for;
      if (name) this.field(name).value = event.target.value;
      // The value of a form field replaces an extra of the same name.
      if (event.target.name === 'output') this.forgetQuality();
      else this.extras.remove(name ?? event.target.name);
      this.forgive(name ?? event.target.id);
      this.changed();
    });
    this.field('model').addEventListener('change', () => {
      this.setDefaults();
      this.showModel();
      this.changed();
    });
    this.at('reset').addEventListener('click', () => {
      this.extras.set({});
      this.field('negative_prompt').value = '';
      this.field('output').value = this.format();
      this.setSeed('');
      this.setDefaults();
      this.changed();
    });
    this.at('dice').addEventListener('click', () => this.setSeed(crypto.getRandomValues(new Uint32Array(1))[0]));
    this.at('keep').addEventListener('click', () => {
      const isKept = this.field('seed').value.trim() !== '';
      this.setSeed(isKept ? '' : this.lastSeed ?? crypto.getRandomValues(new Uint32Array(1))[0]);
    });
  }

  /** Removes what belongs to the previous file format, and keeps the other output settings. */
  forgetQuality() {
    const { output: { quality, sample_format: samples, ...file } = {}, ...extras } = this.extras.fields;
    this.extras.set({ ...extras, output: Object.keys(file).length > 0 ? file : undefined });
  }

  setSeed(seed, changes = true) {
    this.field('seed').value = seed;
    this.forgive('seed');
    if (changes) this.changed();
  }

  /** Updates everything after another size was chosen. */
  sized() {
    this.forgive('width');
    this.forgive('height');
    this.changed();
  }

  /** Fills in the model's defaults for everything except texts, seed and file format. */
  setDefaults() {
    const can = this.capabilities();
    const own = (name) => this.rule(name).default ?? can?.[`default_${name}`] ?? '';
    for (const name of ['steps', 'guidance_scale', 'class_guidance_scale']) this.field(name).value = own(name);
    this.field('n').value = 1;
    this.field('scheduler').value = '';
    this.size.set({ width: own('width'), height: own('height') });
    this.sized();
    this.errors.clear();
  }

  showModel() {
    const model = this.models.find(({ id }) => id === this.field('model').value);
    const can = this.capabilities();
    const state = { loading: 'The model is being loaded.', cold: `The first ${this.kind.noun} loads the model.` }[model?.state];
    const note = [can?.description, state].filter(Boolean).join(' ');
    this.say('model-note', note);
    this.offerSchedulers();
    const own = schedulerName();
    const named = schedulerName(can?.default_scheduler);
    this.field('scheduler').options[0].textContent = named === own ? own : `${own} (${named})`;
    this.size.offer(can, (name) => this.rule(name));
    this.field('n').max = this.form.querySelector('[data-for=n]').max = this.rule('n').maximum ?? can?.max_images ?? 8;
    this.field('steps').max = this.rule('steps').maximum ?? can?.max_steps ?? '';
    for (const name of [...TEXTS, ...NUMBERS, 'class_label']) {
      const place = this.field(name).closest('.field');
      if (name !== 'width' && name !== 'height') place.hidden = !this.takes(name);
    }
    this.at('suggestions').hidden = !this.takes('prompt');
    this.showClasses();
    this.showParts();
    this.at('suggestions').replaceChildren(...(can?.prompts ?? []).slice(0, 8).map((prompt) => {
      return element('button', { type: 'button', class: 'chip', onclick: () => this.suggest(prompt) }, prompt);
    }));
    this.show();
  }

  /** Offers the schedulers that can draw with the model, and keeps the chosen one if it can. */
  offerSchedulers() {
    const chosen = this.field('scheduler').value;
    const usable = this.capabilities()?.schedulers ?? this.schedulers.map(({ name }) => name);
    this.field('scheduler').replaceChildren(
      element('option', { value: '' }, ''), ...usable.map((name) => element('option', { value: name }, name)),
    );
    this.field('scheduler').value = usable.includes(chosen) ? chosen : '';
  }

  /** Offers the add-ons that fit the model, and the fields of its schema. */
  showParts() {
    const model = this.field('model').value;
    this.words.offer(this.takes('prompt') ? this.addOns.words(model) : []);
    const schema = this.addOns.schema(model);
    this.source.offer(schema);
    this.more.offer(schema);
    this.at('add-ons').hidden = this.at('add-ons-fields').children.length === 0 && this.at('words').hidden;
    this.at('more-settings').hidden = this.at('more-fields').children.length === 0;
    this.extras.show();
  }

  /** Lists the classes of the model and the range of their numbers. */
  showClasses() {
    const names = classes.names(this.schema());
    const options = names.map((name, number) => name && element('option', { value: name }, `${number}`));
    this.at('classes').replaceChildren(...options.filter(Boolean));
    const most = this.rule('class_label').anyOf?.find(({ type }) => type === 'integer')?.maximum;
    const numbers = most === undefined ? '' : `A number from 0 to ${most}`;
    this.say('class_label-note', options.some(Boolean) ? `${numbers}, or a name` : numbers);
  }

  /** Updates everything that depends on the fields, and stores the fields for the next visit. */
  changed() {
    this.show();
    const fields = [...TEXTS, ...NUMBERS, 'class_label', 'model', 'scheduler', 'seed', 'output'].map((name) => [name, this.field(name).value]);
    kept.keep({ ...Object.fromEntries(fields), extras: this.extras.fields }, this.kind);
  }

  show() {
    for (const range of this.form.querySelectorAll('[data-for]')) range.value = this.field(range.dataset.for).value || range.min;
    const value = (name) => this.field(name).value.trim();
    this.at('keep').setAttribute('aria-pressed', value('seed') !== '');
    const chosen = this.schedulers?.find(({ name }) => name === value('scheduler'));
    this.say('scheduler-note', chosen?.description ?? '');
    this.size.show('mask' in this.extras.fields);
    this.source.show();
    this.more.show();
    this.at('summary').textContent = [
      ...(this.kind === SOUNDS ? [] : [`${value('width')} × ${value('height')}`]), ...this.length(), `${value('steps')} steps`, ...(value('seed') ? [`seed ${value('seed')}`] : []),
      ...(Number(value('n')) > 1 ? [`${value('n')} ${this.kind.nouns}`] : []), ...this.extras.summary((name) => this.more.isSetting(name) || !this.sends(name)),
    ].join(' · ');
  }

  /** The length of the film or sound in words. */
  length() {
    const of = (name) => this.extras.fields[name] ?? this.rule(name).default;
    if (this.kind === SOUNDS) return [`${of('seconds')} s`];
    return this.kind === FILMS ? [`${of('frames')} frames, ${Math.round(100 * of('frames') / of('fps')) / 100} s`] : [];
  }

  restore() {
    const contents = kept.restore(this.kind);
    const offered = this.models.find(({ id, state }) => id === contents.model && state !== 'failed');
    const standard = this.models.find((model) => model.default) ?? this.models.find(({ state }) => state !== 'failed');
    this.field('model').value = (offered ?? standard)?.id ?? '';
    this.offerSchedulers();
    this.setDefaults();
    for (const name of [...TEXTS, 'class_label']) if (contents[name]) this.field(name).value = contents[name];
    if (!offered) return;
    this.extras.set(contents.extras ?? {});
    for (const name of [...NUMBERS, 'scheduler', 'seed', 'output']) if (contents[name]) this.field(name).value = contents[name];
    // If the server no longer offers the stored scheduler, no option is selected.
    if (this.field('scheduler').selectedIndex < 0) this.field('scheduler').value = '';
  }

  forgive(path) {
    this.errors.forgive(path);
  }

  say(id, text) {
    this.at(id).textContent = text;
    this.at(id).hidden = text === '';
  }
}
