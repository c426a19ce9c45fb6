// The server is killed while it draws, and started again.

import assert from "node:assert/strict";
import { finished, openSettings } from "./acts.mjs";

export const restart = {
  expected: /ERR_CONNECTION_REFUSED|ERR_CONNECTION_RESET|ERR_INCOMPLETE_CHUNKED_ENCODING|ERR_EMPTY_RESPONSE|ERR_SOCKET_NOT_CONNECTED/,
  async play({ server, visit }) {
    await server.start();
    const page = await visit.openPage(server.url);
    await page.fill("#prompt", "a red fox");
    await openSettings(page);
    await page.fill("#steps", "100");
    await page.locator("#form [type=submit]").click();
    await page.waitForFunction(() => document.querySelector(".card[data-status=running] progress")?.value > 0);
    await visit.accessible(page, "running");
    await server.kill();
    await page.waitForSelector("#offline:not([hidden])");
    await visit.accessible(page, "the server is away");
    await server.start();
    await page.waitForSelector("#offline", { state: "hidden" });
    await finished(page, 1);
    const { data } = await server.json("v1/images");
    assert.deepEqual(data.map(({ status }) => status), ["succeeded"]);
    assert.equal(await page.locator(".card").count(), 1);
  },
};
