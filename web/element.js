// Making elements. Texts are set as texts, never as markup, since prompts are anybody's words.

/** `element('p', {class: 'note', hidden: true, onclick}, 'text', child)`. */
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

/** A drawing of `icons.svg`. */
export function icon(name) {
  const space = 'http://www.w3.org/2000/svg';
  const svg = document.createElementNS(space, 'svg');
  svg.setAttribute('aria-hidden', 'true');
  const use = document.createElementNS(space, 'use');
  use.setAttribute('href', `icons.svg#${name}`);
  svg.append(use);
  return svg;
}

/** A button that shows an icon and says `label` to everybody else. */
export function iconButton(name, label, onclick) {
  return element('button', { class: 'icon', type: 'button', 'aria-label': label, title: label, onclick }, icon(name));
}

/** Where the focus goes that has no better place: to what says what is to be seen, or else to the button that draws it. */
export function mainField() {
  const fields = ['#prompt', '#class_label', '#form [type=submit]'].map((query) => document.querySelector(query));
  return fields.find((field) => field.checkVisibility());
}
