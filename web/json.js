// JSON with exact seeds: a seed may be as large as 2^63 − 1, more than a JavaScript number can represent.

/** Parses JSON. A seed that a number cannot represent becomes a BigInt, if the browser provides its digits. */
export function parse(text) {
  return JSON.parse(text, (key, value, token) => {
    const lost = key === 'seed' && typeof value === 'number' && !Number.isSafeInteger(value);
    return lost && token?.source ? BigInt(token.source) : value;
  });
}

/** Converts a value to JSON. A BigInt becomes a JSON integer. */
export function print(value, indent) {
  const raw = (part) => JSON.rawJSON?.(part.toString()) ?? Number(part);
  return JSON.stringify(value, (_, part) => (typeof part === 'bigint' ? raw(part) : part), indent);
}
