// A chat with one model: the request, and the answer as it streams.
import { failureText } from "../words/failures";
import type { Answer } from "./answer";
import { ask, isAbort, Refusal } from "./http";
import { events } from "./sse";

export type Content = string | ({ type: "text"; text: string } | { type: "image_url"; image_url: { url: string } })[];

export interface Message {
  role: "system" | "user" | "assistant";
  content: Content;
}

/** What a user says, with pictures beside it. */
export function content(text: string, images: readonly string[]): Content {
  if (!images.length) return text;
  return [...images.map((url) => ({ type: "image_url" as const, image_url: { url } })), { type: "text" as const, text }];
}

interface Chunk {
  error?: { message?: string };
  usage?: { prompt_tokens?: number; completion_tokens?: number } | null;
  choices?: { delta?: Delta; finish_reason?: string | null }[];
}

export interface Delta {
  content?: string | null;
  reasoning?: string | null;
  reasoning_content?: string | null;
}

/** Have the answer written into `answer`, and its end told there, whatever the end is. It never rejects. */
export async function chat(
  answer: Answer,
  model: string,
  messages: Message[],
  fields: Record<string, unknown>,
  signal: AbortSignal,
): Promise<void> {
  const started = performance.now();
  const since = () => (performance.now() - started) / 1000;
  try {
    const body = { ...fields, model, messages, stream: true, stream_options: { include_usage: true } };
    const response = await ask("v1/chat/completions", { body, signal });
    for await (const { data } of events(response)) {
      if (data === "[DONE]") {
        answer.end("done");
        break;
      }
      const chunk = JSON.parse(data) as Chunk;
      if (chunk.error) throw new Refusal(0, "stream", chunk.error.message ?? "");
      read(answer, chunk, since());
    }
    answer.end("failed", failureText(new Refusal(0, "cut", "")));
  } catch (error) {
    if (isAbort(error) || signal.aborted) answer.end("stopped");
    else answer.end("failed", failureText(error instanceof Refusal ? error : new Refusal(0, "cut", "")));
  } finally {
    answer.note({ seconds: since() });
  }
}

function read(answer: Answer, chunk: Chunk, since_s: number): void {
  const choice = chunk.choices?.[0];
  if (choice?.delta) addDelta(answer, choice.delta, since_s);
  if (choice?.finish_reason) answer.note({ finish: choice.finish_reason });
  if (chunk.usage) {
    const { prompt_tokens = null, completion_tokens = null } = chunk.usage;
    answer.note({ prompt_tokens, completion_tokens });
  }
}

/** What one event adds; the first that adds anything is the first token. */
export function addDelta(answer: Answer, delta: Delta, since_s: number | null): void {
  const thought = delta.reasoning_content ?? delta.reasoning;
  if (since_s !== null && (thought || delta.content) && answer.figures.peek().first_s === null) answer.note({ first_s: since_s });
  if (thought) answer.addThinking(thought);
  if (delta.content) answer.addText(delta.content);
}
