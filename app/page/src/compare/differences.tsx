// What one text has otherwise than another, by words: Chinese by words, too, as the browser knows where they end.
import { diffArrays } from "diff";
import { useMemo } from "preact/hooks";

export interface Part {
  text: string;
  kind: "same" | "added" | "removed";
}

const PATIENCE_MS = 800;

function wordsOf(text: string): string[] {
  return Array.from(new Intl.Segmenter(undefined, { granularity: "word" }).segment(text), (each) => each.segment);
}

/** The second text as what it kept of the first, what it has not, and what it has instead. */
export function differences(first: string, second: string): Part[] {
  const changes = diffArrays(wordsOf(first), wordsOf(second), { timeout: PATIENCE_MS });
  // Texts so unlike that finding what they share takes long: one in place of the other.
  if (!changes) return tidy([{ text: first, kind: "removed" }, { text: second, kind: "added" }]);
  return tidy(
    changes.map((each) => ({
      text: each.value.join(""),
      kind: each.added ? "added" : each.removed ? "removed" : "same",
    })),
  );
}

/** Changes with only a space or a comma between them are read as one. */
function tidy(parts: Part[]): Part[] {
  const result: Part[] = [];
  let removed = "";
  let added = "";
  const flush = () => {
    if (removed) result.push({ text: removed, kind: "removed" });
    if (added) result.push({ text: added, kind: "added" });
    removed = added = "";
  };
  parts.forEach((part, at) => {
    if (part.kind === "removed") removed += part.text;
    else if (part.kind === "added") added += part.text;
    else if ((removed || added) && at + 1 < parts.length && /^[\s\p{P}]{1,2}$/u.test(part.text) && !part.text.includes("\n")) {
      removed += part.text;
      added += part.text;
    } else {
      flush();
      result.push(part);
    }
  });
  flush();
  return result;
}

export function Differences({ first, second }: { first: string; second: string }) {
  const parts = useMemo(() => differences(first, second), [first, second]);
  return (
    <p class="differences" dir="auto">
      {parts.map(({ text, kind }) => (kind === "added" ? <ins>{text}</ins> : kind === "removed" ? <del>{text}</del> : text))}
    </p>
  );
}
