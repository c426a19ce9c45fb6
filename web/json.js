// JSON whose seeds keep all their digits: a seed may be as large as 2^63 − 1, more than a JavaScript number holds.

/** Parses; a seed that a number cannot hold becomes a BigInt where the browser shows its digits. */
export function parse(text) {
  return JSON.parse(text, (key, value, token) => {
    const lost = key === 'seed' && typeof value === 'number' && !Number.isSafeInteger(value);
    return lost && token?.source ? BigInt(token.source) : value;
  });
}

/** Prints; a BigInt becomes a plain JSON integer. */
export function print(value, indent) {
  const raw = (part) => JSON.rawJSON?.(part.toString()) ?? Number(part);
  return JSON.stringify(value, (_, part) => (typeof part === 'bigint' ? raw(part) : part), indent);
}
