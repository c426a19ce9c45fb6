// OpenAI's SDK for Node.js: every operation on pictures, streams, errors and repeated requests.
// usage: openai_sdk.mjs URL BUSY_URL KEY, where KEY permits one request at a time to the server of BUSY_URL

import assert from "node:assert/strict";
import { createReadStream, writeFileSync } from "node:fs";
import OpenAI, { toFile } from "openai";

const [url, busy, key] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "not-needed" });

const models = [];
for await (const model of client.models.list()) models.push(model.id);
assert.ok(models.includes("emoji"));

const drawn = await client.images.generate({ prompt: "a red fox", seed: 7, steps: 2 });
const file = Buffer.from(drawn.data[0].b64_json, "base64");
assert.equal(file.subarray(1, 4).toString(), "PNG");
const fetched = Buffer.from(await (await fetch(drawn.data[0].url)).arrayBuffer());
assert.deepEqual(fetched, file);

// The file comes before the prompt, from a stream and from memory.
writeFileSync("fox.png", file);
for (const image of [
  createReadStream("fox.png"),
  await toFile(file, "fox.png", { type: "image/png" }),
  [createReadStream("fox.png")],
]) {
  const edited = await client.images.edit({ image, prompt: "a green fox", steps: 2 });
  assert.ok(edited.data[0].b64_json);
}
// A PNG of 2 × 1 pixels whose left pixel is transparent.
const mask = Buffer.from(
  "iVBORw0KGgoAAAANSUhEUgAAAAIAAAABCAYAAAD0In+KAAAAEElEQVR4nGP4//8/AxD/BwAe6gb6OStlagAAAABJRU5ErkJggg==",
  "base64",
);
const masked = await client.images.edit({
  image: createReadStream("fox.png"),
  mask: await toFile(mask, "mask.png"),
  prompt: "a green fox",
  steps: 2,
});
assert.ok(masked.data[0].b64_json);
const varied = await client.images.createVariation({ image: createReadStream("fox.png"), n: 2, steps: 2 });
assert.equal(varied.data.length, 2);

const kinds = [];
for await (const event of await client.images.generate({ prompt: "a", stream: true, partial_images: 2, steps: 6 })) {
  assert.ok(event.b64_json);
  kinds.push(event.type);
}
assert.deepEqual(kinds, [
  "image_generation.partial_image",
  "image_generation.partial_image",
  "image_generation.completed",
]);

await assert.rejects(client.images.generate({ prompt: "a", background: "transparent" }), (error) => {
  assert.equal(error.status, 400);
  assert.deepEqual([error.param, error.code], ["background", "unsupported_parameter"]);
  assert.match(error.message, /background/);
  return Boolean(error.requestID);
});

// A full queue is refused with 429 and Retry-After, and the SDK's later try succeeds.
const statuses = [];
const patient = new OpenAI({
  baseURL: `${busy}/v1`,
  apiKey: key,
  maxRetries: 20,
  fetch: async (...request) => {
    const answer = await fetch(...request);
    statuses.push(answer.status);
    return answer;
  },
});
await Promise.all([1, 2, 3, 4].map(() => patient.images.generate({ prompt: "a fox", steps: 30 })));
assert.ok(statuses.includes(429) && statuses.every((status) => [200, 429].includes(status)), statuses.join());
