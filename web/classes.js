// The classes of models that draw classes: as the form's text, as the request's value, and in words.

/** The names of a model's classes, by number; a name may be several with commas between them, or empty. */
export function names(schema) {
  return schema?.properties.class_label?.['x-classes'] ?? [];
}

/** What the form's text stands for: a number, a list of one class for each picture, or a name. */
export function value(text) {
  const trimmed = text.trim();
  if (/^\d+$/.test(trimmed)) return Number(trimmed);
  if (!trimmed.startsWith('[')) return trimmed;
  try {
    return JSON.parse(trimmed);
  } catch {
    return trimmed;
  }
}

/** The classes of a request in the form: one for all pictures, or a list. */
export function text(classes, schema) {
  if (classes === undefined || classes === null) return '';
  const list = [classes].flat();
  if (list.some((one) => one !== list[0])) return JSON.stringify(list);
  return names(schema)[list[0]] || String(list[0]);
}

/** What a generation was asked for, in words: its prompt, or its classes. */
export function caption({ prompt, class_label: classes }, schema) {
  if (prompt) return prompt;
  const known = names(schema);
  return [...new Set([classes ?? []].flat())].map((one) => known[one] || `class ${one}`).join(', ');
}
