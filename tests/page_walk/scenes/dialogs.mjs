// Code of a request, the models, and the reference of the API.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { openSettings } from "./acts.mjs";

const run = promisify(execFile);

/**
 * A Python that has OpenAI's client, as the tests with real clients install it (tests/clients). Without one: null, or an
 * error if `LATENTD_REQUIRE_CLIENTS` is set.
 */
async function pythonOfOpenAi() {
  const installed = fileURLToPath(new URL("../../../target/clients/clients/bin/python", import.meta.url));
  for (const python of [process.env.PAGE_WALK_PYTHON, installed, "python3"].filter(Boolean)) {
    const has = await run(python, ["-c", "import openai"]).then(() => true, () => false);
    if (has) return python;
  }
  assert.ok(!process.env.LATENTD_REQUIRE_CLIENTS, "LATENTD_REQUIRE_CLIENTS is set, but no Python here has the package openai (cargo test --test clients installs it)");
  return null;
}

export const code = {
  async play({ server, visit }) {
    await server.start();
    const page = await visit.openPage(server.url);
    await page.fill("#prompt", "a fox's \"den\" in Köln");
    await openSettings(page);
    await page.fill("#steps", "2");
    await page.fill("#seed", "9007199254740993");
    await page.selectOption("#output", "jpeg");
    await page.click("#more-settings > summary");
    await page.fill("[id='output.quality']", "40");
    await page.selectOption("[id='output.metadata']", "none");
    await page.click("#code-open");
    const folder = mkdtempSync(join(tmpdir(), "page-walk-code-"));
    const codes = [["curl", "code.sh", "sh"], ["Python", "code.py", "python3"], ["JavaScript", "code.mjs", process.execPath]];
    const python = await pythonOfOpenAi();
    if (python) codes.push(["OpenAI client", "openai_code.py", python]);
    else console.log("        the code for OpenAI's client is only shown, not run: no Python here has the package openai");
    // Each code draws the same file as the others.
    for (const [name, file, ...command] of codes) {
      await page.click(`[role=tab]:text-is("${name}")`);
      await visit.accessible(page, `code for ${name}`);
      writeFileSync(join(folder, file), await page.textContent("[role=tabpanel]:not([hidden]) code"));
      await run(command[0], [...command.slice(1), file], { cwd: folder });
    }
    const files = readdirSync(folder).filter((name) => name.endsWith(".jpg"));
    assert.equal(files.length, 2, "curl's file, and that of the other codes");
    const { data } = await server.json("v1/images");
    assert.equal(data.length, codes.length);
    assert.equal(new Set(data.map(({ images }) => images[0].unsigned_sha256)).size, 1);
    for (const { params } of data) assert.deepEqual([params.output.format, params.output.quality, params.output.metadata], ["jpeg", 40, "none"]);
    await page.click('[role=tab]:text-is("OpenAI client")');
    assert.match(await page.textContent("[role=tabpanel]:not([hidden]) code"), /client\.images\.generate\(\n    prompt="a fox's \\"den\\" in Köln"/);
    await visit.accessible(page, "code for OpenAI's client");
    rmSync(folder, { recursive: true });
  },
};

export const models = {
  colorScheme: "dark",
  async play({ server, visit }) {
    await server.start();
    const page = await visit.openPage(server.url);
    await page.click("#models-open");
    await page.waitForSelector(".entries li");
    const text = await page.textContent("dialog.sheet");
    for (const part of ["emoji", "In memory", "51 MB", "emoji-lcm", "<teal>", "emoji-canny", "LATENTD_MODELS__DIR=./models", "LATENTD_LORAS__DIR=./loras", "LATENTD_CONTROLNETS__DIR=./controlnets"]) assert.ok(text.includes(part), part);
    // Patterns after a single --exclude would be read as names of files.
    const commands = (await page.$$eval("dialog.sheet .entries code", (codes) => codes.map(({ textContent }) => textContent))).filter((code) => code.startsWith("hf"));
    assert.ok(commands.length >= 4 && commands.every((command) => !/'[^']*' '/.test(command) && / --local-dir (models|loras|controlnets)\/\w+/.test(command)), commands.join("\n"));
    await visit.accessible(page, "models");
    await page.keyboard.press("Escape");
    assert.equal(await page.evaluate(() => document.activeElement.id), "models-open");
  },
};

export const reference = {
  async play({ server, visit }) {
    await server.start();
    const page = await visit.open(`${server.url}docs`);
    await page.waitForSelector(".operation");
    const contract = await server.json("openapi.json");
    const methods = ["get", "put", "post", "delete"];
    const operations = Object.values(contract.paths).flatMap((item) => methods.filter((method) => item[method]).map((method) => item[method].operationId));
    const shown = await page.$$eval(".operation", (sections) => sections.map(({ id }) => id));
    assert.deepEqual(shown.toSorted(), operations.toSorted(), "each operation of the contract is shown once");
    await visit.accessible(page, "reference");
    await page.fill("#find", "cancel");
    await page.waitForFunction(() => document.getElementById("cancelImage").checkVisibility() && !document.getElementById("listModels").checkVisibility());
    await page.fill("#find", "");
    await page.click('#index a[href="#createImage"]');
    // Unfolds everything of one operation: schemas may contain themselves, so only three levels.
    for (let level = 0; level < 3; level += 1) {
      await page.$$eval("#createImage details:not([open])", (all) => all.forEach((one) => { one.open = true; }));
      await page.waitForTimeout(100);
    }
    assert.ok((await page.textContent("#createImage")).includes("guidance_scale"));
    assert.ok((await page.textContent("#createImage pre")).length > 10);
    await visit.accessible(page, "an operation unfolded");
    const hosts = await page.evaluate(() => [...new Set(performance.getEntriesByType("resource").map(({ name }) => new URL(name).origin))]);
    assert.deepEqual(hosts, [new URL(server.url).origin]);
  },
};
