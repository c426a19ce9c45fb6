// exiftool: the manifest and the texts of each format, and the ingredients of an edit. usage: exiftool.mjs URL

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const [url] = process.argv.slice(2);
const exiftool = fileURLToPath(new URL("node_modules/exiftool-vendored.pl/bin/exiftool", import.meta.url));

async function draw(format, more = {}) {
  const request = { prompt: "a red fox", steps: 2, width: 64, height: 64, seed: 7, output: { format }, ...more };
  const headers = { "Content-Type": "application/json", Accept: `image/${format}` };
  const answer = await fetch(`${url}/v1/images`, { method: "POST", headers, body: JSON.stringify(request) });
  assert.equal(answer.status, 200, await answer.clone().text());
  const file = `fox.${format}`;
  writeFileSync(file, Buffer.from(await answer.arrayBuffer()));
  return file;
}

/** What exiftool reads: names of tags with their groups, such as `JSON:Model`. `-b` prints binary data as base64. */
function read(file) {
  return JSON.parse(execFileSync("perl", [exiftool, "-json", "-G1", "-struct", "-b", file], { encoding: "utf8" }))[0];
}

const base64 = (text) => Buffer.from(text.replace(/^base64:/, ""), "base64");

for (const format of ["png", "jpeg", "webp"]) {
  const file = await draw(format);
  const tags = read(file);
  assert.equal(tags["JUMBF:JUMDLabel"], "c2pa", JSON.stringify(tags));
  assert.equal(tags["CBOR:Actions"][0]?.action ?? tags["CBOR:Actions"].action, "c2pa.created");
  assert.equal(tags["CBOR:Claim_generator_info"].name, "latentd");
  assert.equal(tags["JSON:Model"], "emoji");
  assert.equal(tags["JSON:Request"].prompt, "a red fox");
  // The hash of the file without its manifest, as exiftool reads it, is that of the file.
  const bytes = readFileSync(file);
  const { start, length } = [tags["CBOR:Exclusions"]].flat()[0];
  const rest = Buffer.concat([bytes.subarray(0, start), bytes.subarray(start + length)]);
  const digest = createHash("sha256").update(rest).digest();
  assert.deepEqual(base64(tags["CBOR:Hash"]), digest, format);
  // The texts for other programs are there as before.
  const texts = tags["PNG:Parameters"] ?? tags["ExifIFD:UserComment"];
  assert.match(texts, /^a red fox\nSteps: 2, /);
}

const image = { b64: readFileSync("fox.jpeg").toString("base64") };
const edit = await draw("webp", { image, strength: 0.5 });
// All tags: the file contains the manifest of the first picture, too.
const tags = execFileSync("perl", [exiftool, "-a", "-G1", "-s", "-struct", edit], { encoding: "utf8" });
assert.match(tags, /compositeWithTrainedAlgorithmicMedia/);
assert.match(tags, /\/trainedAlgorithmicMedia/);
assert.match(tags, /Relationship\s*: inputTo/);
