// Input pictures, masks, add-ons, and pictures that give their settings back.

import assert from "node:assert/strict";
import { finished, openSettings } from "./acts.mjs";

/** The newest generation that the page has finished. */
async function newest(server, page, count) {
  await finished(page, count);
  return (await server.json("v1/images?limit=1")).data[0];
}

async function bytes(server, path) {
  return Buffer.from(await (await fetch(server.url + path)).arrayBuffer());
}

/** Chooses a file as a user does: the button opens the dialog of the browser. */
async function choose(page, button, file) {
  const [chooser] = await Promise.all([page.waitForEvent("filechooser"), page.click(button)]);
  await chooser.setFiles(file);
}

/** Sets the size and the number of steps, so that the pictures are drawn at once. */
async function small(page) {
  await openSettings(page);
  for (const [field, value] of [["steps", 2], ["width", 64], ["height", 64]]) await page.fill(`#${field}`, String(value));
}

export const mask = {
  async play({ server, visit, size }) {
    await server.start();
    await server.draw({ prompt: "a red fox", steps: 2, width: 64, height: 64, seed: 1 });
    const page = await visit.openPage(server.url);
    await finished(page, 1);
    await page.click(".card [aria-label='Use as source']");
    await page.waitForSelector("#source img.thumbnail");
    await visit.accessible(page, "an input picture");
    await page.fill("#strength", "0.6");
    await page.click(".mask-open");
    await page.waitForSelector(".easel");
    assert.equal(await page.evaluate(() => document.activeElement.className), "easel");
    const box = await page.locator(".easel").boundingBox();
    const place = (x, y) => [box.x + box.width * x, box.y + box.height * y];
    if (size.phone) await page.touchscreen.tap(...place(0.25, 0.25));
    else {
      await page.mouse.move(...place(0.2, 0.25));
      await page.mouse.down();
      await page.mouse.move(...place(0.3, 0.25), { steps: 4 });
      await page.mouse.up();
    }
    // A line with the keys, which is undone, and inversion twice.
    for (const key of [" ", "ArrowRight", "ArrowRight", " ", "Control+z"]) await page.keyboard.press(key);
    for (let times = 0; times < 2; times += 1) await page.click("dialog button:has-text('Invert')");
    await visit.accessible(page, "a painted mask");
    await page.click("dialog .primary");
    await page.fill("#mask_blur", "1");
    await page.fill("#padding_mask_crop", "8");
    await visit.accessible(page, "an input picture with a mask");
    await page.fill("#prompt", "a panda");
    await page.click("#form [type=submit]");
    const { params } = await newest(server, page, 2);
    assert.deepEqual([params.strength, params.mask_blur, params.padding_mask_crop], [0.6, 1, 8]);
    assert.equal(params.image.width, 64);
    // The mask is white at the painted place alone.
    const levels = await page.evaluate(async (upload) => {
      const image = new Image();
      image.src = `v1/uploads/${upload}`;
      await image.decode();
      const canvas = new OffscreenCanvas(64, 64);
      canvas.getContext("2d").drawImage(image, 0, 0);
      return [[16, 16], [32, 32], [2, 2]].map(([x, y]) => canvas.getContext("2d").getImageData(x, y, 1, 1).data[0]);
    }, params.mask.upload);
    assert.deepEqual(levels, [255, 0, 0]);
  },
};

export const reuse = {
  async play({ server, visit }) {
    await server.start();
    const source = await server.draw({ prompt: "a red fox", steps: 2, width: 64, height: 64, seed: 1 });
    const file = { name: "fox.png", mimeType: "image/png", buffer: await bytes(server, source.images[0].url.slice(1)) };
    const page = await visit.openPage(server.url);
    await finished(page, 1);

    // The picture contains its settings, so the page asks what it is for.
    await choose(page, "#source button", file);
    await page.waitForSelector("#found button");
    await visit.accessible(page, "a picture with its settings");
    await page.click("#found button:has-text('Start from it')");
    await page.waitForSelector("#source img.thumbnail");
    await small(page);
    await page.click("#add-ons > summary");
    await page.click("#words .chip");
    assert.equal((await page.inputValue("#prompt")).trim(), "<teal>");
    await page.fill("#prompt", "a <teal> panda");
    await page.click("#loras");
    await page.fill("[id='loras.0.scale']", "0.5");
    await page.click("#controls");
    await page.waitForFunction(() => document.querySelector(".hint canvas")?.getAttribute("aria-label").includes("edges"));
    await page.fill("[id='controls.0.scale']", "0.7");
    await visit.accessible(page, "LoRA and ControlNet");
    await page.click("#form [type=submit]");
    const first = await newest(server, page, 2);
    const { params } = first;
    assert.deepEqual([params.loras[0].scale, params.controls[0].scale, params.controls[0].preprocess], [0.5, 0.7, "canny"]);

    // The card gives all of it back after a reset, also on a phone.
    await page.click("#reset");
    assert.equal(await page.locator("#extras li, #source img.thumbnail").count(), 0);
    await page.click(".card [aria-label='Use these settings']");
    assert.deepEqual(await page.$$eval("#extras li", (items) => items.map((item) => item.dataset.extra).sort()), ["controls", "loras"]);
    await visit.accessible(page, "reused settings");
    await page.click("#form [type=submit]");
    const second = await newest(server, page, 3);
    assert.notEqual(first.id, second.id);
    assert.equal(second.images[0].unsigned_sha256, first.images[0].unsigned_sha256, "the same settings make the same bytes");
  },
};

export const fields = {
  async play({ server, visit }) {
    await server.start();
    const page = await visit.openPage(server.url);
    await page.fill("#prompt", "a red fox");
    await small(page);
    await page.click("#more-settings > summary");
    await visit.accessible(page, "all fields");
    const wrong = { sigmas: "3, two", run_timeout_s: "0", "feature_cache.interval": "99", "output.quality": "300" };
    for (const [field, value] of Object.entries(wrong)) await page.fill(`[id='${field}']`, value);
    await page.click("#form [type=submit]");
    await page.waitForSelector("#form [aria-invalid]");
    await visit.accessible(page, "errors at fields");
    const marked = await page.$$eval("#form [aria-invalid]", (controls) => controls.map(({ id }) => id).sort());
    assert.deepEqual(marked, Object.keys(wrong).sort());
    while ((await page.locator("#extras li").count()) > 0) await page.locator("#extras li button").first().click();
    await page.fill("#clip_skip", "1");
    await page.fill("#metadata", "album: animals");
    await page.selectOption("#decoder", "tiny");
    await page.click("#form [type=submit]");
    const generation = await newest(server, page, 1);
    assert.deepEqual([generation.params.clip_skip, generation.params.decoder, generation.metadata], [1, "tiny", { album: "animals" }]);
  },
  // The server refuses the first request.
  expected: /status of 422/,
};
