// The edges that a ControlNet receives (Canny 1986), as `pixels/src/canny.rs` finds them.

const LOW = 100;
const HIGH = 200;
/** tan 22.5° in units of 2⁻¹⁵. */
const TAN_22 = 13573;

/** Replaces the pixels of a canvas by their edges: white on black. */
export function canny(canvas) {
  const pen = canvas.getContext('2d');
  const picture = pen.getImageData(0, 0, canvas.width, canvas.height);
  const marks = edges(picture);
  for (let at = 0; at < marks.length; at += 1) picture.data.fill(marks[at] === 2 ? 255 : 0, 4 * at, 4 * at + 3);
  for (let at = 3; at < picture.data.length; at += 4) picture.data[at] = 255;
  pen.putImageData(picture, 0, 0);
}

/** 2 for each pixel on an edge. Edges are ridges above HIGH, and ridges above LOW that are connected to them. */
function edges({ data, width, height }) {
  const { dx, dy } = gradients(data, width, height);
  const size = (x, y) => {
    if (x < 0 || y < 0 || x >= width || y >= height) return 0;
    return Math.abs(dx[y * width + x]) + Math.abs(dy[y * width + x]);
  };
  const marks = new Uint8Array(width * height);
  const open = [];
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      const at = y * width + x;
      const own = size(x, y);
      if (own <= LOW || !isRidge(own, dx[at], dy[at], (right, down) => size(x + right, y + down))) continue;
      marks[at] = own > HIGH ? 2 : 1;
      if (own > HIGH) open.push(at);
    }
  }
  while (open.length > 0) {
    const at = open.pop();
    const x = at % width;
    for (const down of [-width, 0, width]) {
      for (let right = x > 0 ? -1 : 0; right <= (x + 1 < width ? 1 : 0); right += 1) {
        if (marks[at + down + right] !== 1) continue;
        marks[at + down + right] = 2;
        open.push(at + down + right);
      }
    }
  }
  return marks;
}

/** Whether the gradient is larger than its neighbors along its direction. */
function isRidge(own, dx, dy, size) {
  const x = Math.abs(dx);
  const y = Math.abs(dy) * 32768;
  const flat = x * TAN_22;
  if (y < flat) return own > size(-1, 0) && own >= size(1, 0);
  if (y > flat + x * 65536) return own > size(0, -1) && own >= size(0, 1);
  const side = (dx ^ dy) < 0 ? -1 : 1;
  return own > size(-side, -1) && own > size(side, 1);
}

/** Sobel's derivatives of the channel with the largest |dx| + |dy|. Border pixels are repeated beyond the border. */
function gradients(data, width, height) {
  const dx = new Int16Array(width * height);
  const dy = new Int16Array(width * height);
  for (let y = 0; y < height; y += 1) {
    const rows = [Math.max(0, y - 1), y, Math.min(height - 1, y + 1)].map((row) => row * width);
    for (let x = 0; x < width; x += 1) {
      const columns = [Math.max(0, x - 1), x, Math.min(width - 1, x + 1)];
      for (let channel = 0, most = -1; channel < 3; channel += 1) {
        const level = (column, row) => data[4 * (rows[row] + columns[column]) + channel];
        const column = (place) => level(place, 0) + 2 * level(place, 1) + level(place, 2);
        const line = (place) => level(0, place) + 2 * level(1, place) + level(2, place);
        const [right, down] = [column(2) - column(0), line(2) - line(0)];
        if (Math.abs(right) + Math.abs(down) <= most) continue;
        most = Math.abs(right) + Math.abs(down);
        dx[y * width + x] = right;
        dy[y * width + x] = down;
      }
    }
  }
  return { dx, dy };
}
