// A dialog with a title, a button that closes it, and any content.

import { element, iconButton } from './element.js';

let made = 0;

/**
 * Opens a dialog, which is removed when it is closed. The focus returns to where it was.
 * @param {string} title
 * @param {HTMLElement} content
 * @returns {HTMLDialogElement}
 */
export function openDialog(title, content, { narrow = false, closed = () => {} } = {}) {
  const id = `dialog-${made += 1}`;
  const before = document.activeElement;
  const dialog = element(
    'dialog', { class: narrow ? 'sheet narrow' : 'sheet', 'aria-labelledby': id },
    element('div', { class: 'sheet-bar' }, element('h2', { id }, title), iconButton('close', 'Close', () => dialog.close())),
    content,
  );
  dialog.addEventListener('click', (event) => event.target === dialog && dialog.close());
  dialog.addEventListener('close', () => {
    // The toast may have moved into the dialog.
    const toast = dialog.querySelector('#toast');
    if (toast) document.body.append(toast);
    dialog.remove();
    if (before?.isConnected) before.focus();
    closed();
  });
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}
