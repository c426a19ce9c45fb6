// Search, stars, selection, failures, several tabs.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { until } from "../server.mjs";
import { SMALL, drawn, finished, prompts } from "./acts.mjs";

export const history = {
  async play({ server, visit }) {
    await server.start();
    // More than a page of the list, so that the search has to load older ones.
    await drawn(server, ["a red fox", ...Array.from({ length: 30 }, (_, number) => `a cat ${number}`), "a green frog"]);
    const page = await visit.openPage(server.url);
    await finished(page, 1);
    assert.match(await page.textContent("#history .note"), /deletes pictures 24 h after/);
    assert.match(await page.textContent(".card .expiry"), /Expires in 24 h/);
    await page.fill("#search", "fox");
    await page.waitForFunction(() => document.querySelector("#history .note").textContent.startsWith("1 of 32 found"));
    assert.deepEqual(await prompts(page), ["a red fox"]);
    await visit.accessible(page, "search");
    await page.fill("#search", "nothing at all");
    await page.waitForFunction(() => document.querySelector("#history .note").textContent.startsWith("0 of 32 found"));
    await page.fill("#search", "");
    await page.waitForFunction(() => document.querySelectorAll(".card:not([hidden])").length === 32);
  },
};

/** More pictures than a search loads at once: the page says so and goes on. The list is made up, because drawing takes too long. */
export const longHistory = {
  async play({ server, visit }) {
    await server.start();
    const [one] = await drawn(server, ["a red fox"]);
    const all = Array.from({ length: 2150 }, (_, number) => {
      const prompt = number === 2120 ? "a green frog" : `a cat ${number}`;
      // Ids sort by age, the newest first.
      const id = `img_01${String(9_999_999 - number).padStart(24, "0")}`;
      return { ...one, id, status: "canceled", images: [], expires_at: null, params: { ...one.params, prompt } };
    });
    await visit.context.route(/\/v1\/images\?/, (route) => {
      const query = new URL(route.request().url()).searchParams;
      const after = query.get("after");
      const from = after ? all.findIndex(({ id }) => id === after) + 1 : 0;
      const data = query.has("status") ? [] : all.slice(from, from + Number(query.get("limit")));
      return route.fulfill({ json: { object: "list", data, first_id: data[0]?.id ?? null, last_id: data.at(-1)?.id ?? null, has_more: data.length > 0 && data.at(-1) !== all.at(-1) } });
    });
    const page = await visit.openPage(server.url);
    await page.waitForSelector(".card");
    await page.fill("#search", "green frog");
    await page.waitForSelector("#search-on:not([hidden])");
    assert.match(await page.textContent("#history .note"), /^0 of 20\d\d found\. Older pictures are not searched yet\.$/);
    await visit.accessible(page, "a search that has not seen everything");
    await page.click("#search-on");
    await page.waitForFunction(() => document.querySelector("#history .note").textContent.startsWith("1 of 2150 found"));
    assert.deepEqual(await prompts(page), ["a green frog"]);
    assert.equal(await page.isVisible("#search-on"), false);
    assert.equal(await page.evaluate(() => document.activeElement.id), "search");
  },
};

export const stars = {
  settings: { LATENTD_RETENTION__FINISHED_S: "20", LATENTD_RETENTION__SWEEP_INTERVAL_S: "1", LATENTD_RETENTION__MAX_STARRED: "1" },
  // A second star is more than the server allows.
  expected: /status of 409/,
  async play({ server, visit }) {
    await server.start();
    const [fox, frog] = await drawn(server, ["a red fox", "a green frog"]);
    const page = await visit.openPage(server.url);
    await finished(page, 2);
    for (const { id } of [fox, frog]) {
      await page.hover(`.card[data-id=${id}]`);
      await page.click(`.card[data-id=${id}] .star`);
      await page.waitForSelector(`.card[data-id=${fox.id}][data-starred]`);
    }
    await page.waitForFunction(() => document.querySelector("#toast.seen")?.textContent.startsWith("1 of your generations have stars"));
    assert.equal(await page.locator(".card[data-starred]").count(), 1);
    assert.match(await page.textContent(`.card[data-id=${fox.id}] .expiry`), /the server keeps this picture/);
    await visit.accessible(page, "a star");
    await until("the server has deleted the other one", async () => (await server.json("v1/images")).data.length === 1);
    await page.reload();
    await page.waitForFunction(() => document.querySelector(".card img.picture")?.naturalWidth === 64);
    assert.deepEqual(await prompts(page), ["a red fox"]);
    await page.selectOption("#filter", "starred");
    assert.deepEqual(await prompts(page), ["a red fox"]);
    await visit.accessible(page, "the pictures with stars");
    // Without the star, the retention begins again.
    await page.click(".card .star");
    await page.waitForSelector(".card[hidden]", { state: "attached" });
    assert.equal(await page.evaluate(() => document.activeElement.id), "filter");
    await page.selectOption("#filter", "all");
    assert.match(await page.textContent(".card .expiry"), /Expires in/);
    await until("the server has deleted it", async () => (await server.json("v1/images")).data.length === 0);
    await page.reload();
    await page.waitForSelector("#empty:not([hidden])");
  },
};

