// A conversation: what was said, as it is kept, and as it goes on.
import { type Signal, signal } from "@preact/signals";
import { newId, Shelf } from "../browser/shelf";
import { parameters, requestFields, systemPrompt } from "../browser/settings";
import { Answer, type Figures } from "../gateway/answer";
import { chat, content, type Message } from "../gateway/chat";

export interface KeptTurn {
  role: "user" | "assistant";
  text: string;
  images?: string[];
  thinking?: string;
  model?: string;
  how?: "done" | "stopped" | "failed";
  failure?: string;
  figures?: Figures;
}

export interface KeptChat {
  id: string;
  updated: number;
  title: string;
  system: string;
  turns: KeptTurn[];
}

/** What a user said, or an answer of a model. */
export type Turn = { role: "user"; text: string; images: string[] } | { role: "assistant"; model: string; answer: Answer };

export const chats = new Shelf<KeptChat>("chats");

const TITLE_LENGTH = 60;

/** A conversation that is open. Only one answer comes at a time. */
export class Conversation {
  readonly turns: Signal<Turn[]> = signal([]);
  readonly isBusy = signal(false);
  private stopping: AbortController | null = null;

  constructor(
    readonly id: string = newId(),
    turns: Turn[] = [],
  ) {
    this.turns.value = turns;
  }

  static kept(kept: KeptChat): Conversation {
    const turns = kept.turns.map((each): Turn =>
      each.role === "user"
        ? { role: "user", text: each.text, images: each.images ?? [] }
        : { role: "assistant", model: each.model ?? "", answer: keptAnswer(each) },
    );
    return new Conversation(kept.id, turns);
  }

  /** Say something, and have the model answer. */
  async say(model: string, text: string, images: string[]): Promise<void> {
    this.turns.value = [...this.turns.value, { role: "user", text, images }];
    await this.answer(model);
  }

  /** Have the last question answered again. */
  async again(model: string): Promise<void> {
    this.turns.value = this.turns.value.slice(0, -1);
    await this.answer(model);
  }

  /** Take the last question and its answer back; the question is returned. */
  takeBack(): { text: string; images: string[] } {
    const at = this.turns.value.findLastIndex((each) => each.role === "user");
    const last = this.turns.value[at] as Turn & { role: "user" };
    this.turns.value = this.turns.value.slice(0, at);
    return last;
  }

  stop(): void {
    this.stopping?.abort();
  }

  private async answer(model: string): Promise<void> {
    const fields = requestFields(parameters.value);
    if ("wrong" in fields) return;
    const messages = this.messages();
    const answer = new Answer();
    this.turns.value = [...this.turns.value, { role: "assistant", model, answer }];
    this.stopping = new AbortController();
    this.isBusy.value = true;
    this.keep();
    await chat(answer, model, messages, fields, this.stopping.signal);
    this.isBusy.value = false;
    this.keep();
  }

  /** What the model is sent: no thoughts, and no answers that failed before their first word. */
  private messages(): Message[] {
    const system = systemPrompt.value.trim();
    const said = this.turns.value.flatMap((each): Message[] => {
      if (each.role === "user") return [{ role: "user", content: content(each.text, each.images) }];
      const text = each.answer.text.value;
      return text ? [{ role: "assistant", content: text }] : [];
    });
    return system ? [{ role: "system", content: system }, ...said] : said;
  }

  private keep(): void {
    const turns = this.turns.value.map(keptTurn);
    const first = turns.find((each) => each.role === "user")?.text.trim() ?? "";
    const title = first.length > TITLE_LENGTH ? `${first.slice(0, TITLE_LENGTH)}…` : first;
    chats.put({ id: this.id, updated: Date.now(), title, system: systemPrompt.value, turns });
  }
}

function keptTurn(turn: Turn): KeptTurn {
  if (turn.role === "user") {
    return { role: "user", text: turn.text, ...(turn.images.length ? { images: turn.images } : {}) };
  }
  const { answer, model } = turn;
  const phase = answer.phase.value;
  const isOver = phase === "done" || phase === "stopped" || phase === "failed";
  return {
    role: "assistant",
    model,
    text: answer.text.value,
    thinking: answer.thinking.value,
    how: isOver ? phase : "stopped", // the page was closed while it came
    failure: answer.failure.value,
    figures: answer.figures.value,
  };
}

function keptAnswer(kept: KeptTurn): Answer {
  const figures = kept.figures ?? { first_s: null, seconds: null, prompt_tokens: null, completion_tokens: null, finish: null };
  return Answer.kept(kept.text, kept.thinking ?? "", kept.how ?? "done", kept.failure ?? "", figures);
}
