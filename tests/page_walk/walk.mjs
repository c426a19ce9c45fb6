// Walks through the web page in Chromium, at desktop and phone width, with real servers, and checks each state with axe:
// node tests/page_walk/walk.mjs target/debug/latentd [scene …]

import { execFileSync } from "node:child_process";
import assert from "node:assert/strict";
import { chromium } from "./modules.mjs";
import { newestWins } from "./newest_wins.mjs";
import { Server } from "./server.mjs";
import { Visit } from "./visit.mjs";
import { scenes } from "./scenes.mjs";

const SIZES = [
  { name: "desktop", width: 1280, height: 900, phone: false },
  { name: "phone", width: 390, height: 844, phone: true },
];

const [program, ...wanted] = process.argv.slice(2);
const named = Object.entries(scenes).filter(([name]) => wanted.length === 0 || wanted.includes(name));
// A scene with a setting that has no value cannot be played.
const chosen = named.filter(([, { settings = {} }]) => !Object.values(settings).includes(undefined));
for (const [name] of named) if (!chosen.some(([other]) => other === name)) console.log(`skipped ${name}: run cargo test --test page_walk`);
assert.ok(program && chosen.length > 0, "usage: walk.mjs PROGRAM [SCENE …]");

await newestWins();
const browser = await chromium.launch({ executablePath: installed(), args: ["--no-sandbox", "--disable-dev-shm-usage"] });
let failed = 0;
let states = 0;
for (const [name, scene] of chosen) {
  for (const size of SIZES) {
    const server = new Server(program, scene.settings);
    const visit = await Visit.begin(browser, size, scene.colorScheme);
    try {
      await scene.play({ server, visit, size });
      await visit.end(scene.expected);
      console.log(`ok      ${name} at ${size.width} pixels, ${visit.states} states without violations`);
    } catch (error) {
      failed += 1;
      console.log(`FAILED  ${name} at ${size.width} pixels: ${error.stack}`);
      for (const complaint of visit.complaints) console.log(`        the page: ${complaint}`);
      await visit.context.close().catch(() => {});
    }
    states += visit.states;
    await server.end();
  }
}
await browser.close();
console.log(`${chosen.length * SIZES.length} scenes, ${failed} failed, ${states} states checked`);
process.exitCode = failed > 0 ? 1 : 0;

/** The path of the installed Chromium. */
function installed() {
  for (const name of ["chromium", "chromium-browser", "google-chrome", "chrome"]) {
    try {
      return execFileSync("sh", ["-c", `command -v ${name}`]).toString().trim();
    } catch {
      // The next name may exist.
    }
  }
  throw new Error("no Chromium found (on Debian the package chromium)");
}
