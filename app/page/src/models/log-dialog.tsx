// The last lines of an engine, read again every two seconds while they are looked at.
import { useEffect, useRef, useState } from "preact/hooks";
import { Dialog } from "../controls/dialog";
import { Failure, Loading } from "../controls/notice";
import { Refusal } from "../gateway/http";
import { logTail } from "../gateway/models";
import { failureText } from "../words/failures";
import { words } from "../words/words";

export function LogDialog({ backend, onClose }: { backend: string; onClose: () => void }) {
  const say = words.value.models;
  const [lines, setLines] = useState<string[] | null>(null);
  const [failure, setFailure] = useState("");
  const text = useRef<HTMLPreElement>(null);
  useEffect(() => {
    let isOver = false;
    const read = async () => {
      try {
        const now = await logTail(backend);
        if (isOver) return;
        setLines(now);
        setFailure("");
      } catch (error) {
        if (!isOver && error instanceof Refusal) setFailure(failureText(error));
      }
    };
    void read();
    const timer = setInterval(() => void read(), 2000);
    return () => {
      isOver = true;
      clearInterval(timer);
    };
  }, [backend]);
  useEffect(() => {
    if (text.current) text.current.scrollTop = text.current.scrollHeight;
  }, [lines?.length]);
  return (
    <Dialog title={say.logOf(backend)} onClose={onClose}>
      {failure && <Failure>{failure}</Failure>}
      {lines === null && !failure && <Loading label={words.value.loading} />}
      {lines?.length === 0 && <p class="muted">{say.noLog}</p>}
      {lines !== null && lines.length > 0 && <pre class="log" ref={text} tabindex={0} dir="ltr">{lines.join("\n")}</pre>}
    </Dialog>
  );
}
