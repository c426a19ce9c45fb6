// How a model draws in few steps: by itself, or with a LoRA that was distilled for this.

/** Words in the names of LoRAs that were distilled for few steps, with their samplers. */
const DISTILLED = [['lcm', 'lcm'], ['tcd', 'tcd'], ['hyper', 'tcd'], ['lightning', 'euler'], ['turbo', 'euler_a']];
/** A model with this many steps or fewer by default needs no LoRA. */
const FEW = 8;
/** A picture of at most this many pixels needs one step with such a LoRA, larger ones four. */
const SMALL = 256 * 256;

/**
 * The fields that make a request for this model quick; null if nothing does.
 * @param {object} model of `GET /v1/models`
 * @param {object[]} loras of `GET /v1/loras`
 */
export function fewSteps(model, loras) {
  const can = model?.capabilities;
  if (!can) return null;
  const decoder = can.decoders?.includes('tiny') ? { decoder: 'tiny' } : {};
  if (can.default_steps <= FEW) return { steps: can.default_steps, ...decoder };
  for (const [word, scheduler] of DISTILLED) {
    const fits = (lora) => lora.state !== 'failed' && lora.name.toLowerCase().includes(word) && lora.models.includes(model.id);
    const lora = loras.find(fits);
    if (lora && can.schedulers.includes(scheduler)) {
      const steps = can.default_width * can.default_height <= SMALL ? 1 : 4;
      return { lora: lora.name, scheduler, steps, guidance_scale: 1, ...decoder };
    }
  }
  return null;
}

/** The request of the form, made quick. */
export function quick(request, { lora, ...few }) {
  const loras = (request.loras ?? []).filter((one) => one.name !== lora);
  const fast = { ...request, ...few, ...(lora ? { loras: [...loras, { name: lora, scale: 1 }] } : {}) };
  // With a source picture, only a part of the steps is computed.
  if (request.image) fast.steps = Math.ceil(few.steps / Math.max(0.1, request.strength ?? 0.75));
  for (const name of ['n', 'previews', 'sigmas', 'timesteps', 'refiner', 'output', 'guidance_interval', 'feature_cache']) delete fast[name];
  return fast;
}
