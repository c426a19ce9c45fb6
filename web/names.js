// The names that the page shows for the fields of a request.

const NAMES = {
  image: 'Input picture', mask: 'Mask', loras: 'LoRA', controls: 'ControlNet', prompt_2: 'Second prompt',
  negative_prompt_2: 'Second negative prompt', prompt_3: 'Third prompt', negative_prompt_3: 'Third negative prompt', scheduler: 'Sampler', output: 'File format', sigmas: 'Noise levels',
  start_timeout_s: 'Start timeout (s)', run_timeout_s: 'Run timeout (s)', eta: 'Noise of DDIM (η)', mask_blur: 'Blur (pixels)',
  mask_invert: 'Invert', keep_unmasked: 'Keep the rest exactly as it is', padding_mask_crop: 'Crop around the mask (pixels)',
  'controls.image': 'Picture to follow', 'output.quality': 'JPEG quality',
  'output.metadata': 'Metadata in the file', 'output.provenance': 'Content credentials', 'webhook.url': 'URL', preprocess: 'Edges', clip_skip: 'CLIP skip',
  seconds: 'Length (s)', frames: 'Frames', fps: 'Frames per second', motion_bucket_id: 'Motion', noise_aug_strength: 'Noise on the input picture',
  min_guidance_scale: 'Guidance scale of the first frame', decode_chunk_size: 'Frames decoded at a time', padding_seconds: 'Padding (s)',
  logsnr_min: 'Log SNR of the first step', logsnr_max: 'Log SNR after the last step', 'output.sample_format': 'Samples in the file',
};

/** The name of a field, such as `mask_blur` or `output.quality`. Numbers in a path are places in a list. */
export function title(path) {
  const last = path.split('.').at(-1);
  const plain = last.replaceAll('_', ' ');
  return NAMES[path.replace(/\.\d+/g, '')] ?? NAMES[last] ?? plain[0].toUpperCase() + plain.slice(1);
}
