// The entry of an API key, with pictures by fetch and by signed URLs.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { until } from "../server.mjs";
import { SMALL, finished, openSettings, prompts } from "./acts.mjs";

const REFUSED = /status of 401/;

async function enter({ server, visit }) {
  const key = server.createKey("studio");
  await server.start();
  const page = await visit.open(server.url);
  await page.waitForSelector("#key-field");
  await visit.accessible(page, "a key is wanted");
  await page.fill("#key-field", "ltd_wrong");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.getElementById("key-said")?.textContent === "The server does not accept this key.");
  await page.fill("#key-field", key);
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.getElementById("model").options.length > 0);
  await page.fill("#prompt", "a red fox");
  await page.locator("#form [type=submit]").click();
  await finished(page, 1);
  await page.waitForFunction(() => document.querySelector(".card img.picture").naturalWidth === 128);
  await visit.accessible(page, "with a key");
  // The key is kept for this tab, and not elsewhere.
  await page.reload();
  await finished(page, 1);
  assert.equal(await page.evaluate((key) => JSON.stringify({ ...localStorage }).includes(key) || document.cookie.includes(key), key), false);
  return { page, key };
}

export const keyEntry = {
  settings: { LATENTD_AUTH__REQUIRED: "true" },
  expected: REFUSED,
  async play(stage) {
    const { page, key } = await enter(stage);
    const source = await page.$eval(".card img.picture", (image) => image.src);
    // A single server has a secret of its own. Uploads have no signed URLs: the page fetches them with the key.
    assert.match(source, /\/content\/0\S*[?&]sig=/);
    await page.click(".card [aria-label='Use as source']");
    await page.waitForSelector("#source img.thumbnail");
    await page.click("#form [type=submit]");
    await finished(page, 2);
    await page.click("[aria-label='Remove the input picture']");
    await page.click(".card [aria-label='Use these settings']");
    await page.waitForFunction(() => document.querySelector("#source img.thumbnail")?.src.startsWith("blob:"));
    await page.waitForFunction(() => document.querySelector("#source img.thumbnail").naturalWidth > 0);
    await page.click("[aria-label='Remove the input picture']");
    const { data } = await stage.server.json("v1/images", { headers: { Authorization: `Bearer ${key}` } });
    assert.equal(data.length, 2);
    await openSettings(page);
    // A copied command reads the key from the environment, wherever it is copied.
    for (const button of ["#copy-request", ".card [aria-label='Copy as curl']"]) {
      await page.click(button);
      const command = await page.evaluate(() => navigator.clipboard.readText());
      assert.ok(command.startsWith('curl -f -H "Authorization: Bearer $LATENTD_KEY" -o '), command);
      const folder = mkdtempSync(join(tmpdir(), "page-walk-key-"));
      execFileSync("sh", ["-c", command], { cwd: folder, env: { ...process.env, LATENTD_KEY: key }, stdio: "ignore" });
      assert.equal(readdirSync(folder).length, 1);
      rmSync(folder, { recursive: true });
    }
    const stranger = await stage.visit.open(stage.server.url);
    await stranger.waitForSelector("#key-field");
  },
};

/** Where no key is required, a tenant enters one all the same, and sees other pictures than those without a key. */
export const optionalKey = {
  async play({ server, visit }) {
    const key = server.createKey("studio");
    await server.start();
    await server.draw({ ...SMALL, prompt: "a public fox", seed: 1 });
    await server.draw({ ...SMALL, prompt: "a frog of the studio", seed: 2 }, { Authorization: `Bearer ${key}` });
    const page = await visit.openPage(server.url);
    await finished(page, 1);
    assert.deepEqual(await prompts(page), ["a public fox"]);
    await page.click("#key-open");
    await visit.accessible(page, "a key may be entered");
    await page.fill("#key-field", key);
    await page.keyboard.press("Enter");
    await page.waitForSelector(".card[aria-label='a frog of the studio']");
    await finished(page, 1);
    assert.deepEqual(await prompts(page), ["a frog of the studio"]);
    // URLs are not signed where no key is required, so the page fetches the picture with the key.
    assert.ok((await page.$eval(".card img.picture", (image) => image.src)).startsWith("blob:"));
    await page.click("#key-open");
    await page.click("dialog button:has-text('Forget the key')");
    await page.waitForSelector(".card[aria-label='a public fox']");
    assert.deepEqual(await prompts(page), ["a public fox"]);
  },
};

/** Answers for the key before are not shown, although they arrive after the key has been changed. */
export const changedKey = {
  async play({ server, visit }) {
    const key = server.createKey("studio");
    await server.start();
    await server.draw({ ...SMALL, prompt: "a public fox", seed: 1 });
    await server.draw({ ...SMALL, prompt: "a frog of the studio", seed: 2 }, { Authorization: `Bearer ${key}` });
    // Holds back all lists that are read without a key.
    const late = [];
    let held = 0;
    let release;
    const released = new Promise((resolve) => { release = resolve; });
    await visit.context.route(/\/v1\/images\?/, async (route) => {
      const response = await route.fetch();
      if (route.request().headers().authorization) return route.fulfill({ response });
      held += 1;
      late.push(released.then(() => route.fulfill({ response })));
    });
    const page = await visit.openPage(server.url);
    await until("the lists are read", () => held >= 3);
    await page.click("#key-open");
    await page.fill("#key-field", key);
    await page.keyboard.press("Enter");
    await finished(page, 1);
    assert.deepEqual(await prompts(page), ["a frog of the studio"]);
    release();
    await Promise.all(late);
    await page.waitForTimeout(500);
    assert.deepEqual(await prompts(page), ["a frog of the studio"]);
    assert.equal(await page.isVisible("#offline"), false, "the server answers");
  },
};

export const signedKey = {
  settings: { LATENTD_AUTH__REQUIRED: "true", LATENTD_HTTP__URL_SECRET: "a secret of this test, long enough" },
  expected: REFUSED,
  async play(stage) {
    const { page } = await enter(stage);
    const source = await page.$eval(".card img.picture", (image) => image.src);
    assert.match(source, /\/content\/0\S*[?&]sig=/);
  },
};