export const oldStars = {
  async play({ server, visit }) {
    await server.start();
    // More than a page of the list, so that the filter has to load older ones.
    const all = await drawn(server, ["a red fox", ...Array.from({ length: 26 }, (_, number) => `a cat ${number}`)]);
    await server.star(all[0].id);
    await server.star(all[20].id);
    const page = await visit.openPage(server.url);
    await finished(page, 1);
    await page.waitForSelector(`.card[data-id=${all[20].id}][data-starred]`);
    assert.equal(await page.locator(`.card[data-id=${all[0].id}]`).count(), 0);
    await page.selectOption("#filter", "starred");
    await page.waitForSelector(`.card[data-id=${all[0].id}]`);
    assert.deepEqual(await prompts(page), ["a cat 19", "a red fox"]);
  },
};

export const bulk = {
  async play({ server, visit }) {
    await server.start();
    const generations = await drawn(server, ["a red fox", "a green frog", "a blue bird"]);
    const page = await visit.openPage(server.url);
    await finished(page, 3);
    await page.click("#choose");
    await page.click("#choose-all");
    const download = page.waitForEvent("download");
    await page.click("#choose-zip");
    const file = await (await download).path();
    const listed = execFileSync("python3", ["-c", "import hashlib, sys, zipfile\nz = zipfile.ZipFile(sys.argv[1])\nassert z.testzip() is None\nprint(*sorted(f'{n} {hashlib.sha256(z.read(n)).hexdigest()}' for n in z.namelist()), sep='\\n')", file]);
    const expected = ["a-blue-bird-2", "a-green-frog-1", "a-red-fox-0"].map((name, at) => `${name}.png ${generations[2 - at].images[0].sha256}`);
    assert.deepEqual(listed.toString().trim().split("\n"), expected);
    await page.locator(".card .choice input").nth(1).uncheck();
    await page.click("#choose-erase");
    assert.equal(await page.textContent("#choose-erase"), "Press again to delete");
    await visit.accessible(page, "about to delete");
    await page.click("#choose-erase");
    await page.waitForFunction(() => document.querySelectorAll(".card").length === 1);
    assert.deepEqual((await server.json("v1/images")).data.map(({ params }) => params.prompt), ["a green frog"]);
  },
};

export const failures = {
  async play({ server, visit }) {
    await server.start();
    // A run that takes longer than its limit fails, with a reason.
    const slow = await server.draw({ prompt: "a slow fox", steps: 1000, width: 512, height: 512, run_timeout_s: 1 });
    assert.equal(slow.status, "failed");
    const canceled = await server.json("v1/images", { method: "POST", body: JSON.stringify({ prompt: "a cat", steps: 1000 }) });
    await server.json(`v1/images/${canceled.id}/cancel`, { method: "POST" });
    await until("it is canceled", async () => (await server.json(`v1/images/${canceled.id}`)).status === "canceled");
    await drawn(server, ["a red fox"]);
    const page = await visit.openPage(server.url);
    await finished(page, 1);
    await page.selectOption("#filter", "failed");
    await page.waitForFunction(() => document.querySelectorAll(".card:not([hidden])").length === 2);
    assert.equal(await page.textContent(`.card[data-id=${slow.id}] .status`), slow.error.message);
    assert.equal(await page.textContent(`.card[data-id=${canceled.id}] .status`), "Canceled");
    assert.match(await page.textContent(`.card[data-id=${slow.id}] .expiry`), /Is deleted in/);
    await visit.accessible(page, "failures");
  },
};

export const tabs = {
  async play({ server, visit }) {
    await server.start();
    const one = await visit.openPage(server.url);
    const other = await visit.openPage(server.url);
    await one.fill("#prompt", "a red fox");
    await one.locator("#form [type=submit]").click();
    await finished(one, 1);
    await finished(other, 1);
    // A client that is no tab of this browser.
    await server.draw({ ...SMALL, prompt: "a green frog", seed: 3 });
    for (const page of [one, other]) {
      await finished(page, 2);
      assert.deepEqual(await prompts(page), ["a green frog", "a red fox"]);
    }
    // The answer to this tab's star comes after another client has taken the star away.
    let release;
    const held = new Promise((resolve) => { release = resolve; });
    await one.route("**/star", async (route) => {
      const response = await route.fetch();
      await held;
      await route.fulfill({ response });
    });
    await one.hover(".card");
    await one.click(".card .star");
    await other.waitForSelector(".card[data-starred]");
    const [{ id }] = (await server.json("v1/images?starred=true")).data;
    await server.star(id, false);
    await other.waitForSelector(`.card[data-id=${id}]:not([data-starred])`);
    const answered = one.waitForResponse("**/star");
    release();
    await (await answered).finished();
    await one.waitForTimeout(200);
    for (const page of [one, other]) await page.waitForSelector(`.card[data-id=${id}]:not([data-starred])`);
    for (let presses = 0; presses < 2; presses += 1) await other.locator(".card .actions > :last-child").nth(1).click();
    for (const page of [one, other]) {
      await page.waitForFunction(() => document.querySelectorAll(".card").length === 1);
      assert.deepEqual(await prompts(page), ["a green frog"]);
    }
  },
};
