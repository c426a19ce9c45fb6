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
      // A star protects from the retention, and not from a client that deletes the picture.
      await page.waitForSelector("#empty:not([hidden])");
      assert.deepEqual(await prompts(page), []);
    }
  },
};
