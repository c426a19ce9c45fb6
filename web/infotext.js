// Reads the settings that AUTOMATIC1111's web interface and related tools write into their pictures.

/** latentd's names of their samplers, and the schedule that "Automatic" stands for. */
const SAMPLERS = {
  'ddim': 'ddim', 'plms': 'pndm', 'euler': 'euler', 'euler a': 'euler_a', 'heun': 'heun', 'lms': 'lms', 'dpm2': 'dpm2',
  'dpm2 a': 'dpm2_a', 'dpm++ 2m': 'dpmpp_2m', 'dpm++ 2m sde': 'dpmpp_2m_sde', 'dpm++ sde': 'dpmpp_sde', 'unipc': 'unipc', 'lcm': 'lcm',
};
const AUTOMATIC = { dpmpp_2m: 'karras', dpmpp_sde: 'karras', dpm2: 'karras', dpm2_a: 'karras', dpmpp_2m_sde: 'exponential' };
const SCHEDULES = ['karras', 'exponential', 'beta'];
/** Names of numbers. */
const NUMBERS = { Steps: 'steps', 'CFG scale': 'guidance_scale' };
/** A name with its value, which may be quoted: `Steps: 20`. */
const PAIR = /\s*([^:,]+): ("(?:\\.|[^"])*"|[^,]*)(?:,|$)/g;
/** Names that say nothing about the request. */
const ABOUT = ['Version', 'RNG', 'Model hash', 'Schedule type', 'Lora hashes', 'TI hashes'];

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
  const unused = [];
  for (const [name, value] of Object.entries(named)) {
    if (name in NUMBERS && Number.isFinite(Number(value))) request[NUMBERS[name]] = Number(value);
    else if (name === 'Seed' && /^\d+$/.test(value)) request.seed = Number.isSafeInteger(Number(value)) ? Number(value) : BigInt(value);
    else if (name === 'Size' && /^\d+x\d+$/.test(value)) [request.width, request.height] = value.split('x').map(Number);
    else if (name === 'Sampler' && scheduler(value, named['Schedule type'])) request.scheduler = scheduler(value, named['Schedule type']);
    // Clip skip counts the layer that is used, and latentd the layers that are skipped.
    else if (name === 'Clip skip' && Number(value) >= 1) request.clip_skip = Number(value) - 1;
    else if (name === 'Model' && hasModel(value)) request.model = value;
    else if (!ABOUT.includes(name)) unused.push(name);
  }
  return { request, unused };
}

/** The scheduler of a sampler and a schedule type, such as `DPM++ 2M` and `Karras`; older tools write `DPM++ 2M Karras`. */
function scheduler(sampler, type = 'automatic') {
  const ending = SCHEDULES.find((schedule) => sampler.toLowerCase().endsWith(` ${schedule}`));
  const name = SAMPLERS[ending ? sampler.toLowerCase().slice(0, -ending.length - 1) : sampler.toLowerCase()];
  const asked = ending ?? (type.toLowerCase() === 'automatic' ? AUTOMATIC[name] : type.toLowerCase());
  return name && (SCHEDULES.includes(asked) && name !== 'ddim' && name !== 'pndm' && name !== 'lcm' ? `${name}_${asked}` : name);
}
