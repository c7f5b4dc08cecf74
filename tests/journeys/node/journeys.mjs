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

  async tools() {
    const numbers = { type: "object", properties: { a: { type: "integer" }, b: { type: "integer" } } };
    const tools = [{ type: "function", function: { name: "add", description: "Adds.", parameters: numbers } }];
    const asked = { model: "fake/fault:tool_call", messages, tools };
    for (const tool_choice of ["auto", { type: "function", function: { name: "add" } }]) {
      const whole = await client.chat.completions.create({ ...asked, tool_choice });
      assert.equal(whole.choices[0].finish_reason, "tool_calls");
      const runner = client.chat.completions.stream({ ...asked, tool_choice });
      const streamed = await runner.finalMessage();
      for (const [call] of [whole.choices[0].message.tool_calls, streamed.tool_calls]) {
        assert.equal(call.function.name, "add");
        assert.deepEqual(JSON.parse(call.function.arguments), { a: 7, b: 5 });
      }
    }
  },

  async tool_runner() {
    const parameters = { type: "object", properties: { a: { type: "integer" }, b: { type: "integer" } } };
    const add = { name: "add", description: "Adds.", parameters, parse: JSON.parse, function: ({ a, b }) => `${a + b}` };
    const tools = [{ type: "function", function: add }];
    const runner = client.chat.completions.runTools({ model: "fake/fault:tool_call", messages, tools });
    assert.match(await runner.finalContent(), /^The sum of 7/);
    assert.equal(runner.messages.find((message) => message.role === "tool").content, "12");
  },

  async json_schema() {
    const schema = {
      type: "object",
      properties: { sum: { type: "integer" } },
      required: ["sum"],
      additionalProperties: false,
    };
    const response_format = { type: "json_schema", json_schema: { name: "sum", schema, strict: true } };
    const answer = await client.chat.completions.create({ ...few, max_tokens: 60, response_format });
    assert.ok(Number.isInteger(JSON.parse(answer.choices[0].message.content).sum));
  },

  async logprobs() {
    const asked = { ...few, logprobs: true, top_logprobs: 2 };
    const whole = (await client.chat.completions.create(asked)).choices[0].logprobs.content;
    const streamed = [];
    for await (const chunk of await client.chat.completions.create({ ...asked, stream: true }))
      streamed.push(...(chunk.choices[0].logprobs?.content ?? []));
    for (const tokens of [whole, streamed])
      assert.ok(tokens.length && tokens.every((one) => one.logprob <= 0 && one.top_logprobs.length === 2));
  },

  async responses() {
    const asked = { model, input: "What is 7+5?", max_output_tokens: 4, temperature: 0 };
    const whole = await client.responses.create(asked);
    assert.ok(whole.output_text);
    let text = "";
    for await (const event of await client.responses.create({ ...asked, stream: true }))
      if (event.type === "response.output_text.delta") text += event.delta;
    assert.equal(text, whole.output_text);
    const runner = client.responses.stream(asked);
    assert.equal((await runner.finalResponse()).output_text, whole.output_text);
  },

  async transcription() {
    const file = new File([new Uint8Array(2000)], "a.wav", { type: "audio/wav" });
    const heard = await client.audio.transcriptions.create({ model: "fake/fake", file });
    assert.equal(heard.text, "Zwölf ist die Summe.");
  },

  async retries() {
    let sent = 0;
    let waits = 0;
    const counted = (url, init) => (sent++, fetch(url, init));
    const hurried = new OpenAI({ baseURL, apiKey: "none", maxRetries: 2, fetch: counted });
    const timer = globalThis.setTimeout;
    // The engine's Retry-After is 7 s: seen, and not waited for.
    globalThis.setTimeout = (call, ms, ...rest) => timer(call, ms === 7000 ? (waits++, 0) : ms, ...rest);
    const cases = [
      ["fake/fault:status_429_vllm", 3, 2],
      ["fake/fault:status_503_vllm", 3, 2],
      ["fake/fault:status_500_vllm", 1, 0],
    ];
    for (const [failing, requests, waited] of cases) {
      sent = waits = 0;
      await assert.rejects(hurried.chat.completions.create({ ...few, model: failing }), OpenAI.APIError);
      assert.deepEqual([sent, waits], [requests, waited], failing);
    }
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

  async told_to_wait() {
    const count = Number(process.env.JOURNEY_REQUESTS);
    const [told, waited] = [[], []];
    const noting = async (url, init) => {
      const response = await fetch(url, init);
      if (response.status === 429) told.push(Number(response.headers.get("retry-after-ms")));
      return response;
    };
    const timer = globalThis.setTimeout;
    globalThis.setTimeout = (call, ms, ...rest) => (waited.push(ms), timer(call, ms, ...rest));
    const patient = new OpenAI({ baseURL, apiKey: process.env.JOURNEY_KEY, fetch: noting });
    const asked = { ...few, model: process.env.JOURNEY_MODEL };
    const asking = Array.from({ length: count }, () => patient.chat.completions.create(asked));
    for (const answer of await Promise.all(asking)) assert.ok(answer.choices[0].message.content);
    assert.ok(told.length >= 1, "nobody was told to wait");
    for (const ms of told) assert.ok(waited.includes(ms), `${ms} ms were told, and not waited: ${waited}`);
    console.log(told.join(" "));
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
