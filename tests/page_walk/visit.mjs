// A visit to the page: a browser window of one size, which notes errors and checks the accessibility of states.

import { existsSync, readFileSync, statSync } from "node:fs";
import { extname, join } from "node:path";
import { axe } from "./modules.mjs";

/** If set, the assets of the page come from this folder instead of the binary, for work on the page without a build. */
const WEB = process.env.PAGE_WALK_WEB;
/** If set, screenshots of all checked states are written into this folder, for people to look at. */
const PICTURES = process.env.PAGE_WALK_PICTURES;
const PATIENCE_MS = Number(process.env.PAGE_WALK_PATIENCE_MS ?? 120_000);
const TYPES = { ".js": "text/javascript", ".css": "text/css", ".html": "text/html", ".svg": "image/svg+xml", ".json": "application/json" };

export class Visit {
  static async begin(browser, size, colorScheme = "light") {
    const visit = new Visit();
    visit.size = size;
    visit.complaints = [];
    visit.states = 0;
    visit.context = await browser.newContext({
      viewport: { width: size.width, height: size.height }, hasTouch: size.phone, colorScheme, acceptDownloads: true,
      reducedMotion: "reduce", permissions: ["clipboard-read", "clipboard-write"],
    });
    visit.context.setDefaultTimeout(PATIENCE_MS);
    if (WEB) await visit.context.route((url) => assetOf(url) !== null, (route) => serve(route));
    return visit;
  }

  /** Opens a tab. */
  async open(url) {
    const page = await this.context.newPage();
    page.on("pageerror", (error) => this.complaints.push(String(error.stack)));
    page.on("console", (message) => message.type() === "error" && this.complaints.push(`${message.text()} ${message.location().url}`));
    await page.goto(url);
    return page;
  }

  /** Opens a tab with the page and waits until it knows the models. */
  async openPage(url) {
    const page = await this.open(url);
    await page.waitForFunction(() => document.getElementById("model").options.length > 0);
    return page;
  }

  /** Fails if axe finds a violation in the present state, or if the page is wider than the window. */
  async accessible(page, name) {
    this.states += 1;
    if (PICTURES) await page.screenshot({ path: join(PICTURES, `${this.size.name}-${name.replaceAll(" ", "-")}.png`) });
    await page.evaluate(axe);
    const violations = await page.evaluate(async () => {
      const { violations } = await globalThis.axe.run(document, { resultTypes: ["violations"] });
      return violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html, failureSummary }) => `${html}\n${failureSummary}`).join("\n")}`);
    });
    if (violations.length > 0) throw new Error(`axe, in the state "${name}":\n${violations.join("\n")}`);
    const width = await page.evaluate(() => document.documentElement.scrollWidth);
    if (width > this.size.width) throw new Error(`in the state "${name}", the page is ${width} pixels wide`);
  }

  /** Ends the visit. Fails if the page has reported errors, except those that `expected` matches. */
  async end(expected = /^$/) {
    await this.context.close();
    const complaints = this.complaints.filter((complaint) => !expected.test(complaint));
    if (complaints.length > 0) throw new Error(`the page reported errors:\n${complaints.join("\n")}`);
  }
}

function assetOf(url) {
  const name = { "/": "index.html", "/docs": "docs.html" }[url.pathname] ?? url.pathname.slice(1);
  const path = join(WEB, name);
  return existsSync(path) && statSync(path).isFile() ? path : null;
}

async function serve(route) {
  const path = assetOf(new URL(route.request().url()));
  const policy = /"(default-src[^"]*)"/.exec(readFileSync(join(WEB, "../src/http/page.rs"), "utf8").replace(/\\\n\s*/g, ""))[1];
  const headers = { "Content-Type": TYPES[extname(path)] ?? "application/octet-stream", "Content-Security-Policy": policy };
  await route.fulfill({ body: readFileSync(path), headers });
}
