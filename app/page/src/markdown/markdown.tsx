// A component for an answer's text.
import { effect, type ReadonlySignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { copy } from "../browser/files";
import { words } from "../words/words";
import { GrowingMarkdown } from "./growing";

interface Props {
  text: ReadonlySignal<string>;
}

/** Shows the text as it grows, at most once for each frame. */
export function Markdown({ text }: Props) {
  const host = useRef<HTMLDivElement>(null);
  const language = words.value;
  useEffect(() => {
    const { copy: label, copied, image } = language.answer;
    const growing = new GrowingMarkdown(host.current!, { copy: label, copied, image, onCopy: copy });
    host.current!.replaceChildren();
    let frame = 0;
    const stop = effect(() => {
      const now = text.value;
      cancelAnimationFrame(frame);
      frame = requestAnimationFrame(() => growing.show(now));
    });
    return () => {
      stop();
      cancelAnimationFrame(frame);
    };
  }, [text, language]);
  return <div class="markdown" dir="auto" ref={host} />;
}
