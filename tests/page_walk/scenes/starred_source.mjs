// A star keeps everything that draws the picture again, also the pictures that its request started from.

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
  async play({ server, visit }) {
    await server.start();
    const first = await server.draw({
      ...SMALL, prompt: "a panda", seed: 5, image: input("init_64.png"), mask: input("mask_64.png"), strength: 0.8,
      controls: [{ model: "emoji-canny", image: input("edges_64.png"), scale: 0.6 }],
    });
    assert.equal(first.status, "succeeded", JSON.stringify(first));
    await server.draw({ ...SMALL, prompt: "a fox" });
    const page = await visit.openPage(server.url);
    await finished(page, 2);
    await page.hover(`.card[data-id=${first.id}]`);
    await page.click(`.card[data-id=${first.id}] .star`);
    await page.waitForSelector(`.card[data-id=${first.id}][data-starred]`);
    await until("the server has deleted the other generation", async () => (await server.json("v1/images")).data.length === 1);
    const { image, mask, controls } = first.params;
    for (const { upload } of [image, mask, controls[0].image]) {
      assert.equal((await fetch(`${server.url}v1/uploads/${upload}`)).status, 200);
    }
    await page.reload();
    await finished(page, 1);
    await page.click(".card [aria-label='Use these settings']");
    await page.waitForSelector("#source img.thumbnail");
    await visit.accessible(page, "settings of a picture with a star");
    await page.click("#form [type=submit]");
    await finished(page, 2);
    const [second] = (await server.json("v1/images?limit=1")).data;
    assert.notEqual(second.id, first.id);
    for (const [name, picture] of Object.entries({ image, mask })) assert.equal(second.params[name].upload, picture.upload, name);
    assert.equal(second.images[0].unsigned_sha256, first.images[0].unsigned_sha256, "the same settings make the same bytes");
  },
};
