// One question to several models: the request, and their answers as they stream together.
import { failureText } from "../words/failures";
import { Answer } from "./answer";
import { addDelta, type Delta, type Message } from "./chat";
import { ask, askJson, isAbort, Refusal } from "./http";
import { events } from "./sse";

/** What the gateway says of the comparison before the first word. */
export interface Start {
  id: string;
  models: string[] | null;
  answers?: number;
  blind: boolean;
  settings: Record<string, unknown>;
  filled: string[];
  warnings: string[];
}

interface Ended {
  usage?: { prompt_tokens: number | null; completion_tokens: number | null } | null;
  timing?: { first_token_s: number | null; seconds: number | null } | null;
}

interface ModelEvent extends Ended {
  index: number;
  delta?: Delta;
  finish_reason?: string | null;
  error?: { message?: string };
}

export interface Revealed {
  models: string[];
  answers: (Ended & { index: number; model: string })[];
}

export type Winner = number | "tie" | "all_bad";

/** What a comparison tells as it goes on. */
export interface Listener {
  onStart(start: Start): void;
  /** A model of the comparison loads; where it is not a blind one, its answer's index and what it waits for. */
  onWaiting(index: number | null, reason: string): void;
  onEnd(votable: boolean): void;
}

/** Have the answers written into `answers`. Refusal where nothing was compared; else it never rejects. */
export async function compare(
  answers: readonly Answer[],
  names: string[],
  messages: Message[],
  fields: Record<string, unknown>,
  how: { blind: boolean; force: boolean; signal: AbortSignal },
  listener: Listener,
): Promise<void> {
  const started = performance.now();
  const { blind, force, signal } = how;
  const body = { ...fields, models: names, messages, stream: true, blind, force };
  try {
    const response = await ask("v1/compare", { body, signal });
    for await (const { event, data } of events(response)) {
      const told = JSON.parse(data);
      if (event === "start") listener.onStart(told);
      else if (event === "waiting") listener.onWaiting(told.index ?? null, told.for ?? "");
      else if (event === "end") {
        listener.onEnd(Boolean(told.votable));
        break;
      } else if (answers[told.index]) read(answers[told.index]!, event, told, blind ? null : (performance.now() - started) / 1000);
    }
    endAll(answers, "failed", failureText(new Refusal(0, "cut", "")));
  } catch (error) {
    if (isAbort(error) || signal.aborted) endAll(answers, "stopped", "");
    else if (error instanceof Refusal) throw error;
    else endAll(answers, "failed", failureText(new Refusal(0, "cut", "")));
  }
}

function endAll(answers: readonly Answer[], how: "stopped" | "failed", why: string): void {
  answers.forEach((each) => each.end(how, why));
}

function read(answer: Answer, event: string, told: ModelEvent, since_s: number | null): void {
  if (event === "error") {
    answer.end("failed", told.error?.message ?? "");
    return;
  }
  if (told.delta) addDelta(answer, told.delta, since_s);
  if (told.finish_reason) {
    answer.note({ finish: told.finish_reason });
    noteEnd(answer, told);
    answer.end("done");
  }
}

/** The gateway's own figures take the place of what was measured here. */
export function noteEnd(answer: Answer, { usage, timing }: Ended): void {
  if (timing) answer.note({ first_s: timing.first_token_s, seconds: timing.seconds });
  if (usage) answer.note({ prompt_tokens: usage.prompt_tokens, completion_tokens: usage.completion_tokens });
}

/** Store a vote for a blind comparison; what was hidden is told in return. */
export function vote(id: string, winner: Winner): Promise<Revealed> {
  return askJson<Revealed>("v1/compare/votes", { body: { id, winner } });
}

export interface Tally {
  votes: number;
  models: { model: string; wins: number; losses: number; ties: number; strength: number | null; low: number | null; high: number | null }[];
}

/** All votes of blind comparisons between models that this key may use. */
export function tally(): Promise<Tally> {
  return askJson<Tally>("v1/compare/votes");
}
