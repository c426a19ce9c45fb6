// The live picture: it follows the typing.

import assert from "node:assert/strict";
import { until } from "../server.mjs";
import { finished } from "./acts.mjs";

/** Time between two keys: about 60 words a minute. */
const KEY_MS = 120;

export const live = {
  async play({ server, visit, size }) {
    await server.start();
    const page = await visit.openPage(server.url);
    // The most generations that run at the same time, as the server says.
    let most = 0;
    const watching = setInterval(async () => {
      const { own } = await server.json("v1/queue").catch(() => ({ own: { running: 0, queued: 0 } }));
      most = Math.max(most, own.running + own.queued);
    }, 10);
    await page.fill("#prompt", "a");
    await page.click("#live-toggle");
    await page.waitForFunction(() => document.querySelector(".live-image").naturalWidth === 128);
    await visit.accessible(page, "live picture");
    await page.evaluate(() => performance.clearMeasures());
    for (const text of [" red fox on a blue background", " and a cat", ", fluent 3d style"]) {
      await page.locator("#prompt").pressSequentially(text, { delay: KEY_MS });
    }
    const wanted = "a red fox on a blue background and a cat, fluent 3d style";
    await page.waitForFunction((wanted) => document.querySelector(".live-image").alt === wanted, wanted);
    clearInterval(watching);
    const times = await page.evaluate(() => performance.getEntriesByName("latentd.live").map(({ duration }) => duration));
    times.sort((one, other) => one - other);
    const at = (share) => Math.round(times[Math.min(times.length - 1, Math.floor(times.length * share))]);
    console.log(`live picture at ${size.width} pixels: from key stroke to picture p50 ${at(0.5)} ms, p95 ${at(0.95)} ms, ${times.length} pictures of 55 key strokes`);
    assert.match(await page.textContent(".live-note"), /^\d+ ms · 1 step with emoji-lcm$/);
    assert.equal(most, 1, "more than one live picture was computed at the same time");
    // Live pictures are no part of the history, until one is kept.
    await until("the server has deleted the live pictures", async () => (await server.json("v1/images")).data.length === 0);
    assert.equal(await page.locator(".card").count(), 0);
    const bytes = () => page.$eval(".live-image", async (image) => {
      const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
      const pen = canvas.getContext("2d");
      pen.drawImage(image, 0, 0);
      return [...pen.getImageData(0, 0, canvas.width, canvas.height).data].reduce((sum, byte) => (sum * 31 + byte) % 1_000_000_007, 0);
    });
    const seen = await bytes();
    await page.click("text=Keep this picture");
    await finished(page, 1);
    const kept = await page.$eval(".card img.picture", (image) => {
      const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
      const pen = canvas.getContext("2d");
      pen.drawImage(image, 0, 0);
      return [...pen.getImageData(0, 0, canvas.width, canvas.height).data].reduce((sum, byte) => (sum * 31 + byte) % 1_000_000_007, 0);
    });
    assert.equal(kept, seen, "the kept picture is another one");
    await page.click("#live-toggle");
    assert.equal(await page.isVisible(".live-image"), false);
    await visit.accessible(page, "live picture switched off");
  },
};
