// Builds src/ into the folder named on the command line. The same sources and lock file give the same bytes anywhere.
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { build, transform } from "esbuild";
import { minify } from "terser";

// Of marked only the lexer is wanted, and its bundle cannot be parted. Its source map carries the sources it was made of.
// What only other options than ours would use is left out: the options are constants, their grammars are not made. HTML in
// an answer is text as any other, and links whose addresses come at the end of a text are, too, because an answer that
// grows cannot know them: their grammar is a rule that never matches.
const MARKED = JSON.parse(await readFile("node_modules/marked/lib/marked.esm.js.map", "utf8"));
const SOURCES = new Map(MARKED.sources.map((path, at) => [path.replace("../src/", "./"), MARKED.sourcesContent[at]]));
const CONSTANTS = { pedantic: "false", breaks: "false", gfm: "true", extensions: "null", hooks: "null", silent: "false" };
const GRAMMARS = /const (?:blockPedantic|inlinePedantic|inlineBreaks)\b[^=]*= \{[\s\S]*?\n\};|^ +(?:pedantic|breaks): \w+,$/gm;
const UNUSED =
  /^const (_tag|_comment|_htmlInterrupt|html|_inlineComment|tag|def|reflink|nolink|_boundedInlineLabel|reflinkSearch) = [\s\S]*?;$/gm;
const HTML_BEGIN = /^  htmlBeginRegex: .*$/m;
// Names of members that only marked has, and those that the page's own interfaces, classes and dictionaries declare and
// no browser knows. None of them is in what is kept in the browser or sent: such names are of one word, or with_these.
const NAMES = new RegExp(`^(?:${[...markedNames([...SOURCES.values()].join("\n")), ...(await ownNames())].join("|")})$`);

