// Reads the request that latentd stores in its picture files, or the settings of other tools.

import { infotext } from './infotext.js';
import { parse } from './json.js';

/** The names of the PNG texts with latentd's request and with the settings of other tools. */
const OWN = 'latentd';
const OTHER = 'parameters';
/** The XMP property with latentd's request in JPEG and WebP files. */
const PROPERTY = 'latentd:request';

/**
 * How a picture file was made.
 * @param {File} file
 * @param {(name: string) => boolean} hasModel whether the server has a model
 * @returns {Promise<{request: object, unused: string[]} | null>} `unused` names settings that are not in the request;
 *   null if the file has no settings
 */
export async function recipe(file, hasModel) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const texts = isPng(bytes) ? pngTexts(bytes) : { [OWN]: xmpText(bytes) };
  const request = object(texts[OWN]);
  if (request) return { request, unused: [] };
  return texts[OTHER] ? infotext(texts[OTHER], hasModel) : null;
}

function object(json) {
  try {
    const value = parse(json ?? 'null');
    return typeof value === 'object' && !Array.isArray(value) ? value : null;
  } catch {
    return null;
  }
}

function isPng(bytes) {
  return [137, 80, 78, 71, 13, 10, 26, 10].every((byte, at) => bytes[at] === byte);
}

/** The uncompressed texts of a PNG file by their names: Latin-1 in tEXt chunks, UTF-8 in iTXt chunks. */
function pngTexts(bytes) {
  const texts = {};
  const view = new DataView(bytes.buffer);
  for (let at = 8; at + 12 <= bytes.length;) {
    const length = view.getUint32(at);
    const kind = latin(bytes.subarray(at + 4, at + 8));
    const data = bytes.subarray(at + 8, at + 8 + length);
    const name = latin(data.subarray(0, Math.min(79, Math.max(0, data.indexOf(0)))));
    if (kind === 'tEXt') texts[name] = latin(data.subarray(name.length + 1));
    // Between the name and the text: compression, language, translated name.
    if (kind === 'iTXt' && data[name.length + 1] === 0) {
      const language = data.indexOf(0, name.length + 3);
      texts[name] = new TextDecoder().decode(data.subarray(data.indexOf(0, language + 1) + 1));
    }
    at += 12 + length;
  }
  return texts;
}

function xmpText(bytes) {
  const text = new TextDecoder().decode(bytes);
  const start = text.indexOf(`<${PROPERTY}>`);
  const end = text.indexOf(`</${PROPERTY}>`, start);
  if (start < 0 || end < 0) return null;
  const escaped = text.slice(start + PROPERTY.length + 2, end);
  return escaped.replaceAll('&lt;', '<').replaceAll('&gt;', '>').replaceAll('&quot;', '"').replaceAll('&amp;', '&');
}

function latin(bytes) {
  return new TextDecoder('latin1').decode(bytes);
}
