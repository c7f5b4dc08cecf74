// What went wrong, in the user's language: the gateway's own sentence, or ours where there is none.
import type { Refusal } from "../gateway/http";
import { words } from "./words";

export function failureText(refusal: Refusal): string {
  const say = words.peek().failure;
  if (refusal.code === "cut") return say.cut;
  if (refusal.code === "unreachable") return say.unreachable;
  if (refusal.status === 401) return say.key;
  return refusal.message || say.status(refusal.status);
}
