// What a user of openai-node does, one function for each journey; `node journeys.mjs NAME URL` runs one.
import assert from "node:assert/strict";
import OpenAI from "openai";

const [name, baseURL] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: process.env.JOURNEY_KEY ?? "none", maxRetries: 0 });
const model = "smollm2-135m-instruct";
const messages = [{ role: "user", content: "What is 7+5?" }];
const few = { model, messages, max_tokens: 4, temperature: 0 };

const gather = async (stream) => {
  let text = "";
  for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? "";
  return text;
};

const journeys = {
  async chat() {
    const answer = await client.chat.completions.create(few);
    assert.equal(answer.model, model);
    assert.ok(answer.choices[0].message.content);
    assert.ok(answer.usage.completion_tokens >= 1);
  },

  async stream() {
    assert.ok(await gather(await client.chat.completions.create({ ...few, stream: true })));
  },

  async stream_with_usage() {
    const chunks = [];
    const options = { stream: true, stream_options: { include_usage: true } };
    for await (const chunk of await client.chat.completions.create({ ...few, ...options })) chunks.push(chunk);
    assert.deepEqual(chunks.at(-1).choices, []);
    assert.ok(chunks.at(-1).usage.completion_tokens >= 1);
  },

  async stream_helper() {
    const runner = client.chat.completions.stream(few);
    let heard = "";
    runner.on("content", (piece) => (heard += piece));
    const content = await runner.finalContent();
    assert.ok(content);
    assert.equal(content, heard);
    assert.equal((await runner.finalChatCompletion()).model, model);
  },

  async completion() {
    const answer = await client.completions.create({ model, prompt: "One, two,", max_tokens: 4 });
    assert.ok(answer.choices[0].text);
  },

  async embeddings() {
    const answer = await client.embeddings.create({ model: "fake/fake", input: ["a", "b"] });
    assert.deepEqual(answer.data.map((one) => one.index), [0, 1]);
    assert.ok(answer.data.every((one) => one.embedding.every(Number.isFinite)));
  },

  async models() {
    const listed = [];
    for await (const one of client.models.list()) listed.push(one.id);
    assert.ok(listed.includes(model));
    assert.equal((await client.models.retrieve(model)).id, model);
  },

  async error_classes() {
    const cases = [
      ["nobody", OpenAI.NotFoundError, 404, "model_not_found"],
      ["fake/fault:status_429_vllm", OpenAI.RateLimitError, 429, "engine_saturated"],
      ["fake/fault:status_500_traceback", OpenAI.InternalServerError, 502, "engine_failed"],
      ["fake/fault:status_503_vllm", OpenAI.InternalServerError, 503, "engine_not_ready"],
      ["fake/fault:status_400_vllm", OpenAI.BadRequestError, 400, "invalid_request"],
    ];
    for (const [failing, kind, status, code] of cases) {
      await assert.rejects(client.chat.completions.create({ ...few, model: failing }), (error) => {
        assert.ok(error instanceof kind, `${failing}: ${error}`);
        assert.equal(error.status, status);
        assert.equal(error.code, code);
        assert.ok(error.requestID);
        return true;
      });
    }
    await assert.rejects(client.chat.completions.create({ model, messages: "hello" }), OpenAI.BadRequestError);
  },

  async wrong_key() {
    await assert.rejects(client.models.list(), OpenAI.AuthenticationError);
  },

  async cut_stream_in_the_sdk() {
    const stream = await client.chat.completions.create({ ...few, model: "fake/fault:fin_mid_stream", stream: true });
    let text = "";
    await assert.rejects(
      async () => {
        for await (const chunk of stream) text += chunk.choices[0].delta.content ?? "";
      },
      (error) => error instanceof OpenAI.APIError && error.code === "engine_disconnected",
    );
    assert.equal(text, "The sum of");
  },

  async cut_stream_in_the_helper() {
    const runner = client.chat.completions.stream({ ...few, model: "fake/fault:reset_mid_stream" });
    await assert.rejects(runner.finalContent(), OpenAI.OpenAIError);
  },

  async cut_stream_in_fetch() {
    const body = JSON.stringify({ ...few, model: "fake/fault:fin_mid_stream", stream: true });
    const headers = { "content-type": "application/json" };
    const answer = await fetch(`${baseURL}/chat/completions`, { method: "POST", headers, body });
    assert.equal(answer.status, 200);
    await assert.rejects(answer.text(), TypeError);
  },
};

await journeys[name]();
console.log("done");
