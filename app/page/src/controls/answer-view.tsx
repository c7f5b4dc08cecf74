// One answer: what was thought, folded; the text; how it ended; its figures.
import { useEffect, useState } from "preact/hooks";
import { type Answer, rate } from "../gateway/answer";
import { Markdown } from "../markdown/markdown";
import { number, seconds, words } from "../words/words";
import { Failure } from "./notice";

export function AnswerView({ answer }: { answer: Answer }) {
  const say = words.value.answer;
  const phase = answer.phase.value;
  return (
    <div class="answer" aria-busy={!answer.isWhole.value}>
      {answer.thinking.value && <Thinking answer={answer} />}
      {phase === "waiting" && <Waiting />}
      <Markdown text={answer.text} />
      {phase === "stopped" && <p class="muted end-note">{say.stopped}</p>}
      {phase === "failed" && <Failure>{answer.failure.value || say.failed}</Failure>}
      {phase === "done" && !answer.text.value && <p class="muted end-note">{say.empty}</p>}
      {phase === "done" && answer.figures.value.finish === "length" && <p class="muted end-note">{say.cutShort}</p>}
    </div>
  );
}

/** Says after a while that a model may be loading, since a user cannot tell that from a failure. */
function Waiting() {
  const [isLong, setLong] = useState(false);
  useEffect(() => {
    const timer = setTimeout(() => setLong(true), 4000);
    return () => clearTimeout(timer);
  }, []);
  return (
    <p class="loading">
      <span class="dots" aria-hidden="true" />
      {isLong ? words.value.answer.maybeLoading : words.value.answer.waiting}
    </p>
  );
}

function Thinking({ answer }: { answer: Answer }) {
  const say = words.value.answer;
  const isOpen = answer.phase.value === "thinking";
  return (
    <details class="thinking">
      <summary>
        {isOpen ? say.thinking : say.thought}
        {isOpen && <span class="dots" aria-hidden="true" />}
      </summary>
      <div class="thought" dir="auto">{answer.thinking.value}</div>
    </details>
  );
}

/** First token, speed and length: only what is known. */
export function FiguresLine({ answer }: { answer: Answer }) {
  const say = words.value.figures;
  const { first_s, seconds: took, completion_tokens, prompt_tokens } = answer.figures.value;
  const speed = rate(answer.figures.value);
  if (!answer.isWhole.value) return null;
  const parts: [string, string][] = [];
  if (first_s !== null) parts.push([say.first, seconds(first_s)]);
  if (took !== null) parts.push([say.total, seconds(took)]);
  if (speed !== null) parts.push([say.rate, `${number(speed, speed < 20 ? 1 : 0)}/s`]);
  if (completion_tokens !== null) parts.push([say.tokens, number(completion_tokens)]);
  if (prompt_tokens !== null) parts.push([say.prompt, number(prompt_tokens)]);
  return (
    <dl class="figures">
      {parts.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}
