// Ids of generations that the page chooses: `img_` and a UUID of version 7 in Crockford's base 32.

const DIGITS = '0123456789abcdefghjkmnpqrstvwxyz';

export function newId(now = Date.now()) {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  for (let at = 0; at < 6; at += 1) bytes[at] = Math.floor(now / 2 ** (8 * (5 - at))) % 256;
  bytes[6] = 0x70 | (bytes[6] & 0x0f);
  bytes[8] = 0x80 | (bytes[8] & 0x3f);
  let number = bytes.reduce((sum, byte) => sum * 256n + BigInt(byte), 0n);
  let text = '';
  for (let at = 0; at < 26; at += 1) {
    text = DIGITS[Number(number % 32n)] + text;
    number /= 32n;
  }
  return `img_${text}`;
}
