// Class labels of class-conditional models: conversion between form text, request values and captions.

/** The names of a model's classes, by number. A name may be empty or a list of synonyms separated by commas. */
export function names(schema) {
  return schema?.properties.class_label?.['x-classes'] ?? [];
}

/** The request's value for a text of the form: a number, a list with one class per picture, or a name. */
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

/** The form's text for the classes of a request: one class for all pictures, or a list. */
export function text(classes, schema) {
  if (classes === undefined || classes === null) return '';
  const list = [classes].flat();
  if (list.some((one) => one !== list[0])) return JSON.stringify(list);
  return names(schema)[list[0]] || String(list[0]);
}

/** The caption of a generation: its prompt, or the names of its classes. */
export function caption({ prompt, class_label: classes }, schema) {
  if (prompt) return prompt;
  const known = names(schema);
  return [...new Set([classes ?? []].flat())].map((one) => known[one] || `class ${one}`).join(', ');
}
