// Vercel's AI SDK: generateImage with its provider for OpenAI and with the one for servers like OpenAI's.
// usage: ai_sdk.mjs URL

import assert from "node:assert/strict";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateImage } from "ai";

const baseURL = `${process.argv[2]}/v1`;
const openai = createOpenAI({ baseURL, apiKey: "not-needed" });
const compatible = createOpenAICompatible({ name: "latentd", baseURL, apiKey: "not-needed" });
const extra = { latentd: { steps: 2, seed: 7 } };

const assertPictures = (result, count) => {
  assert.equal(result.images.length, count);
  for (const image of result.images) {
    assert.equal(image.mediaType, "image/png");
    assert.equal(Buffer.from(image.uint8Array).subarray(1, 4).toString(), "PNG");
  }
};

// The provider for OpenAI sends one request for each picture of a model that it does not know, and one for all of
// OpenAI's own models.
for (const model of ["emoji", "gpt-image-1", "dall-e-2"]) {
  assertPictures(await generateImage({ model: openai.image(model), prompt: "a red fox", size: "64x64", n: 2 }), 2);
}
const ten = { prompt: "a red fox", size: "64x64", n: 10, providerOptions: { openai: { quality: "low" } } };
assertPictures(await generateImage({ model: openai.image("dall-e-2"), ...ten }), 10);
const drawn = await generateImage({
  model: compatible.imageModel("emoji"),
  prompt: "a red fox",
  size: "64x64",
  n: 2,
  providerOptions: extra,
});
assertPictures(drawn, 2);
const again = await generateImage({
  model: compatible.imageModel("emoji"),
  prompt: "a red fox",
  size: "64x64",
  n: 2,
  providerOptions: extra,
});
assert.deepEqual(again.images[1].uint8Array, drawn.images[1].uint8Array, "the same seed draws the same pictures");

// A PNG of 2 × 1 pixels whose left pixel is transparent.
const mask = Buffer.from(
  "iVBORw0KGgoAAAANSUhEUgAAAAIAAAABCAYAAAD0In+KAAAAEElEQVR4nGP4//8/AxD/BwAe6gb6OStlagAAAABJRU5ErkJggg==",
  "base64",
);
const images = [drawn.images[0].uint8Array];
for (const prompt of [{ text: "a green fox", images }, { text: "a green fox", images, mask }]) {
  assertPictures(await generateImage({ model: openai.image("emoji"), prompt }), 1);
  assertPictures(await generateImage({ model: compatible.imageModel("emoji"), prompt, providerOptions: extra }), 1);
}

await assert.rejects(generateImage({ model: openai.image("nothing"), prompt: "a" }), (error) => {
  assert.equal(error.statusCode, 400);
  return /nothing/.test(error.message);
});
