// One answer of one model while it comes, and how it was.
import { computed, type Signal, signal } from "@preact/signals";

export type Phase = "waiting" | "thinking" | "writing" | "done" | "stopped" | "failed";

/** What is known of how an answer came; null where nobody told. */
export interface Figures {
  first_s: number | null;
  seconds: number | null;
  prompt_tokens: number | null;
  completion_tokens: number | null;
  finish: string | null;
}

export const NO_FIGURES: Figures = {
  first_s: null,
  seconds: null,
  prompt_tokens: null,
  completion_tokens: null,
  finish: null,
};

/** Tokens for each second between the first and the last; null where that is not known. */
export function rate(figures: Figures): number | null {
  const { first_s, seconds, completion_tokens } = figures;
  if (seconds === null || completion_tokens === null || completion_tokens < 2) return null;
  const writing = seconds - (first_s ?? 0);
  return writing > 0 ? (first_s === null ? completion_tokens : completion_tokens - 1) / writing : null;
}

/** The model's text with what it thought beforehand apart, also where it writes that into its text as <think>. */
export function withoutThinking(raw: string): { thinking: string; text: string; isOpen: boolean } {
  const start = raw.trimStart();
  if (!start.startsWith("<think>")) {
    const isBeginning = start !== "" && "<think>".startsWith(start);
    return { thinking: "", text: isBeginning ? "" : raw, isOpen: isBeginning };
  }
  const end = start.indexOf("</think>");
  if (end < 0) return { thinking: start.slice(7), text: "", isOpen: true };
  return { thinking: start.slice(7, end).trim(), text: start.slice(end + 8).trimStart(), isOpen: false };
}

/** An answer that grows. Whoever makes it calls `add…` and, once, `end`. */
export class Answer {
  private readonly raw = signal("");
  private readonly told = signal("");
  private readonly parts = computed(() => withoutThinking(this.raw.value));
  private readonly ended: Signal<"done" | "stopped" | "failed" | null> = signal(null);
  readonly failure = signal("");
  readonly figures = signal<Figures>(NO_FIGURES);
  readonly text = computed(() => {
    const { text, isOpen } = this.parts.value;
    // What looked like the beginning of a thought and ended there was the text.
    return isOpen && this.ended.value && !this.parts.value.thinking ? this.raw.value : text;
  });
  readonly thinking = computed(() => this.told.value + this.parts.value.thinking);
  readonly isWhole = computed(() => this.ended.value !== null);
  readonly phase = computed<Phase>(() => {
    if (this.ended.value) return this.ended.value;
    if (this.text.value) return "writing";
    return this.thinking.value ? "thinking" : "waiting";
  });

  addText(piece: string): void {
    this.raw.value += piece;
  }

  addThinking(piece: string): void {
    this.told.value += piece;
  }

  note(figures: Partial<Figures>): void {
    this.figures.value = { ...this.figures.value, ...figures };
  }

  end(how: "done" | "stopped" | "failed", failure = ""): void {
    if (this.ended.peek()) return;
    this.failure.value = failure;
    this.ended.value = how;
  }

  /** One that is over already, as it was kept. */
  static kept(text: string, thinking: string, how: "done" | "stopped" | "failed", failure: string, figures: Figures): Answer {
    const answer = new Answer();
    answer.told.value = thinking;
    answer.raw.value = text;
    answer.note(figures);
    answer.end(how, failure);
    return answer;
  }
}
