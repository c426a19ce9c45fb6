// Pictures in a request: `{data_url, width, height}` for a file, `{upload, width, height}` for one that the server has.

import { show, uploadUrl } from './api.js';
import { element } from './element.js';

/** Media types that the server reads. Pictures of other types are converted to PNG. */
const READ = ['image/png', 'image/jpeg', 'image/webp'];
/** Larger files are scaled down to this side, which no generated picture exceeds. */
const MOST_BYTES = 8 * 2 ** 20;
const MOST_SIDE = 2048;

/** The pictures of the field `image`: it is a picture, a list, or undefined. */
export const all = (image) => (image === undefined ? [] : [image].flat());

/** Converts a file into a picture. Rejects with an `Error` whose message is for the user. */
export async function read(file) {
  const image = await decoded(file);
  const { naturalWidth: width, naturalHeight: height } = image;
  if (READ.includes(file.type) && file.size <= MOST_BYTES) return { data_url: await dataUrl(file), width, height };
  const scale = Math.min(1, MOST_SIDE / Math.max(width, height));
  return of(drawn(image, Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale))));
}

/** The picture that a canvas shows. */
export function of(canvas) {
  return { data_url: canvas.toDataURL('image/png'), width: canvas.width, height: canvas.height };
}

/** Loads a picture. Rejects if the server no longer has it. */
export function load(picture) {
  return new Promise((resolve, reject) => {
    const image = element('img', { alt: '' });
    image.addEventListener('load', () => resolve(image), { once: true });
    image.addEventListener('error', () => reject(new Error('The server no longer has this picture.')), { once: true });
    put(image, picture);
  });
}

/** A canvas of a size with an image on white, as the server sees transparent pictures. */
export function drawn(image, width, height) {
  const canvas = element('canvas', { width, height });
  const pen = canvas.getContext('2d');
  pen.fillStyle = 'white';
  pen.fillRect(0, 0, width, height);
  pen.drawImage(image, 0, 0, width, height);
  return canvas;
}

/** A small view of a picture. */
export function thumbnail(label, picture) {
  const size = picture.width ? `${picture.width} × ${picture.height}` : '';
  const image = element('img', { class: 'thumbnail', alt: label, title: size });
  // The server deletes an uploaded picture together with the last generation that uses it.
  image.addEventListener('error', () => image.replaceWith(element('span', { class: 'thumbnail' }, 'deleted')), { once: true });
  put(image, picture);
  return image;
}

function put(image, { data_url: data, upload }) {
  if (data) image.src = data;
  else show(image, uploadUrl(upload));
}

async function decoded(file) {
  const image = element('img', { alt: '', src: URL.createObjectURL(file) });
  try {
    await image.decode();
  } catch {
    throw new Error(`${file.name || 'The file'} is not a picture that this browser can read.`);
  } finally {
    URL.revokeObjectURL(image.src);
  }
  return image;
}

/** The bytes of a file or blob as a data URL. */
function dataUrl(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener('load', () => resolve(reader.result));
    reader.addEventListener('error', () => reject(reader.error));
    reader.readAsDataURL(file);
  });
}
