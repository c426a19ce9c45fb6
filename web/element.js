// Creates elements of the page. Texts are never parsed as HTML, because prompts may contain anything.

/** Creates an element: `element('p', {class: 'note', hidden: true, onclick}, 'text', child)`. */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith('on')) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, '');
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

/** An icon of `icons.svg`. */
export function icon(name) {
  const space = 'http://www.w3.org/2000/svg';
  const svg = document.createElementNS(space, 'svg');
  svg.setAttribute('aria-hidden', 'true');
  const use = document.createElementNS(space, 'use');
  use.setAttribute('href', `icons.svg#${name}`);
  svg.append(use);
  return svg;
}

/** A button with an icon. `label` is its tooltip and its name for screen readers. */
export function iconButton(name, label, onclick) {
  return element('button', { class: 'icon', type: 'button', 'aria-label': label, title: label, ...(onclick ? { onclick } : {}) }, icon(name));
}

/** The default target of the focus: the visible field that describes the picture, or otherwise the submit button. */
export function mainField() {
  const fields = ['#prompt', '#class_label', '#form [type=submit]'].map((query) => document.querySelector(query));
  return fields.find((field) => field.checkVisibility());
}
