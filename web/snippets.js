// Converts a request into code: a curl command, Python, JavaScript, and OpenAI's client for Python.

import { absolute } from './api.js';
import { KEY, command } from './curl.js';
import { print } from './json.js';
import { EXTENSIONS, PICTURES, typeOf } from './kinds.js';

/** Fields that the method of OpenAI's client has itself. All others go into `extra_body`. */
const OPENAI = new Set(['prompt', 'model', 'n']);

/**
 * The codes that request pictures, films or sounds.
 * @param {object} request
 * @param {object} kind
 * @param {boolean} keyed whether the server needs a key. The codes read it from the environment
 * @returns {{name: string, code: string}[]}
 */
export function snippets(request, kind, keyed) {
  return [
    { name: 'curl', code: command(request, kind, keyed) },
    { name: 'Python', code: python(request, kind, keyed) },
    { name: 'JavaScript', code: javascript(request, kind, keyed) },
    ...(kind === PICTURES ? [{ name: 'OpenAI client', code: openai(request, keyed) }] : []),
  ];
}

function python(request, { root, files, noun, ...kind }, keyed) {
  const one = noun === 'picture' ? 'image' : noun;
  return `import json${keyed ? ', os' : ''}
from urllib.request import Request, urlopen

server = ${print(absolute('.').replace(/\/$/, ''))}
request = ${literal(request)}
headers = {"Content-Type": "application/json", "Prefer": "wait"${keyed ? `, "Authorization": "Bearer " + os.environ["${KEY}"]` : ''}}
answer = urlopen(Request(server + "/${root}", json.dumps(request).encode(), headers))
generation = json.load(answer)
while generation["status"] in ("queued", "running"):
    generation = json.load(urlopen(Request(f"{server}/${root}/{generation['id']}", headers=headers)))
for ${one} in generation["${files}"]:
    with open(f"${noun}-{${one}['index']}.${EXTENSIONS[typeOf(request, kind)]}", "wb") as file:
        file.write(urlopen(Request(f"{server}/${root}/{generation['id']}/content/{${one}['index']}", headers=headers)).read())
`;
}

function javascript(request, { root, files, noun, ...kind }, keyed) {
  // A seed beyond the whole numbers of JavaScript stays exact in a text only.
  const body = typeof request.seed === 'bigint' ? JSON.stringify(print(request)) : `JSON.stringify(${print(request, 2)})`;
  return `import { writeFile } from "node:fs/promises";

const server = ${print(absolute('.').replace(/\/$/, ''))};
const headers = { "Content-Type": "application/json", Prefer: "wait"${keyed ? `, Authorization: \`Bearer \${process.env.${KEY}}\`` : ''} };
const body = ${body};
let generation = await (await fetch(server + "/${root}", { method: "POST", headers, body })).json();
while (["queued", "running"].includes(generation.status))
  generation = await (await fetch(\`\${server}/${root}/\${generation.id}\`, { headers })).json();
for (const { index } of generation.${files}) {
  const ${noun} = await fetch(\`\${server}/${root}/\${generation.id}/content/\${index}\`, { headers });
  await writeFile(\`${noun}-\${index}.${EXTENSIONS[typeOf(request, kind)]}\`, Buffer.from(await ${noun}.arrayBuffer()));
}
`;
}

function openai({ width, height, output = {}, ...request }, keyed) {
  const { format, quality, ...file } = output;
  const sized = width && height ? { size: `${width}x${height}` } : {};
  const own = Object.fromEntries(Object.entries(request).filter(([name]) => OPENAI.has(name)));
  const all = {
    ...own, ...sized, ...(format && format !== 'png' ? { output_format: format } : {}),
    ...(quality === undefined ? {} : { output_compression: quality }),
  };
  const others = {
    ...Object.fromEntries(Object.entries(request).filter(([name]) => !OPENAI.has(name))),
    ...(width && !height ? { width } : {}), ...(height && !width ? { height } : {}),
    ...(Object.keys(file).length > 0 ? { output: file } : {}),
  };
  const lines = Object.entries(all).map(([name, value]) => `    ${name}=${literal(value, 4)},\n`).join('');
  const extra = Object.keys(others).length > 0 ? `    extra_body=${literal(others, 4)},\n` : '';
  return `import base64${keyed ? ', os' : ''}
from openai import OpenAI

client = OpenAI(base_url=${print(absolute('v1'))}, api_key=${keyed ? `os.environ["${KEY}"]` : '"none"'})
answer = client.images.generate(
${lines}${extra}    response_format="b64_json",
)
for index, image in enumerate(answer.data):
    with open(f"picture-{index}.${extension({ output })}", "wb") as file:
        file.write(base64.b64decode(image.b64_json))
`;
}

const extension = ({ output }) => ({ jpeg: 'jpg', webp: 'webp' }[output?.format] ?? 'png');

/** A value as a literal of Python. */
function literal(value, indent = 0) {
  const inner = ' '.repeat(indent + 4);
  const end = ' '.repeat(indent);
  if (value === null || value === undefined) return 'None';
  if (value === true) return 'True';
  if (value === false) return 'False';
  if (Array.isArray(value)) return `[${value.map((part) => literal(part, indent)).join(', ')}]`;
  if (typeof value !== 'object') return print(value);
  const parts = Object.entries(value).map(([name, part]) => `${inner}${print(name)}: ${literal(part, indent + 4)},\n`);
  return parts.length === 0 ? '{}' : `{\n${parts.join('')}${end}}`;
}
