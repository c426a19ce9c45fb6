// Reads the settings that AUTOMATIC1111's web interface and related tools write into their pictures.

/** A diffusers configuration of the multistep solver of the stochastic differential equation. */
const SDE = { _class_name: 'DPMSolverMultistepScheduler', algorithm_type: 'sde-dpmsolver++' };
/**
 * Their samplers: latentd's name or, of those without one, their configuration; and, if they take schedule types, their
 * class. The server has the same table (`GET /sdapi/v1/samplers`).
 */
const SAMPLERS = {
  'ddim': ['ddim'], 'plms': ['pndm'], 'unipc': ['unipc'], 'lcm': ['lcm'],
  'euler': ['euler', { _class_name: 'EulerDiscreteScheduler' }],
  'euler a': ['euler_a', { _class_name: 'EulerAncestralDiscreteScheduler' }],
  'heun': ['heun', { _class_name: 'HeunDiscreteScheduler' }],
  'lms': ['lms', { _class_name: 'LMSDiscreteScheduler' }],
  'dpm2': ['dpm2', { _class_name: 'KDPM2DiscreteScheduler' }],
  'dpm2 a': ['dpm2_a', { _class_name: 'KDPM2AncestralDiscreteScheduler' }],
  'dpm++ 2m': ['dpmpp_2m', { _class_name: 'DPMSolverMultistepScheduler' }],
  'dpm++ sde': ['dpmpp_sde', { _class_name: 'DPMSolverSDEScheduler' }],
  'dpm++ 2m sde': ['dpmpp_2m_sde', SDE],
  'dpm++ 2m sde heun': [null, { ...SDE, solver_order: 2, solver_type: 'heun' }],
  'dpm++ 3m sde': [null, { ...SDE, solver_order: 3 }],
};
/** latentd's names that they do not have. The server writes them into its pictures as they are. */
const OWN = [
  'ddpm', 'dpmpp_3m', 'dpmpp_2s', 'deis', 'tcd', 'sa_solver', 'ipndm', 'edm_euler', 'flow_euler', 'flow_heun',
];
/** The schedule type that "Automatic" stands for, unless it is "Uniform". */
const AUTOMATIC = {
  'dpm++ 2m': 'karras', 'dpm++ sde': 'karras', 'dpm2': 'karras', 'dpm2 a': 'karras', 'dpm++ 2m sde': 'exponential',
  'dpm++ 2m sde heun': 'exponential', 'dpm++ 3m sde': 'exponential',
};
/** The schedule types with a suffix of names and a key of configurations. */
const SCHEDULES = ['karras', 'exponential', 'beta'];
/** Samplers of which latentd has one name alone, for any of these types. */
const BARE = ['ddim', 'plms', 'lcm', 'euler a', 'ddpm', 'tcd', 'ipndm', 'edm_euler', 'flow_heun'];
/** Names of numbers. */
const NUMBERS = { Steps: 'steps', 'CFG scale': 'guidance_scale' };
/** A name with its value, which may be quoted: `Steps: 20`. */
const PAIR = /\s*([^:,]+): ("(?:\\.|[^"])*"|[^,]*)(?:,|$)/g;
/** Names that say nothing about the request. */
const ABOUT = ['Version', 'RNG', 'Model hash', 'Lora hashes', 'TI hashes'];

/**
 * The request for a text, and the names of the settings that it does not contain.
 * @param {string} text
 * @param {(name: string) => boolean} hasModel whether the server has a model
 * @returns {{request: object, unused: string[]} | null} null if the text has no settings
 */
export function infotext(text, hasModel) {
  const start = text.startsWith('Steps: ') ? 0 : text.lastIndexOf('\nSteps: ') + 1;
  if (!text.slice(start).startsWith('Steps: ')) return null;
  const [prompt, negative = ''] = text.slice(0, start).trimEnd().split(/\n?^Negative prompt: /m);
  const pairs = [...text.slice(start).matchAll(PAIR)].map(([, name, value]) => [name, value.trim()]);
  const named = Object.fromEntries(pairs);
  const request = { prompt, prompt_syntax: 'weighted', ...(negative ? { negative_prompt: negative } : {}) };
  const found = scheduler(named.Sampler ?? '', named['Schedule type']);
  const unused = [];
  for (const [name, value] of Object.entries(named)) {
    if (Object.hasOwn(NUMBERS, name) && Number.isFinite(Number(value))) request[NUMBERS[name]] = Number(value);
    else if (name === 'Seed' && /^\d+$/.test(value)) request.seed = Number.isSafeInteger(Number(value)) ? Number(value) : BigInt(value);
    else if (name === 'Size' && /^\d+x\d+$/.test(value)) [request.width, request.height] = value.split('x').map(Number);
    else if (name === 'Sampler' && found) request.scheduler = found.scheduler;
    // Clip skip counts the layer that is used, and latentd the layers that are skipped.
    else if (name === 'Clip skip' && Number(value) >= 1) request.clip_skip = Number(value) - 1;
    else if (name === 'Model' && hasModel(value)) request.model = value;
    else if (name === 'Schedule type' ? !found?.typed : !ABOUT.includes(name)) unused.push(name);
  }
  // Older tools write the type after the sampler: it is named although it is not a setting of its own.
  if (found && !found.typed && !('Schedule type' in named)) unused.push('Schedule type');
  return { request, unused };
}

/**
 * The scheduler of a sampler and a schedule type, such as `DPM++ 2M` and `Karras`; older tools write `DPM++ 2M Karras`.
 * @returns {{scheduler: string | object, typed: boolean} | null} `typed` is false if the type is unknown, or if the
 *   sampler has only its own noise levels
 */
function scheduler(sampler, type = 'automatic') {
  const all = ['uniform', 'sgm uniform', ...SCHEDULES];
  const text = sampler.toLowerCase();
  const ending = all.toReversed().find((schedule) => text.endsWith(` ${schedule}`));
  const name = ending ? text.slice(0, -ending.length - 1) : text;
  const [own, config] = Object.hasOwn(SAMPLERS, name) ? SAMPLERS[name] : OWN.includes(name) ? [name] : [];
  if (!own && !config) return null;
  const said = type.toLowerCase().replace('_', ' ');
  const isAutomatic = said === 'automatic';
  const asked = isAutomatic ? ending ?? AUTOMATIC[name] ?? 'uniform' : said;
  const plain = own ?? config;
  if (asked === 'uniform') return { scheduler: plain, typed: isAutomatic || Boolean(config) };
  if (asked === 'sgm uniform' && config) return { scheduler: { ...config, timestep_spacing: 'trailing' }, typed: true };
  if (!SCHEDULES.includes(asked) || BARE.includes(name)) return { scheduler: plain, typed: isAutomatic && !ending };
  return { scheduler: own ? `${own}_${asked}` : { ...config, [`use_${asked}_sigmas`]: true }, typed: true };
}
