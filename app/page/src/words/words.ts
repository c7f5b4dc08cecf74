// The page's words in the language that the user has chosen.
import { computed, effect } from "@preact/signals";
import { language } from "../browser/settings";
import { en } from "./en";
import { zh } from "./zh";

/** What every language has to say. */
export type Words = typeof en;

export const LANGUAGES = { en: "English", zh: "中文" } as const;
export const words = computed<Words>(() => (language.value === "zh" ? zh : en));

effect(() => {
  document.documentElement.lang = language.value === "zh" ? "zh-CN" : "en";
});

/** A number as it is written in this language, with so many digits behind the point. */
export function number(value: number, digits = 0): string {
  return value.toLocaleString(language.value, { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

/** A duration, as exactly as it matters. */
export function seconds(value: number): string {
  return value < 1 ? `${number(value * 1000)} ms` : `${number(value, value < 10 ? 2 : 1)} s`;
}

export function when(at: number): string {
  const then = new Date(at);
  const isToday = then.toDateString() === new Date().toDateString();
  return then.toLocaleString(language.value, isToday ? { timeStyle: "short" } : { dateStyle: "medium" });
}