async function ownNames() {
  const files = (await readdir("src", { recursive: true })).filter((each) => /\.tsx?$/.test(each));
  const text = (await Promise.all(files.map((each) => readFile(join("src", each), "utf8")))).join("\n");
  const declared = text.matchAll(/^\s+(?:(?:readonly|private|static) )*(?!(?:on|set|use|clear|cancel)[A-Z])([a-z]+[A-Z]\w*)\??[:(=]/gm);
  return new Set([...declared].map(([, name]) => name));
}

function markedNames(text) {
  const used = text.matchAll(/\b(?:inline|other|block|state|lexer|tokenizer|this)\.(\w*[a-z][A-Z]\w*)/g);
  return [...new Set([...used].map(([, name]) => name))];
}

function without(text, pattern, count, replacement) {
  if (text.match(pattern)?.length !== count) throw new Error(`marked's grammar is not as it was: ${pattern}`);
  return text.replace(pattern, replacement);
}

// Ways to call the lexer that are not ours, and the readers of what is text here.
const METHODS = /^  (?:static )?(?:get )?(?:rules|lex|lexInline|html|tag|def|reflink)\b[^\n]*\{\n[\s\S]*?^  \}\n/gm;
const OPTIONS = /this\.options\.(pedantic|breaks|gfm|extensions|hooks|silent)\b/g;

function trimmedCode(text, methods) {
  return without(text, METHODS, methods, "")
    .replace(OPTIONS, (_, name) => CONSTANTS[name])
    .replace(/inline\.(?:pedantic|breaks)|block\.pedantic|this\.tokenizer\.(?:html|tag|def|reflink)\(src\b.*?\)/g, "null")
    .replace("this.tokens.links && src.includes('[')", "false")
    .replace("text.matchAll(this.tokenizer.rules.inline.reflinkSearch)", "[]")
    .replace("'Infinite loop on byte: ' + byte", "byte");
}

function trimmedRules(text, users) {
  const ours = without(text, GRAMMARS, 6, "");
  const plain = without(ours, UNUSED, 11, (_, name) => `const ${name} = ${name === "_tag" ? "'(?!)'" : "/(?!)/g"};`);
  const begin = without(plain, HTML_BEGIN, 1, "  htmlBeginRegex: () => /(?!)/,");
  const [head, rest] = begin.split("export const other = {\n");
  const used = new Set([...`${users}${head}${rest}`.matchAll(/\bother\.(\w+)/g)].map(([, name]) => name));
  const [listed, tail] = [rest.slice(0, rest.indexOf("\n};")), rest.slice(rest.indexOf("\n};"))];
  const kept = listed.replace(/^  (\w+): .*,$/gm, (line, name) => (used.has(name) ? line : ""));
  return `${head}export const other = {\n${kept}${tail}`;
}

const LEXER = `${trimmedCode(SOURCES.get("./Lexer.ts"), 4)}\nexport { _Lexer as Lexer };\n`;
const TOKENIZER = trimmedCode(SOURCES.get("./Tokenizer.ts"), 4);
const TRIMMED = new Map([
  ...SOURCES,
  ["./Lexer.ts", LEXER],
  ["./Tokenizer.ts", TOKENIZER],
  ["./rules.ts", trimmedRules(SOURCES.get("./rules.ts"), LEXER + TOKENIZER + SOURCES.get("./helpers.ts"))],
]);

const lexerOnly = {
  name: "lexer-only",
  setup(plugin) {
    const inside = (path) => ({ path, namespace: "marked", sideEffects: false });
    plugin.onResolve({ filter: /^marked$/ }, () => inside("./Lexer.ts"));
    plugin.onResolve({ filter: /^\.\//, namespace: "marked" }, ({ path }) => inside(path));
    plugin.onLoad({ filter: /.*/, namespace: "marked" }, ({ path }) => {
      if (!TRIMMED.has(path)) throw new Error(`marked has no ${path}`);
      return { contents: TRIMMED.get(path), loader: "ts" };
    });
  },
};

// The members of the second dictionary are those of the first, so their names are in the result only once.
async function dictionary(name) {
  const { code } = await transform(await readFile(`src/words/${name}.ts`, "utf8"), { loader: "ts", charset: "utf8" });
  return (await import(`data:text/javascript;charset=utf-8,${encodeURIComponent(code)}`))[name];
}

function values(names, from) {
  const each = Object.keys(names).map((name) => {
    const value = from[name];
    if (typeof value === "object") return values(names[name], value);
    return typeof value === "function" ? value.toString() : JSON.stringify(value);
  });
  return `[${each.join(",")}]`;
}

const namesOnce = {
  name: "names-once",
  setup(plugin) {
    plugin.onLoad({ filter: /words[\\/]zh\.ts$/ }, async () => ({
      contents: `import { en } from "./en";
const named = (names, values) =>
  Object.fromEntries(Object.entries(names).map(([name, value], at) =>
    [name, typeof value === "object" ? named(value, values[at]) : values[at]]));
export const zh = named(en, ${values(await dictionary("en"), await dictionary("zh"))});`,
      loader: "js",
    }));
  },
};

const into = process.argv[2];
await mkdir(into, { recursive: true });
const common = {
  bundle: true,
  minify: true,
  charset: "utf8",
  legalComments: "none",
  target: ["chrome123", "firefox121", "safari17.5"],
  logLevel: "warning",
};

const { outputFiles } = await build({
  ...common,
  entryPoints: ["src/main.tsx"],
  write: false,
  format: "esm",
  jsx: "transform",
  jsxFactory: "h",
  jsxFragment: "Fragment",
  inject: ["src/jsx.ts"],
  plugins: [lexerOnly, namesOnce],
});
// What is left over when the pieces are put together, esbuild does not look for.
const { code } = await minify(outputFiles[0].text, {
  module: true,
  ecma: 2020,
  compress: { passes: 3, unsafe_arrows: true, pure_getters: true, keep_fargs: false },
  mangle: { properties: { regex: NAMES } },
});
await writeFile(join(into, "app.js"), `${code}\n`);
await build({ ...common, entryPoints: ["src/styles/page.css"], outfile: join(into, "app.css") });

const html = await readFile("src/index.html", "utf8");
await writeFile(join(into, "index.html"), `${html.replace(/>\s+</g, "><").trim()}\n`);
await writeFile(join(into, "icon.svg"), await readFile("src/icon.svg"));

// What is bundled may be passed on only with its licence.
const texts = [];
for (const name of ["preact", "@preact/signals", "@preact/signals-core", "marked", "diff"]) {
  const folder = join("node_modules", name);
  const file = (await readdir(folder)).find((each) => /^licen[cs]e(\.md|\.txt)?$/i.test(each));
  const { version, license } = JSON.parse(await readFile(join(folder, "package.json"), "utf8"));
  if (!file) throw new Error(`${name} has no licence file`);
  texts.push(`${name} ${version} (${license})\n\n${(await readFile(join(folder, file), "utf8")).trim()}\n`);
}
await writeFile(join(into, "licences.txt"), texts.join(`\n${"-".repeat(80)}\n\n`));
