// A component for an answer's text.
import { effect, type ReadonlySignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { copy } from "../browser/files";
import { words } from "../words/words";
import { GrowingMarkdown } from "./growing";

interface Props {
  text: ReadonlySignal<string>;
  /** Whether no more will come. */
  whole: ReadonlySignal<boolean>;
}

/** Shows the text as it grows, at most once for each frame. */
export function Markdown({ text, whole }: Props) {
  const host = useRef<HTMLDivElement>(null);
  const language = words.value;
  useEffect(() => {
    const { copy: label, copied, image } = language.answer;
    const growing = new GrowingMarkdown(host.current!, { copy: label, copied, image, onCopy: copy });
    host.current!.replaceChildren();
    let frame = 0;
    const stop = effect(() => {
      const [now, isWhole] = [text.value, whole.value];
      cancelAnimationFrame(frame);
      frame = requestAnimationFrame(() => growing.show(now, isWhole));
    });
    return () => {
      stop();
      cancelAnimationFrame(frame);
    };
  }, [text, whole, language]);
  return <div class="markdown" dir="auto" ref={host} />;
}
