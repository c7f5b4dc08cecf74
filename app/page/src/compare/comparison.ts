// A comparison: one question, the answers of several models, and a vote.
import { type Signal, signal } from "@preact/signals";
import { newId, Shelf } from "../browser/shelf";
import { parameters, requestFields, systemPrompt } from "../browser/settings";
import { Answer, type Figures } from "../gateway/answer";
import { content, type Message } from "../gateway/chat";
import { compare, noteEnd, type Start, vote, type Winner } from "../gateway/compare";
import { Refusal } from "../gateway/http";

export interface KeptComparison {
  id: string;
  updated: number;
  title: string;
  question: string;
  images: string[];
  system: string;
  /** The models that were asked. In a blind comparison without a vote their order says nothing. */
  asked: string[];
  /** Whose the answers are, in their order; null while that is hidden. */
  names: string[] | null;
  settings: Record<string, unknown>;
  answers: { text: string; thinking: string; how: "done" | "stopped" | "failed"; failure: string; figures: Figures }[];
  winner: Winner | null;
  /** The gateway's id of a blind comparison that takes a vote. */
  ticket: string | null;
}

export const comparisons = new Shelf<KeptComparison>("comparisons");

const TITLE_LENGTH = 60;
export const LETTERS = ["A", "B", "C"];

/** A comparison that is open. */
export class Comparison {
  readonly names: Signal<string[] | null>;
  readonly waiting = signal("");
  readonly warnings = signal<string[]>([]);
  readonly failure = signal<Refusal | null>(null);
  readonly winner: Signal<Winner | null> = signal(null);
  readonly isBusy = signal(false);
  /** The gateway's id while a blind vote is due. */
  readonly ticket = signal<string | null>(null);
  readonly settings = signal<Record<string, unknown>>({});
  private stopping: AbortController | null = null;
  private system = "";

  constructor(
    readonly question: string,
    readonly images: string[],
    readonly asked: string[],
    readonly isBlind: boolean,
    readonly answers: Answer[] = asked.map(() => new Answer()),
    readonly id: string = newId(),
  ) {
    this.names = signal(isBlind ? null : asked);
  }

  static kept(kept: KeptComparison): Comparison {
    const answers = kept.answers.map((each) => Answer.kept(each.text, each.thinking, each.how, each.failure, each.figures));
    const isBlind = kept.names === null || kept.ticket !== null;
    const opened = new Comparison(kept.question, kept.images, kept.asked, isBlind, answers, kept.id);
    opened.names.value = kept.names;
    opened.winner.value = kept.winner;
    opened.ticket.value = kept.ticket;
    opened.settings.value = kept.settings;
    opened.system = kept.system;
    return opened;
  }

  /** Ask all models. `force`: although they are not comparable. */
  async run(force: boolean): Promise<void> {
    const fields = requestFields(parameters.value);
    if ("wrong" in fields) return;
    this.system = systemPrompt.value.trim();
    const said: Message = { role: "user", content: content(this.question, this.images) };
    const messages: Message[] = this.system ? [{ role: "system", content: this.system }, said] : [said];
    this.stopping = new AbortController();
    this.isBusy.value = true;
    this.failure.value = null;
    const how = { blind: this.isBlind, force, signal: this.stopping.signal };
    try {
      await compare(this.answers, this.asked, messages, fields, how, {
        onStart: (start) => this.begin(start),
        onWaiting: (_, reason) => { this.waiting.value = reason; },
        onEnd: (votable) => { if (!votable) this.ticket.value = null; },
      });
    } catch (error) {
      this.failure.value = error instanceof Refusal ? error : new Refusal(0, "cut", "");
    }
    this.waiting.value = "";
    this.isBusy.value = false;
    if (!this.failure.value) this.keep();
  }

  stop(): void {
    this.stopping?.abort();
  }

  /** Record which answer is the best. Of a blind comparison the gateway keeps it, and tells whose the answers are. */
  async vote(winner: Winner): Promise<void> {
    if (this.ticket.value !== null && this.names.value === null) {
      try {
        const revealed = await vote(this.ticket.value, winner);
        this.names.value = revealed.models;
        revealed.answers.forEach((each) => this.answers[each.index] && noteEnd(this.answers[each.index]!, each));
      } catch (error) {
        if (error instanceof Refusal) this.failure.value = error;
        return;
      }
    }
    this.winner.value = winner;
    this.keep();
  }

  private begin(start: Start): void {
    this.settings.value = start.settings;
    this.warnings.value = start.warnings;
    if (start.models) this.names.value = start.models;
    if (this.isBlind) this.ticket.value = start.id;
  }

  private keep(): void {
    const title = this.question.trim();
    comparisons.put({
      id: this.id,
      updated: Date.now(),
      title: title.length > TITLE_LENGTH ? `${title.slice(0, TITLE_LENGTH)}…` : title,
      question: this.question,
      images: this.images,
      system: this.system,
      asked: this.asked,
      names: this.names.value,
      settings: this.settings.value,
      answers: this.answers.map((each) => {
        const phase = each.phase.value;
        const how = phase === "done" || phase === "failed" ? phase : "stopped";
        return { text: each.text.value, thinking: each.thinking.value, how, failure: each.failure.value, figures: each.figures.value };
      }),
      winner: this.winner.value,
      ticket: this.ticket.value,
    });
  }
}

