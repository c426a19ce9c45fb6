// A star keeps everything that draws the picture again, also the pictures that the request started from.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { until } from "../server.mjs";
import { SMALL, finished } from "./acts.mjs";

const input = (name) => {
  const path = new URL(`../../fixtures/parity/inputs/${name}`, import.meta.url);
  return { b64: readFileSync(path).toString("base64") };
};

export const starredSource = {
  settings: { LATENTD_RETENTION__FINISHED_S: "15", LATENTD_RETENTION__SWEEP_INTERVAL_S: "1" },
  expected: /status of 404/,
  async play({ server, visit }) {
    await server.start();
    const first = await server.draw({
      ...SMALL, prompt: "a panda", seed: 5, image: input("init_64.png"), mask: input("mask_64.png"), strength: 0.8,
      controls: [{ model: "emoji-canny", image: input("edges_64.png"), scale: 0.6 }],
    });
    assert.equal(first.status, "succeeded", JSON.stringify(first));
    const page = await visit.openPage(server.url);
    await finished(page, 1);
    await page.hover(".card");
    await page.click(".card .star");
    await page.waitForSelector(".card[data-starred]");
    const { image, mask, controls } = first.params;
    await until("the server has deleted the generation and its uploads", async () => {
      const answers = await Promise.all([image, mask, controls[0].image].map(({ upload }) => fetch(`${server.url}v1/uploads/${upload}`)));
      return (await server.json("v1/images")).data.length === 0 && answers.every(({ status }) => status === 404);
    });
    await page.reload();
    await finished(page, 1);
    await page.click(".card [aria-label='Use these settings']");
    await page.waitForSelector("#source img.thumbnail");
    await visit.accessible(page, "settings that only this browser has");
    await page.click("#form [type=submit]");
    await finished(page, 2);
    const [second] = (await server.json("v1/images?limit=1")).data;
    assert.notEqual(second.id, first.id);
    for (const [name, picture] of Object.entries({ image, mask })) assert.equal(second.params[name].upload, picture.upload, name);
    assert.equal(second.images[0].sha256, first.images[0].sha256, "the same settings make the same bytes");
  },
};
