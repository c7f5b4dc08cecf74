// Conversations as JSONL for further tuning: one a line, as OpenAI's and most trainers read it.
import { download } from "../browser/files";
import type { KeptChat } from "./conversation";

/** A line for each conversation with a whole answer; what failed or was stopped ends the line before it. Pure. */
export function chatLines(all: readonly KeptChat[]): string[] {
  return all.flatMap((each) => {
    const messages: { role: string; content: string }[] = [];
    let complete = 0;
    if (each.system.trim()) messages.push({ role: "system", content: each.system.trim() });
    for (const turn of each.turns) {
      if (turn.role === "assistant" && (turn.how !== "done" || !turn.text)) break;
      messages.push({ role: turn.role, content: turn.text });
      if (turn.role === "assistant") complete = messages.length;
    }
    return complete ? [JSON.stringify({ messages: messages.slice(0, complete) })] : [];
  });
}

export function exportChats(all: readonly KeptChat[]): void {
  download("modelport-chats.jsonl", chatLines(all).map((each) => `${each}\n`).join(""), "application/jsonl");
}
