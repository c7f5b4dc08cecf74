// The questions on which a model changed most, with both texts and what differs.
import { Differences } from "../compare/differences";
import type { Report } from "../gateway/reports";
import { number, words } from "../words/words";

export function Changes({ changes, questions }: { changes: Report["findings"]["changes"]; questions: Report["questions"] }) {
  const say = words.value.reports;
  const byId = new Map(questions.map((each) => [each.id, each]));
  if (!changes.length) return null;
  return (
    <section class="stack">
      <h2>{say.changes}</h2>
      {changes.map((change) => {
        const asked = byId.get(change.question);
        const text = (name: string) => {
          const answer = asked?.answers.find((each) => each.model === name);
          return answer?.error ?? answer?.text ?? "";
        };
        return (
          <details key={change.question + change.model} class="card">
            <summary>
              <span dir="auto">{asked?.prompt ?? change.question}</span>
              <b>{number(change.first_score, 2)} → {number(change.score, 2)}</b>
            </summary>
            {asked?.reference && <p class="muted" dir="auto">{say.reference}: {asked.reference}</p>}
            <div class="sides of-2">
              <article class="side-answer side-0"><header><h3 dir="auto">{change.against}</h3></header><p class="differences" dir="auto">{text(change.against)}</p></article>
              <article class="side-answer side-1"><header><h3 dir="auto">{change.model}</h3></header><Differences first={text(change.against)} second={text(change.model)} /></article>
            </div>
          </details>
        );
      })}
    </section>
  );
}
