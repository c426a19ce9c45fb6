// Steps that several scenes share.

export const SMALL = { steps: 2, width: 64, height: 64 };

/** Draws pictures of these prompts before the page is opened; the last one is the newest. */
export async function drawn(server, prompts) {
  const generations = [];
  for (const [seed, prompt] of prompts.entries()) generations.push(await server.draw({ ...SMALL, prompt, seed }));
  return generations;
}

/** Waits for a number of finished cards with their pictures. */
export function finished(page, count) {
  return page.waitForFunction((count) => {
    // Pictures outside the window load when the user scrolls to them.
    document.querySelector(".card[data-status=succeeded] img.picture:not(.there)")?.scrollIntoView();
    return document.querySelectorAll(".card[data-status=succeeded] img.picture.there").length >= count;
  }, count);
}

export const shownCards = (page) => page.locator(".card:not([hidden])");

/** The prompts of the cards that are seen, newest first. */
export const prompts = (page) => page.$$eval(".card:not([hidden])", (cards) => cards.map((card) => card.getAttribute("aria-label")));

/** Opens the settings if they are closed, as on a phone. */
export async function openSettings(page) {
  if (!(await page.locator("#settings").evaluate((settings) => settings.open))) await page.locator("#settings > summary").click();
}
