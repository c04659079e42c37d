// node build.mjs APP FOLDER            what is deployed
// node build.mjs APP FOLDER EMULATOR   the same for a browser beside the emulator: only the bridge is added

import { existsSync } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const [app, folder, emulator] = process.argv.slice(2);
const here = (name) => fileURLToPath(new URL(`${app}/frontend/${name}`, import.meta.url));

await mkdir(folder, { recursive: true });
let page = await readFile(here("index.html"), "utf8");
if (emulator) page = page.replace("<script", `<script src="${emulator}/bridge.js"></script>\n    <script`);
await writeFile(`${folder}/index.html`, page);
await build({
  entryPoints: [here(existsSync(here("main.jsx")) ? "main.jsx" : "main.js")],
  bundle: true,
  jsx: "automatic",
  minify: true,
  outfile: `${folder}/main.js`,
  logLevel: "warning",
});
