// A latentd process on free ports of the loopback interface.

import { spawn, execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

const PATIENCE_MS = 120_000;

export class Server {
  /** @param {string} program the path of the binary @param {object} settings environment variables */
  constructor(program, settings = {}) {
    this.program = program;
    this.folder = mkdtempSync(join(tmpdir(), "page-walk-"));
    this.settings = settings;
  }

  async start() {
    this.port ??= await freePort();
    const operator = await freePort();
    this.env = {
      ...process.env, LATENTD_DATA_DIR: this.folder, LATENTD_HTTP__BIND: `127.0.0.1:${this.port}`,
      LATENTD_OPERATOR__BIND: `127.0.0.1:${operator}`, LATENTD_LOG__FILTER: "warn", ...this.settings,
    };
    this.process = spawn(this.program, ["serve"], { env: this.env, stdio: ["ignore", "ignore", "inherit"] });
    this.ended = new Promise((resolve) => this.process.once("exit", resolve));
    await until("the server answers", async () => (await fetch(`http://127.0.0.1:${operator}/readyz`)).ok);
    return this;
  }

  get url() {
    return `http://127.0.0.1:${this.port}/`;
  }

  /** Creates an API key while the server is stopped. */
  createKey(tenant) {
    const text = execFileSync(this.program, ["keys", "create", "--tenant", tenant], { env: { ...process.env, LATENTD_DATA_DIR: this.folder, LATENTD_LOG__FILTER: "warn" } });
    return /ltd_\w+/.exec(text.toString())[0];
  }

  /** Kills the process, as a crash does. */
  async kill() {
    this.process.kill("SIGKILL");
    await this.ended;
  }

  async end() {
    if (this.process) await this.kill();
    rmSync(this.folder, { recursive: true, force: true });
  }

  async json(path, options = {}) {
    const answer = await fetch(this.url + path, { ...options, headers: { "Content-Type": "application/json", ...options.headers } });
    return answer.json();
  }

  /** Gives a generation a star, or takes the star away, as another client. */
  star(id, starred = true) {
    return this.json(`v1/images/${id}/star`, { method: starred ? "PUT" : "DELETE" });
  }

  /** Draws a generation and returns it when it has ended. */
  draw(request, headers = {}) {
    return this.json("v1/images", { method: "POST", body: JSON.stringify(request), headers: { Prefer: "wait=60", ...headers } });
  }
}

/** Waits until a condition holds. */
export async function until(what, condition) {
  const end = Date.now() + PATIENCE_MS;
  while (Date.now() < end) {
    if (await Promise.resolve().then(condition).catch(() => false)) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`after ${PATIENCE_MS / 1000} s, it does not hold: ${what}`);
}

function freePort() {
  return new Promise((resolve) => {
    const listener = createServer().listen(0, "127.0.0.1", () => {
      const { port } = listener.address();
      listener.close(() => resolve(port));
    });
  });
}
