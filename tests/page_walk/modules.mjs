// The packages of this walk, which `make walk` installs into target/page_walk.

import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const folder = process.env.PAGE_WALK_MODULES ?? fileURLToPath(new URL("../../target/page_walk/", import.meta.url));
const require = createRequire(folder.replace(/\/?$/, "/"));

export const { chromium } = require("playwright-core");
/** The source of axe-core. It is evaluated by the driver: the page's policy forbids foreign scripts. */
export const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
