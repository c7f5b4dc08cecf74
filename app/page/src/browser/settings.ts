// What the user has chosen, kept in this browser: language, theme, key, parameters.
import { computed, effect, type Signal, signal } from "@preact/signals";

export type Language = "en" | "zh";
export type Theme = "auto" | "light" | "dark";

/** Parameters of every request; an empty text is "as the engine has it". */
export interface Parameters {
  temperature: string;
  top_p: string;
  max_tokens: string;
  seed: string;
  stop: string;
  more: string;
}

export const NO_PARAMETERS: Parameters = { temperature: "", top_p: "", max_tokens: "", seed: "", stop: "", more: "" };

function read(place: Storage, name: string): string | null {
  try {
    return place.getItem(`modelport.${name}`);
  } catch {
    return null; // storage is switched off: nothing is remembered
  }
}

function write(place: Storage, name: string, value: string): void {
  try {
    if (value) place.setItem(`modelport.${name}`, value);
    else place.removeItem(`modelport.${name}`);
  } catch {
    // As above, or full.
  }
}

function kept<T extends string>(name: string, initial: T): Signal<T> {
  const value = signal((read(localStorage, name) as T | null) ?? initial);
  effect(() => write(localStorage, name, value.value));
  return value;
}

function keptJson<T extends object>(name: string, initial: T): Signal<T> {
  const text = kept<string>(name, "");
  let start = initial;
  try {
    start = text.peek() ? { ...initial, ...JSON.parse(text.peek()) } : initial;
  } catch {
    // Written by another version.
  }
  const value = signal(start);
  effect(() => {
    text.value = JSON.stringify(value.value);
  });
  return value;
}

export const language = kept<Language>("language", navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en");
export const theme = kept<Theme>("theme", "auto");
export const chatModel = kept<string>("model", "");
export const systemPrompt = kept<string>("system", "");
export const parameters = keptJson("parameters", NO_PARAMETERS);
export const compared = keptJson<{ names: string[]; blind: boolean }>("compared", { names: ["", ""], blind: false });

/** Whether the key outlives this tab. */
export const keepsKey = signal(read(localStorage, "key") !== null);
export const key = signal(read(sessionStorage, "key") ?? read(localStorage, "key") ?? "");
effect(() => {
  write(sessionStorage, "key", key.value);
  write(localStorage, "key", keepsKey.value ? key.value : "");
});

/** The fields that a request gets; a text that says which field is wrong where one is. */
export function requestFields(values: Parameters): Record<string, unknown> | { wrong: keyof Parameters } {
  const fields: Record<string, unknown> = {};
  for (const name of ["temperature", "top_p", "max_tokens", "seed"] as const) {
    const text = values[name].trim();
    if (!text) continue;
    const number = Number(text);
    const isWhole = name === "max_tokens" || name === "seed";
    if (!Number.isFinite(number) || (isWhole && !Number.isInteger(number))) return { wrong: name };
    fields[name] = number;
  }
  const stops = values.stop.split("\n").filter(Boolean);
  if (stops.length) fields.stop = stops;
  if (values.more.trim()) {
    try {
      const more = JSON.parse(values.more);
      if (more === null || typeof more !== "object" || Array.isArray(more)) return { wrong: "more" };
      Object.assign(fields, more);
    } catch {
      return { wrong: "more" };
    }
  }
  return fields;
}

export const hasParameters = computed(() => Object.values(parameters.value).some((each) => each.trim() !== ""));
