// The tabs for films and sounds.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { openSettings } from "./acts.mjs";

const picture = new URL("../../fixtures/parity/inputs/init_64.png", import.meta.url);

async function play({ server, visit, size }) {
  await server.start();
  const page = await visit.openPage(server.url);
  await visit.accessible(page, "tabs of pictures, films and sounds");
  const choose = async (name) => {
    await page.getByRole("tab", { name }).click();
    await page.waitForFunction((name) => document.querySelector("[role=tab][aria-selected=true]").textContent === name, name);
  };
  const model = process.env.PAGE_WALK_SOUNDS ?? "waves";

  await choose("Sound");
  await openSettings(page);
  await page.waitForFunction((model) => document.getElementById("model").value === model, model);
  await page.fill("#prompt", "rain on a tin roof");
  await page.fill("#steps", "1");
  await page.fill("#seconds", "0.2");
  await visit.accessible(page, "the form of sounds");
  await page.click("#form [type=submit]");
  await page.waitForSelector(".card[data-status=succeeded] .wave path");
  await page.locator(".card").scrollIntoViewIfNeeded();
  await visit.accessible(page, "a sound with waveform and spectrogram");

  await choose("Video");
  await page.waitForFunction(() => document.getElementById("frames"));
  await page.fill("#steps", "1");
  await page.fill("#frames", "3");
  await page.click("#form [type=submit]");
  await page.waitForSelector("#image-error:not([hidden])");
  await visit.accessible(page, "a film without its picture");
  const [chooser] = await Promise.all([page.waitForEvent("filechooser"), page.click("#source button")]);
  await chooser.setFiles([{ name: "a.png", mimeType: "image/png", buffer: await readFile(picture) }]);
  await page.waitForSelector("#source img.thumbnail");
  await visit.accessible(page, "the form of films");
  await page.click("#form [type=submit]");
  await page.waitForSelector(".card[data-status=succeeded] video");
  await page.locator(".card").scrollIntoViewIfNeeded();
  await page.waitForFunction(() => document.querySelector(".card video").readyState >= 2);
  await visit.accessible(page, "a film in its player");
  const [film] = (await server.json("v1/videos?limit=1")).data;
  assert.equal(film.params.frames, 3);

  await page.click("#choose");
  await page.click("#choose-all");
  assert.equal(await page.locator("#choose-compare").isVisible(), false);
  await visit.accessible(page, "chosen films");
  assert.equal(await page.evaluate(() => document.getElementById("search").placeholder), "Search the films");
  // Each card is at most as wide as the window.
  assert.ok((await page.locator(".card").boundingBox()).width <= size.width);
}

// The models that `tests/page_walk.rs` makes.
const settings = { LATENTD_MODELS__DIR: process.env.PAGE_WALK_MODELS };

// A film without its picture is refused.
const expected = /status of 422/;

export const filmsAndSounds = { settings, play, expected };
export const filmsAndSoundsInTheDark = { settings, play, expected, colorScheme: "dark" };
