// Comparisons as JSONL for further tuning: preferences, as LLaMA-Factory reads them (ShareGPT with a ranking).
import { download } from "../browser/files";
import type { KeptComparison } from "./comparison";

/** A line for each loser of each vote that had a winner; what was not voted on, and ties, teach nothing. Pure. */
export function preferenceLines(all: readonly KeptComparison[]): string[] {
  return all.flatMap(({ winner, answers, names, question, system }) => {
    if (typeof winner !== "number" || !answers[winner]) return [];
    const conversations = [...(system ? [{ from: "system", value: system }] : []), { from: "human", value: question }];
    const said = (at: number) => ({ from: "gpt", value: answers[at]!.text });
    const losers = answers.map((_, at) => at).filter((at) => at !== winner);
    return losers.map((at) =>
      JSON.stringify({ conversations, chosen: said(winner), rejected: said(at), models: [names?.[winner], names?.[at]] }),
    );
  });
}

export function exportComparisons(all: readonly KeptComparison[]): void {
  download("modelport-preferences.jsonl", preferenceLines(all).map((each) => `${each}\n`).join(""), "application/jsonl");
}
