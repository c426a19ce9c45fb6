// The fields of the chosen model's schema that have no place of their own in the form, in three groups: those of films and
// sounds among the settings, the add-ons of the model, and all others under "More".

import { element } from './element.js';
import { field } from './field.js';
import { print } from './json.js';

const ADD_ONS = ['motion_adapter', 'loras', 'controls', 'refiner'];
/** The length of films and sounds, and how much moves. */
const OWN = ['seconds', 'frames', 'fps', 'motion_bucket_id'];
/** The order of the fields under "More". Fields that are not listed follow. */
const ORDER = [
  'seconds', 'frames', 'fps', 'motion_bucket_id', 'noise_aug_strength', 'min_guidance_scale', 'decode_chunk_size', 'padding_seconds', 'logsnr_min', 'logsnr_max',
  'prompt_syntax', 'prompt_2', 'negative_prompt_2', 'prompt_3', 'negative_prompt_3', 'max_sequence_length', 'clip_skip', 'true_guidance_scale',
  'guidance_rescale', 'guidance_interval', 'cfg_normalization', 'cfg_truncation', 'skip_guidance_layers', 'skip_layer_guidance_scale', 'skip_layer_guidance_start',
  'skip_layer_guidance_stop',
  'eta', 'sigmas', 'timesteps', 'denoising_end', 'seed_mode', 'decoder', 'feature_cache', 'precision', 'original_size', 'crop_top_left', 'target_size',
  'negative_original_size', 'negative_crop_top_left', 'negative_target_size', 'aesthetic_score', 'negative_aesthetic_score',
  'output.quality', 'output.metadata', 'output.provenance', 'priority', 'start_timeout_s', 'run_timeout_s', 'on_disconnect', 'metadata', 'webhook',
];
/** Other names of fields that the form has, and the page's own number of previews. */
const NEVER = ['size', 'num_inference_steps', 'previews'];

export class More {
  /**
   * @param {import('./extras.js').Extras} extras the values
   * @param {(name: string) => boolean} isPlaced whether the form has another place for a field
   * @param {object} page what controls need: `pick`, `announce`, `size`, `fresh`
   * @param {() => void} changed
   */
  constructor(extras, isPlaced, page, changed) {
    this.extras = extras;
    this.isPlaced = isPlaced;
    this.page = page;
    this.changed = changed;
    this.addOns = document.getElementById('add-ons-fields');
    this.own = document.getElementById('own-fields');
    this.rest = document.getElementById('more-fields');
  }

  /** Makes the controls for a schema whose names of add-ons are filled in. */
  offer(schema) {
    if (this.schema === print(schema)) return;
    this.schema = print(schema);
    const properties = flat(schema?.properties ?? {}).filter(([name, part]) => !this.isPlaced(name) && !NEVER.includes(name) && hasChoice(part));
    this.fields = properties.map(([path, part]) => {
      return { path, part, control: field(path, part, (value) => this.set(path, value), this.page) };
    });
    const placed = (names) => this.fields.filter(({ path }) => names(path)).map(({ control }) => control.element);
    this.fields.sort((one, other) => place(one.path) - place(other.path));
    this.addOns.replaceChildren(...placed((path) => ADD_ONS.includes(path)));
    this.own.replaceChildren(...placed((path) => OWN.includes(path)));
    this.rest.replaceChildren(...placed((path) => !ADD_ONS.includes(path) && !OWN.includes(path)));
    this.show();
  }

  /** Whether a field is among the settings. */
  isSetting(name) {
    return OWN.includes(name) && (this.fields ?? []).some(({ path }) => path === name);
  }

  show() {
    for (const { path, part, control } of this.fields ?? []) {
      const [name, key] = path.split('.');
      const value = this.extras.fields[name];
      control.show(key ? value?.[key] : value);
      control.element.hidden = part['x-needs'] !== undefined && this.extras.fields[part['x-needs']] === undefined;
    }
  }

  set(path, value) {
    const [name, key] = path.split('.');
    if (!key) this.extras.put(name, value);
    else {
      const { [key]: _, ...others } = this.extras.fields[name] ?? {};
      const next = value === undefined ? others : { ...others, [key]: value };
      this.extras.put(name, Object.keys(next).length > 0 ? next : undefined);
    }
    this.changed();
  }
}

/** The keys of `output` are fields of their own; the form has its format. */
function flat({ output, ...properties }) {
  const { format, ...keys } = output?.properties ?? {};
  return [...Object.entries(properties), ...Object.entries(keys).map(([key, part]) => [`output.${key}`, part])];
}

/** Whether the model takes more than one value. */
function hasChoice({ enum: values, minimum, maximum }) {
  if (values) return values.filter((value) => value !== null).length > 1;
  return minimum === undefined || minimum !== maximum;
}

function place(path) {
  return ORDER.includes(path) ? ORDER.indexOf(path) : ORDER.length;
}
