// Waits until an element is near the visible part of the page.

/** How far outside the window an element may be, as a margin of CSS. */
const NEAR = '400px';

/** Calls `act` once, as soon as the element is near the visible part of the page. */
export function whenSeen(element, act) {
  const watcher = new IntersectionObserver((entries) => {
    if (!entries.some(({ isIntersecting }) => isIntersecting)) return;
    watcher.disconnect();
    act();
  }, { rootMargin: NEAR });
  watcher.observe(element);
}
