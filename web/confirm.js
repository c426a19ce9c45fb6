// A button that acts on its second press within a few seconds.

/** Time for the second press. */
const CONFIRM_MS = 4000;

/**
 * Makes a button ask for a second press.
 * @param {HTMLButtonElement} button
 * @param {{act(): void, announce(text: string): void, show(asks: boolean): void}} page `show` changes the button's text
 */
export function confirmed(button, { act, announce, show }) {
  let timer;
  const rest = () => {
    clearTimeout(timer);
    button.classList.remove('sure');
    show(false);
  };
  button.addEventListener('click', () => {
    if (button.classList.contains('sure')) {
      rest();
      act();
      return;
    }
    button.classList.add('sure');
    show(true);
    announce('Press again to delete.');
    timer = setTimeout(rest, CONFIRM_MS);
  });
  return button;
}
