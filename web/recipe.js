// Reads the request that latentd stores in its picture files.

import { parse } from './json.js';

/** The name of the PNG text with the request, and the XMP property in JPEG and WebP files. */
const KEYWORD = 'latentd';
const PROPERTY = 'latentd:request';

/** The request that made a picture file; null if the file has none. */
export async function recipe(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const text = isPng(bytes) ? pngText(bytes) : xmpText(bytes);
  try {
    const request = parse(text ?? 'null');
    return typeof request === 'object' && !Array.isArray(request) ? request : null;
  } catch {
    return null;
  }
}

function isPng(bytes) {
  return [137, 80, 78, 71, 13, 10, 26, 10].every((byte, at) => bytes[at] === byte);
}

/** The text of the iTXt chunk with the keyword. latentd writes it uncompressed, without a language. */
function pngText(bytes) {
  const view = new DataView(bytes.buffer);
  for (let at = 8; at + 12 <= bytes.length;) {
    const length = view.getUint32(at);
    if (at + 12 + length > bytes.length) return null;
    const data = bytes.subarray(at + 8, at + 8 + length);
    if (latin(bytes.subarray(at + 4, at + 8)) === 'iTXt') {
      const head = latin(data.subarray(0, KEYWORD.length + 5));
      if (head === `${KEYWORD}\0\0\0\0\0`) return new TextDecoder().decode(data.subarray(head.length));
    }
    at += 12 + length;
  }
  return null;
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
  return String.fromCharCode(...bytes);
}
