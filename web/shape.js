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
