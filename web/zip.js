// ZIP files (PKWARE's APPNOTE 6.3) without compression: pictures are compressed already.

const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let sum = byte;
  for (let bit = 0; bit < 8; bit += 1) sum = sum & 1 ? 0xedb88320 ^ (sum >>> 1) : sum >>> 1;
  return sum;
});

/** The CRC-32 of bytes. */
export function crc32(bytes) {
  let sum = ~0;
  for (const byte of bytes) sum = TABLE[(sum ^ byte) & 255] ^ (sum >>> 8);
  return ~sum >>> 0;
}

/**
 * A ZIP file. Files with the same name get a number.
 * @param {{name: string, bytes: Uint8Array, date: Date}[]} files at most 65,535, together less than 4 GiB
 * @returns {Blob}
 */
export function zip(files) {
  const taken = new Set();
  const bodies = [];
  const directory = [];
  let at = 0;
  for (const { name, bytes, date } of files) {
    const title = new TextEncoder().encode(unique(name, taken));
    // Version 2.0, names in UTF-8, stored.
    const fields = [2, 20, 2, 0x0800, 2, 0, 2, time(date), 2, day(date), 4, crc32(bytes), 4, bytes.length, 4, bytes.length, 2, title.length];
    const local = [little([4, 0x04034b50, ...fields, 2, 0]), title, bytes];
    directory.push(little([4, 0x02014b50, 2, 20, ...fields, 2, 0, 2, 0, 2, 0, 2, 0, 4, 0, 4, at]), title);
    bodies.push(...local);
    at += size(local);
  }
  const end = [4, 0x06054b50, 2, 0, 2, 0, 2, files.length, 2, files.length, 4, size(directory), 4, at, 2, 0];
  return new Blob([...bodies, ...directory, little(end)], { type: 'application/zip' });
}

function unique(name, taken) {
  const dot = name.lastIndexOf('.');
  let free = name;
  for (let number = 2; taken.has(free); number += 1) free = `${name.slice(0, dot)}-${number}${name.slice(dot)}`;
  taken.add(free);
  return free;
}

/** Little-endian bytes of `[width, value, width, value, …]`. */
function little(fields) {
  const bytes = [];
  for (let at = 0; at < fields.length; at += 2) {
    for (let byte = 0; byte < fields[at]; byte += 1) bytes.push(Math.floor(fields[at + 1] / 256 ** byte) % 256);
  }
  return Uint8Array.from(bytes);
}

const size = (parts) => parts.reduce((sum, part) => sum + part.length, 0);
const time = (date) => (date.getHours() << 11) | (date.getMinutes() << 5) | (date.getSeconds() >> 1);
const day = (date) => (Math.max(0, date.getFullYear() - 1980) << 9) | ((date.getMonth() + 1) << 5) | date.getDate();
