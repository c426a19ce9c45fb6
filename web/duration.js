// Texts for lengths of time.

const UNITS = [['day', 86_400], ['h', 3600], ['min', 60], ['s', 1]];

/** Such as `45 s`, `3 min`, `5 h` or `2 days`: a whole number of the largest unit of which there are at least 1.5. */
export function duration(seconds) {
  const [unit, length] = UNITS.find(([, length]) => seconds >= 1.5 * length) ?? UNITS.at(-1);
  const count = Math.max(0, Math.round(seconds / length));
  return `${count} ${unit === 'day' ? 'days' : unit}`;
}
