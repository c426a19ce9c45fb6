// Pictures that are dropped or pasted, advice against sizes, and the refiner.

import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { SMALL, finished, openSettings } from "./acts.mjs";

const PIPELINES = fileURLToPath(new URL("../../fixtures/parity/pipelines", import.meta.url));

/** Drops or pastes a file on an element, as the event of this name. */
async function bring(page, event, selector, type, buffer) {
  await page.$eval(selector, (target, { event, type, base64 }) => {
    const bytes = Uint8Array.from(atob(base64), (one) => one.charCodeAt(0));
    const data = new DataTransfer();
    data.items.add(new File([bytes], "brought", { type }));
    const Kind = { drop: DragEvent, paste: ClipboardEvent }[event];
    target.dispatchEvent(new Kind(event, { bubbles: true, cancelable: true, dataTransfer: data, clipboardData: data }));
  }, { event, type, base64: buffer.toString("base64") });
}

export const incoming = {
  async play({ server, visit }) {
    await server.start();
    const format = { format: "webp" };
    const made = await server.draw({ ...SMALL, prompt: "a red fox", seed: 7, guidance_scale: 3, output: format });
    const bare = await server.draw({ ...SMALL, prompt: "a frog", seed: 8, output: { ...format, metadata: "none" } });
    const file = async ({ images }) => Buffer.from(await (await fetch(server.url + images[0].url.slice(1))).arrayBuffer());
    const page = await visit.openPage(server.url);
    await finished(page, 2);

    // A picture without settings becomes the input picture: dropped, and pasted in place of the dropped one.
    await bring(page, "drop", "main", "image/webp", await file(bare));
    await page.waitForSelector("#source img.thumbnail");
    assert.match(await page.textContent("#source"), /64 × 64/);
    await visit.accessible(page, "a dropped picture");
    await page.click("[aria-label='Remove the input picture']");
    await bring(page, "paste", "body", "image/webp", await file(bare));
    await page.waitForSelector("#source img.thumbnail");
    await page.click("[aria-label='Remove the input picture']");

    // What is no picture is refused in words.
    await bring(page, "drop", "main", "text/plain", Buffer.from("a text"));
    await page.waitForFunction(() => document.getElementById("toast").textContent === "brought is not a picture.");
    assert.equal(await page.locator("#source img.thumbnail").count(), 0);

    // A picture with settings gives them back.
    await bring(page, "drop", "main", "image/webp", await file(made));
    await page.waitForSelector("#found button");
    await visit.accessible(page, "a dropped picture with its settings");
    await page.click("#found button:has-text('Use its settings')");
    const values = await page.evaluate(() => ["prompt", "seed", "steps", "width", "guidance_scale", "output"].map((id) => document.getElementById(id).value));
    assert.deepEqual(values, ["a red fox", "7", "2", "64", "3", "webp"]);
    await page.click("#form [type=submit]");
    await finished(page, 3);
    const [again] = (await server.json("v1/images?limit=1")).data;
    assert.equal(again.images[0].unsigned_sha256, made.images[0].unsigned_sha256);
  },
};

export const sizes = {
  async play({ server, visit }) {
    await server.start();
    const page = await visit.openPage(server.url);
    await openSettings(page);
    const { default_width: own } = (await server.json("v1/models")).data.find(({ id }) => id === "emoji").capabilities;
    assert.equal(await page.locator("#size-note").isVisible(), false);
    await page.fill("#width", String(own * 2));
    await page.waitForSelector("#size-note:not([hidden])");
    assert.ok((await page.textContent("#size-note")).includes(`made for ${own} × ${own}`));
    await visit.accessible(page, "advice against a size");
    await page.fill("#width", String(own));
    await page.waitForSelector("#size-note", { state: "hidden" });
    assert.equal(await page.inputValue("#height"), String(own));
  },
};

export const refiner = {
  settings: { LATENTD_MODELS__DIR: PIPELINES },
  async play({ server, visit }) {
    await server.start();
    const page = await visit.openPage(server.url);
    await openSettings(page);
    await page.selectOption("#model", "sdxl");
    await page.fill("#prompt", "a red fox");
    for (const [field, value] of Object.entries({ ...SMALL, seed: 1 })) await page.fill(`#${field}`, String(value));
    if (!(await page.locator("#add-ons").evaluate((part) => part.open))) await page.click("#add-ons > summary");
    // The small SDXL of these files takes the place of a refiner.
    await page.selectOption("[id='refiner.model']", "sdxl");
    await page.fill("[id='refiner.switch_at']", "0.5");
    await visit.accessible(page, "a refiner");
    await page.click("#form [type=submit]");
    await finished(page, 1);
    const [{ params }] = (await server.json("v1/images?limit=1")).data;
    assert.deepEqual([params.model, params.refiner.model, params.refiner.switch_at], ["sdxl", "sdxl", 0.5]);
  },
};
