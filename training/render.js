// Renders SVG pictures to raw RGBA. Standard input: one JSON string (an SVG document) per line.
// Arguments: the size in pixels and the file to which the pixels are appended.
const fs = require("fs");
const readline = require("readline");
const { Resvg } = require("@resvg/resvg-js");

const size = Number(process.argv[2]);
const output = fs.openSync(process.argv[3], "a");

readline.createInterface({ input: process.stdin }).on("line", (line) => {
  const options = { fitTo: { mode: "width", value: size }, font: { loadSystemFonts: false } };
  const picture = new Resvg(JSON.parse(line), options).render();
  fs.writeSync(output, picture.pixels);
});
