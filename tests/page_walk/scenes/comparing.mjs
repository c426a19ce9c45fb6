// Two pictures with a slider, and zoom.

import assert from "node:assert/strict";
import { drawn, finished } from "./acts.mjs";

export const comparing = {
  async play({ server, visit }) {
    await server.start();
    await drawn(server, ["a red fox", "a green frog", "a blue bird"]);
    const page = await visit.openPage(server.url);
    await finished(page, 3);
    await page.click("#choose");
    const choices = page.locator(".card .choice input");
    await choices.nth(0).check();
    assert.ok(await page.isDisabled("#choose-compare"));
    await choices.nth(2).check();
    await visit.accessible(page, "two chosen");
    await page.click("#choose-compare");
    await page.waitForFunction(() => [...document.querySelectorAll(".stage img")].every((image) => image.naturalWidth === 64));
    await visit.accessible(page, "two pictures with a slider");
    const alts = await page.$$eval(".stage img", (images) => images.map((image) => image.alt));
    assert.ok(alts[0].startsWith("a red fox") && alts[1].startsWith("a blue bird"), alts.join());
    const covered = () => page.$eval(".stage .over", (image) => image.style.clipPath);
    assert.equal(await covered(), "inset(0px 50% 0px 0px)");
    await page.focus(".stack > input[type=range]");
    await page.keyboard.press("End");
    assert.equal(await covered(), "inset(0px 0% 0px 0px)");
    // The pointer moves the border, too.
    const box = await page.locator(".stage").boundingBox();
    await page.mouse.move(box.x + box.width / 4, box.y + box.height / 2);
    await page.mouse.down();
    await page.mouse.up();
    assert.equal(await page.inputValue(".stack > input[type=range]"), "25");
    await page.selectOption("[aria-label='Right picture']", { index: 2 });
    await page.waitForFunction(() => document.querySelector(".stage .under").alt.startsWith("a green frog"));
    for (const level of ["1", "2"]) {
      await page.click(`.compare-zoom [data-zoom='${level}']`);
      assert.equal((await page.locator(".stage").boundingBox()).width, 64 * Number(level));
    }
    await visit.accessible(page, "comparison at twice the size");
  },
};

export const zoom = {
  colorScheme: "dark",
  async play({ server, visit, size }) {
    await server.start();
    await server.draw({ prompt: "a red fox", steps: 1, width: 512, height: 512, seed: 1 });
    const page = await visit.openPage(server.url);
    await finished(page, 1);
    await page.click(".card .tile");
    await page.waitForFunction(() => document.getElementById("large-image").naturalWidth === 512);
    const width = async () => Math.round((await page.locator("#large-image").boundingBox()).width);
    assert.ok((await width()) <= size.width);
    await visit.accessible(page, "large view");
    await page.click("#large [data-zoom='1']");
    assert.equal(await width(), 512);
    await page.click("#large [data-zoom='2']");
    assert.equal(await width(), 1024);
    await visit.accessible(page, "large view at twice the size");
    // What does not fit scrolls inside the view, with the keyboard as well.
    await page.focus("#large-frame");
    await page.keyboard.press("ArrowDown");
    await page.keyboard.press("ArrowRight");
    await page.waitForFunction(() => document.getElementById("large-frame").scrollLeft > 0 || document.getElementById("large-frame").scrollTop > 0);
    await page.click("#large [data-zoom='fit']");
    assert.ok((await width()) <= size.width);
  },
};
