// Further pictures of a card, and the use of a card by keyboard alone.

import assert from "node:assert/strict";
import { drawn, finished } from "./acts.mjs";

export const variations = {
  async play({ server, visit }) {
    await server.start();
    const [first] = await drawn(server, ["a red fox"]);
    const page = await visit.openPage(server.url);
    await finished(page, 1);
    await visit.accessible(page, "one card");
    await page.click('.card [aria-label="4 more"]');
    await finished(page, 5);
    await visit.accessible(page, "four more");
    const { data } = await server.json("v1/images");
    const { n, seed, prompt, steps, width } = data[0].params;
    assert.deepEqual([n, prompt, steps, width], [4, "a red fox", first.params.steps, 64]);
    assert.notEqual(seed, first.params.seed);
  },
};

export const keyboard = {
  async play({ server, visit }) {
    await server.start();
    await drawn(server, ["a red fox", "a green frog"]);
    const page = await visit.openPage(server.url);
    await finished(page, 2);
    await page.focus(".card");
    await page.keyboard.press("Enter");
    await page.waitForSelector("#large[open]");
    const reach = async (query, key = "Tab") => {
      for (let presses = 0; presses < 60; presses += 1) {
        if (await page.evaluate((query) => document.activeElement?.matches(query), query)) return;
        await page.keyboard.press(key);
      }
      throw new Error(`the keyboard does not reach ${query}`);
    };
    await reach("[data-zoom='2']");
    await page.keyboard.press("Enter");
    assert.equal(await page.getAttribute("[data-zoom='2']", "aria-pressed"), "true");
    await reach("[data-do=compare]");
    await page.keyboard.press("Enter");
    await reach(".stack > input[type=range]");
    await page.keyboard.press("ArrowRight");
    assert.equal(await page.inputValue(".stack > input[type=range]"), "51");
    await page.keyboard.press("Escape");
    await page.waitForSelector(".stage", { state: "detached" });
    await reach(".card .star");
    await page.keyboard.press("Space");
    await page.waitForSelector(".card[data-starred]");
    await reach("#choose", "Shift+Tab");
    await page.keyboard.press("Space");
    await reach(".card .choice input");
    await page.keyboard.press("Space");
    assert.equal(await page.textContent(".count"), "1 selected");
    await visit.accessible(page, "one chosen by keyboard");
  },
};
