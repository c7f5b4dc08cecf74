// What went wrong, as a sentence.
import { Refusal } from "../gateway/http";
import { failureText } from "../words/failures";

export function told(error: unknown): string {
  return error instanceof Refusal ? failureText(error) : String(error);
}
