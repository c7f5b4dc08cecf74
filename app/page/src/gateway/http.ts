// Requests to the gateway that served this page: with the key that was given, and with failures in words.
import { signal } from "@preact/signals";
import { key } from "../browser/settings";

/** What the gateway refused, or why it could not be asked: `status` is 0 where no response came at all. */
export class Refusal extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
  ) {
    super(message);
  }
}

/** Whether the gateway has refused the key (or that there is none); cleared when another is given. */
export const wantsKey = signal(false);

export interface Asking {
  body?: unknown;
  method?: string;
  signal?: AbortSignal;
}

/** The response to a request, once its head is there. Refusal for every status that is not a success. */
export async function ask(path: string, asking: Asking = {}): Promise<Response> {
  const headers = new Headers({ "x-modelport-client": "page" });
  if (key.value) headers.set("authorization", `Bearer ${key.value}`);
  if (asking.body !== undefined) headers.set("content-type", "application/json");
  const used = key.value;
  let response: Response;
  try {
    response = await fetch(path, {
      method: asking.method ?? (asking.body === undefined ? "GET" : "POST"),
      headers,
      cache: "no-store",
      ...(asking.body === undefined ? {} : { body: JSON.stringify(asking.body) }),
      ...(asking.signal ? { signal: asking.signal } : {}),
    });
  } catch (error) {
    if (isAbort(error)) throw error;
    throw new Refusal(0, "unreachable", "");
  }
  if (response.status === 401 && used === key.value) wantsKey.value = true;
  if (!response.ok) throw refusal(response.status, await response.text().catch(() => ""));
  return response;
}

/** The response's JSON. */
export async function askJson<T>(path: string, asking: Asking = {}): Promise<T> {
  return (await (await ask(path, asking)).json()) as T;
}

/** The refusal that a body of OpenAI's or Ollama's shape tells. */
function refusal(status: number, body: string): Refusal {
  try {
    const { error, detail } = JSON.parse(body);
    if (typeof error === "string") return new Refusal(status, "", error);
    if (error?.message) return new Refusal(status, String(error.code ?? error.type ?? ""), String(error.message));
    if (typeof detail === "string") return new Refusal(status, "", detail);
  } catch {
    // Not JSON: a proxy's page, perhaps.
  }
  return new Refusal(status, "", body.startsWith("<") ? "" : body.slice(0, 300));
}

/** Whether the user, and not a failure, ended it. */
export function isAbort(error: unknown): boolean {
  return error instanceof DOMException && error.name === "AbortError";
}
