// The settings in pictures of AUTOMATIC1111's web interface and of related tools.

import assert from "node:assert/strict";
import { infotext } from "../../../web/infotext.js";

const SIZE = { steps: 2, width: 64, height: 64 };

/** The sampler and the schedule type in a text. */
const labels = (text) => ["Sampler", "Schedule type"].map((name) => new RegExp(`${name}: ([^,]+)`).exec(text)?.[1]);

/** What the page reads from a text with a sampler and a schedule type. */
const read = (sampler, type) => infotext(`a fox\nSteps: 2, Sampler: ${sampler}, Schedule type: ${type}`, () => true);

/** The label that the server writes into the picture of a request; null if it refuses the request. */
async function labelOf(server, request) {
  const generation = await server.draw({ prompt: "a fox", ...SIZE, ...request });
  if (generation.status !== "succeeded") return null;
  const file = Buffer.from(await (await fetch(server.url + generation.images[0].url.slice(1))).arrayBuffer());
  return labels(file.toString("latin1"));
}

/** The label of the server's own scheduler for a sampler and a type of the web interface; null if it refuses them. */
async function labelThere(server, sampler, type) {
  const body = JSON.stringify({ prompt: "a fox", ...SIZE, sampler_name: sampler, scheduler: type });
  const { info } = await server.json("sdapi/v1/txt2img", { method: "POST", body });
  return info ? labels(JSON.parse(info).infotexts[0]) : null;
}

/** The page and the server find the same sampler and noise levels, and the page says which type has no effect. */
async function agree(server, sampler, type) {
  const { request, unused } = read(sampler, type);
  const [drawn, there] = [await labelOf(server, request), await labelThere(server, sampler, type)];
  const about = `${sampler}, ${type}: ${JSON.stringify(request.scheduler)}`;
  assert.deepEqual(drawn, there, about);
  if (there && type !== "Automatic") assert.equal(unused.includes("Schedule type"), there[1] !== type, about);
  return there !== null;
}

export const infotexts = {
  async play({ server, size }) {
    // Nothing here depends on the window.
    if (size.phone) return;
    await server.start();
    const samplers = (await server.json("sdapi/v1/samplers")).map(({ name }) => name);
    const types = (await server.json("sdapi/v1/schedulers")).map(({ label }) => label);
    assert.ok(samplers.length > 20 && types.length > 5);
    const names = (await server.json("v1/schedulers")).data.map(({ name }) => name);
    for (const sampler of samplers) {
      for (const type of types) {
        const { scheduler } = read(sampler, type).request;
        assert.ok(scheduler?._class_name || names.includes(scheduler), `${sampler}, ${type}: ${JSON.stringify(scheduler)}`);
      }
      await agree(server, sampler, "Karras");
    }
    for (const [sampler, type] of [["DPM++ 3M SDE", "Automatic"], ["DPM++ 2M SDE Heun", "Beta"], ["DPM++ 2M", "Automatic"], ["Euler", "SGM Uniform"]]) {
      assert.ok(await agree(server, sampler, type), `the server draws with ${sampler}, ${type}`);
    }
    assert.deepEqual(read("DPM++ 2M Karras", "Automatic").request.scheduler, "dpmpp_2m_karras");
    assert.deepEqual(read("Euler", "Align Your Steps").unused, ["Schedule type"]);
    assert.deepEqual(infotext("a fox\nSteps: 2, Sampler: DDIM Karras", () => true).unused, ["Schedule type"]);
    assert.deepEqual(read("Restart", "Karras").unused, ["Sampler", "Schedule type"]);
  },
};
