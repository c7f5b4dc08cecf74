// What openai-node sees of broken streams: `node shapes.mjs URL FILE`, the file says what it must be of each.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import OpenAI from "openai";

const [baseURL, file] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "none", maxRetries: 0 });
const messages = [{ role: "user", content: "What is 7+5?" }];

const read = async (model) => {
  const seen = { text: "", thinking: "", error: null };
  try {
    for await (const chunk of await client.chat.completions.create({ model, messages, stream: true })) {
      seen.text += chunk.choices[0]?.delta.content ?? "";
      seen.thinking += chunk.choices[0]?.delta.reasoning_content ?? "";
    }
  } catch (error) {
    assert.ok(error instanceof OpenAI.APIError, error);
    seen.error = error;
  }
  return seen;
};

for (const shape of JSON.parse(await readFile(file, "utf8"))) {
  const model = `fake/fault:shape_${shape.name}`;
  const seen = await read(model);
  assert.equal(seen.text, shape.text, shape.name);
  assert.equal(seen.thinking, shape.thinking, shape.name);
  assert.equal(seen.error !== null, shape.is_error, `${shape.name}: ${seen.error}`);
  const runner = client.chat.completions.stream({ model, messages });
  if (shape.is_error) {
    await assert.rejects(runner.finalChatCompletion(), OpenAI.OpenAIError, shape.name);
    continue;
  }
  const { message, finish_reason } = (await runner.finalChatCompletion()).choices[0];
  assert.equal(message.role, "assistant", shape.name);
  assert.equal(message.content ?? "", shape.text, shape.name);
  const calls = (message.tool_calls ?? []).map(({ function: { name, arguments: text } }) => [name, JSON.parse(text)]);
  assert.deepEqual(calls, shape.calls, shape.name);
  assert.equal(finish_reason, calls.length ? "tool_calls" : "stop", shape.name);
}
console.log("done");
