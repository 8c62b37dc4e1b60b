// One command, `npm ci && npm run build`: bundles web/src into camctrl_jax/explore/page, which is committed.
// `node build.mjs FOLDER` writes elsewhere, for the test that what is committed is what the sources give.
import { build } from "esbuild";
import { copyFile, mkdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const page = process.argv[2] ?? join(here, "..", "camctrl_jax", "explore", "page");

await mkdir(page, { recursive: true });
await build({
  entryPoints: [join(here, "src", "main.js")],
  outfile: join(page, "page.js"),
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  legalComments: "none", // the licence is beside it, whole
});
await build({ entryPoints: [join(here, "src", "page.css")], outfile: join(page, "page.css"), minify: true });
await copyFile(join(here, "src", "index.html"), join(page, "index.html"));
await copyFile(join(here, "src", "icon.svg"), join(page, "icon.svg"));

const three = join(here, "node_modules", "three");
const { version } = JSON.parse(await readFile(join(three, "package.json"), "utf8"));
const licence = await readFile(join(three, "LICENSE"), "utf8");
await writeFile(
  join(page, "LICENSES.txt"),
  `page.js holds three.js ${version} (https://threejs.org), bundled and minified by web/build.mjs:\n\n${licence}`,
);
