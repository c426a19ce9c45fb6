// A model that takes several input pictures in an order.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { finished, openSettings } from "./acts.mjs";

const inputs = new URL("../../fixtures/parity/inputs/", import.meta.url);

async function files(...names) {
  return Promise.all(names.map(async (name) => ({ name, mimeType: "image/png", buffer: await readFile(new URL(name, inputs)) })));
}

export const references = {
  // The models that `tests/page_walk.rs` makes.
  settings: { LATENTD_MODELS__DIR: process.env.PAGE_WALK_MODELS },
  async play({ server, visit }) {
    await server.start();
    const page = await visit.openPage(server.url);
    await openSettings(page);
    await page.selectOption("#model", "flux2-klein");
    await page.fill("#prompt", "make it snow");
    await page.fill("#steps", "1");
    await page.click("#more-settings > summary");
    await page.fill("#max_sequence_length", "32");
    await visit.accessible(page, "a model that takes several pictures");

    // The dialog of the browser takes several files at a time.
    const [chooser] = await Promise.all([page.waitForEvent("filechooser"), page.click("#source button")]);
    assert.ok(chooser.isMultiple());
    await chooser.setFiles(await files("init_64.png", "edges_64.png", "init_96x64.png"));
    await page.waitForFunction(() => document.querySelectorAll("#source img.thumbnail").length === 3);
    await visit.accessible(page, "three input pictures");
    await page.click("#source [aria-label='Move input picture 3 up']");
    assert.equal(await page.evaluate(() => document.activeElement.closest(".source-row")?.querySelector("strong").textContent), "Input picture 2");
    await page.click("#source [aria-label='Remove input picture 1']");
    assert.equal(await page.locator("#source img.thumbnail").count(), 2);
    assert.equal(await page.locator("#source .mask-open").count(), 0);

    await page.click("#form [type=submit]");
    await finished(page, 1);
    const [first] = (await server.json("v1/images?limit=1")).data;
    assert.deepEqual(first.params.image.map(({ width, height }) => [width, height]), [[96, 64], [64, 64]]);

    await page.click("#reset");
    assert.equal(await page.locator("#source img.thumbnail").count(), 0);
    await page.click(".card [aria-label='Use these settings']");
    await page.waitForFunction(() => document.querySelectorAll("#source img.thumbnail").length === 2);
    await visit.accessible(page, "reused input pictures");
    await page.click("#form [type=submit]");
    await finished(page, 2);
    const [second] = (await server.json("v1/images?limit=1")).data;
    assert.notEqual(second.id, first.id);
    assert.deepEqual(second.params.image, first.params.image);
    assert.equal(second.images[0].unsigned_sha256, first.images[0].unsigned_sha256);
  },
};
