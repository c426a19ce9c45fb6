// Generations that another client deletes.

import assert from "node:assert/strict";
import { drawn, finished, prompts } from "./acts.mjs";

export const deleted = {
  async play({ server, visit }) {
    await server.start();
    const [fox, frog] = await drawn(server, ["a red fox", "a green frog"]);
    const one = await visit.openPage(server.url);
    const other = await visit.openPage(server.url);
    for (const page of [one, other]) await finished(page, 2);
    await one.hover(".card");
    await one.click(".card .star");
    await other.waitForSelector(`.card[data-id=${frog.id}][data-starred]`);
    for (const { id } of [fox, frog]) assert.equal((await fetch(`${server.url}v1/images/${id}`, { method: "DELETE" })).status, 204);
    for (const page of [one, other]) {
      await page.waitForSelector(`.card[data-id=${fox.id}]`, { state: "detached" });
      // This browser keeps what has a star.
      await page.waitForFunction(() => document.querySelector(".card .expiry").textContent.includes("only this browser has this picture"));
      assert.deepEqual(await prompts(page), ["a green frog"]);
    }
    await visit.accessible(one, "a picture that another client deleted");
  },
};
