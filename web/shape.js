// Preset sizes, computed from the native size of a model.

/** @returns {{name: string, width: number, height: number}[]} */
export function presets(capabilities) {
  if (!capabilities) return [];
  const { default_width: width, default_height: height } = capabilities;
  const native = { name: width === height ? 'Square' : 'Native', width, height };
  const upright = portrait(capabilities);
  return [native, { name: 'Portrait', ...upright }, { name: 'Landscape', width: upright.height, height: upright.width }];
}

/** A 3:4 size with about as many pixels as the native size, on the model's grid and not below its smallest side. */
function portrait({ default_width, default_height, size_multiple: multiple, min_side_pixels: smallest }) {
  const onGrid = (pixels) => Math.max(Math.ceil(smallest / multiple), Math.round(pixels / multiple)) * multiple;
  const width = onGrid(Math.sqrt(default_width * default_height * 3 / 4));
  return { width, height: onGrid(width * 4 / 3) };
}

/**
 * The size of a new picture that starts from a picture: its shape, with at most as many pixels as the model's own size.
 * The server chooses the same size for a request without one.
 */
export function fitting({ width, height }, capabilities) {
  const { default_width, default_height, size_multiple: multiple, min_side_pixels: smallest, max_side_pixels: largest } = capabilities;
  const scale = Math.min(1, Math.sqrt(default_width * default_height / (width * height)));
  const onGrid = (pixels) => {
    const side = Math.floor(pixels * scale / multiple) * multiple;
    return Math.min(Math.floor(largest / multiple) * multiple, Math.max(Math.ceil(smallest / multiple) * multiple, side));
  };
  return { width: onGrid(width), height: onGrid(height) };
}

/** Models of at most this side have learned a single size, such as the embedded model. */
const SINGLE = 256;
/** How far the pixels and the proportions may be from the own size of a larger model. */
const FAR = 1.5;
const LONG = 2;

/** A sentence if pictures of this size are likely to be worse than those of the model's own size; otherwise empty. */
export function advice({ width, height }, capabilities) {
  const { default_width: own_width, default_height: own_height } = capabilities ?? {};
  if (!(width > 0 && height > 0 && own_width > 0)) return '';
  const isSame = width === own_width && height === own_height;
  const far = (ratio, most) => Math.max(ratio, 1 / ratio) > most;
  const isNear = !far(width * height / (own_width * own_height), FAR) && !far(width / height * own_height / own_width, LONG);
  if (isSame || (isNear && Math.max(own_width, own_height) > SINGLE)) return '';
  return `This model was made for ${own_width} × ${own_height}. In other sizes, subjects are often repeated, cut off or missing.`;
}
