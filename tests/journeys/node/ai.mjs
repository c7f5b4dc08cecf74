// What a user of the AI SDK does, with its current version or the one that Easy Dataset pins; one function a journey.
import assert from "node:assert/strict";

const [name, baseURL, version] = process.argv.slice(2);
const old = version === "0.2";
const { createOpenAICompatible } = await import(`@ai-sdk/openai-compatible${old ? "-0.2" : ""}`);
const { streamText, generateText, jsonSchema, tool } = await import(old ? "ai-4" : "ai");

const modelport = createOpenAICompatible({ name: "modelport", baseURL, apiKey: "none" });
const model = "smollm2-135m-instruct";
const prompt = "What is 7+5?";
const few = { prompt, temperature: 0, maxRetries: 0, [old ? "maxTokens" : "maxOutputTokens"]: 8 };
const schema = jsonSchema({
  type: "object",
  properties: { a: { type: "integer" }, b: { type: "integer" } },
  required: ["a", "b"],
});
const add = tool({
  description: "Adds.",
  [old ? "parameters" : "inputSchema"]: schema,
  execute: async ({ a, b }) => a + b,
});

const gather = async (parts) => {
  let text = "";
  for await (const part of parts) text += part;
  return text;
};

const journeys = {
  async text() {
    const answer = await generateText({ ...few, model: modelport(model) });
    assert.ok(answer.text);
    assert.ok((answer.usage.completionTokens ?? answer.usage.outputTokens) >= 1);
  },

  async stream() {
    const whole = await generateText({ ...few, model: modelport(model) });
    const stream = streamText({ ...few, model: modelport(model) });
    assert.equal(await gather(stream.textStream), whole.text);
    assert.ok(["length", "stop"].includes(await stream.finishReason));
  },

  async stream_of_vllm() {
    const stream = streamText({ ...few, model: modelport("fake/fake") });
    assert.match(await gather(stream.textStream), /^The sum of 7/);
  },

  async tools() {
    const more = old ? { maxSteps: 3 } : { stopWhen: ({ steps }) => steps.length >= 3 };
    for (const toolChoice of ["auto", { type: "tool", toolName: "add" }]) {
      const asked = { ...few, model: modelport("fake/fault:tool_call"), tools: { add }, toolChoice };
      const stream = streamText({ ...asked, ...(toolChoice === "auto" ? more : {}) });
      const parts = [];
      for await (const part of stream.fullStream) parts.push(part);
      const call = parts.find((part) => part.type === "tool-call");
      const result = parts.find((part) => part.type === "tool-result");
      assert.equal(call.toolName, "add");
      assert.deepEqual(call.args ?? call.input, { a: 7, b: 5 });
      assert.equal(result.result ?? result.output, 12);
      if (toolChoice === "auto") assert.match(await stream.text, /^The sum of 7/);
    }
  },

  async reasoning() {
    const asked = { ...few, maxTokens: undefined, maxOutputTokens: undefined };
    for (const engine of ["fake/fault:thinking", "fake/fault:thinking_old"]) {
      let thoughts = "";
      const stream = streamText({ ...asked, model: modelport(engine) });
      for await (const part of stream.fullStream) {
        if (part.type === "reasoning" || part.type === "reasoning-delta") thoughts += part.textDelta ?? part.text ?? "";
      }
      assert.equal(thoughts, "Seven and five.", engine);
      assert.match(await stream.text, /^The sum of 7/);
    }
  },

  async cut_stream() {
    const stream = streamText({ ...few, model: modelport("fake/fault:fin_mid_stream"), onError() {} });
    const parts = [];
    let thrown;
    try {
      for await (const part of stream.fullStream) parts.push(part);
    } catch (error) {
      thrown = error;
    }
    assert.ok(thrown || parts.some((part) => part.type === "error"), JSON.stringify(parts));
  },

  async error() {
    await assert.rejects(generateText({ ...few, model: modelport("nobody") }), (error) => {
      assert.equal(error.statusCode, 404);
      return true;
    });
  },
};

await journeys[name]();
console.log("done");
