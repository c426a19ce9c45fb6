// Runs OpenAI's SDK for Node.js against a running server: node tests/clients/openai_node.mjs http://localhost:8080
// Installs openai 7.59.0 into a temporary folder.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createReadStream, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const folder = mkdtempSync(join(tmpdir(), "openai-"));
try {
  execFileSync("npm", ["install", "--silent", "--no-fund", "--no-audit", "--prefix", folder, "openai@7.59.0"]);
  const { default: OpenAI, toFile } = await import(pathToFileURL(join(folder, "node_modules/openai/index.mjs")));
  const client = new OpenAI({ baseURL: `${process.argv[2]}/v1`, apiKey: "not-needed", maxRetries: 2 });
  const models = [];
  for await (const model of client.models.list()) models.push(model.id);
  assert.ok(models.length > 0);

  const drawn = await client.images.generate({ prompt: "a red fox", seed: 7, steps: 2 });
  const file = Buffer.from(drawn.data[0].b64_json, "base64");
  assert.equal(file.subarray(1, 4).toString(), "PNG");
  const fetched = Buffer.from(await (await fetch(drawn.data[0].url)).arrayBuffer());
  assert.deepEqual(fetched, file);

  // The file comes before the prompt, from a stream and from memory.
  const path = join(folder, "fox.png");
  writeFileSync(path, file);
  for (const image of [createReadStream(path), await toFile(file, "fox.png", { type: "image/png" }), [createReadStream(path)]]) {
    const edited = await client.images.edit({ image, prompt: "a green fox", steps: 2 });
    assert.ok(edited.data[0].b64_json);
  }
  const varied = await client.images.createVariation({ image: createReadStream(path), steps: 2 });
  assert.ok(varied.data[0].b64_json);

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
    return Boolean(error.requestID);
  });
  console.log("openai for Node.js works");
} finally {
  rmSync(folder, { recursive: true });
}
