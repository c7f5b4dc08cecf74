// The answers of a comparison beside each other, with figures, differences and the vote.
import { useState } from "preact/hooks";
import { AnswerView, FiguresLine } from "../controls/answer-view";
import { Button } from "../controls/button";
import { Failure } from "../controls/notice";
import { CopyButton } from "../chat/turn-view";
import type { Winner } from "../gateway/compare";
import { failureText } from "../words/failures";
import { words } from "../words/words";
import { type Comparison, LETTERS } from "./comparison";
import { Differences } from "./differences";

export function Result({ comparison }: { comparison: Comparison }) {
  const say = words.value.compare;
  const [showsDifferences, setShowsDifferences] = useState(false);
  const failure = comparison.failure.value;
  const areWhole = comparison.answers.every((each) => each.isWhole.value);
  const canForce = failure?.code === "not_comparable";
  const wasAsked = areWhole || comparison.isBusy.value;
  return (
    <>
      <article class="turn user" aria-label={words.value.chat.you}>
        <div class="bubble">
          {comparison.images.map((url) => <img key={url} src={url} alt={words.value.chat.yourPicture} />)}
          <p dir="auto">{comparison.question}</p>
        </div>
      </article>
      {failure && (
        <div class="stack">
          <Failure>{failureText(failure)}</Failure>
          {canForce && <div><Button label={say.force} onClick={() => void comparison.run(true)} /></div>}
        </div>
      )}
      {comparison.warnings.value.map((each) => <p key={each} class="warning" dir="auto">{each}</p>)}
      {wasAsked && (
        <>
          {comparison.isBusy.value && <p class="muted" role="status" dir="auto">{comparison.waiting.value || (comparison.isBlind ? say.together : "")}</p>}
          <div class={`sides of-${comparison.answers.length}`}>
            {comparison.answers.map((_, at) => <Side key={at} comparison={comparison} at={at} showsDifferences={showsDifferences && areWhole} />)}
          </div>
          {areWhole && (
            <div class="verdict">
              <Button label={say.differences} pressed={showsDifferences} onClick={() => setShowsDifferences(!showsDifferences)} />
              <VoteBar comparison={comparison} />
            </div>
          )}
          <Settings comparison={comparison} />
        </>
      )}
    </>
  );
}

function Side({ comparison, at, showsDifferences }: { comparison: Comparison; at: number; showsDifferences: boolean }) {
  const answer = comparison.answers[at]!;
  const name = comparison.names.value?.[at];
  const isBest = comparison.winner.value === at;
  return (
    <article class={`side-answer side-${at}${isBest ? " best" : ""}`} aria-label={name ?? LETTERS[at]}>
      <header>
        <span class="letter" aria-hidden="true">{LETTERS[at]}</span>
        <h3 dir="auto">{name ?? words.value.compare.hidden}</h3>
        {isBest && <span class="best-tag">{words.value.compare.best}</span>}
      </header>
      {showsDifferences && at > 0
        ? <Differences first={comparison.answers[0]!.text.value} second={answer.text.value} />
        : showsDifferences ? <p class="differences" dir="auto">{answer.text.value}</p> : <AnswerView answer={answer} />}
      <footer>
        <FiguresLine answer={answer} />
        {answer.isWhole.value && <CopyButton text={() => answer.text.value} />}
      </footer>
    </article>
  );
}

function VoteBar({ comparison }: { comparison: Comparison }) {
  const say = words.value.compare;
  const winner = comparison.winner.value;
  const isBlindOpen = comparison.isBlind && comparison.names.value === null;
  if (comparison.answers.some((each) => each.phase.value !== "done") || (isBlindOpen && comparison.ticket.value === null)) {
    return <p class="muted">{say.noVote}</p>;
  }
  // A blind vote is given once: afterwards the names are known.
  const isOver = comparison.isBlind && winner !== null;
  const choice = (value: Winner, label: string) => (
    <Button key={label} label={label} pressed={winner === value} disabled={isOver && winner !== value} onClick={() => { if (!isOver) void comparison.vote(value); }} />
  );
  return (
    <div class="votes" role="group" aria-label={say.vote}>
      <span class="muted">{winner === null ? say.vote : say.voted}</span>
      {comparison.answers.map((_, at) => choice(at, say.better(isOver ? `${LETTERS[at]} (${comparison.names.value?.[at]})` : LETTERS[at]!)))}
      {choice("tie", say.tie)}
      {choice("all_bad", say.allBad)}
    </div>
  );
}

function Settings({ comparison }: { comparison: Comparison }) {
  const say = words.value;
  const names = say.parameters.names;
  const parts = Object.entries(comparison.settings.value)
    .filter(([, value]) => value !== null && typeof value !== "object")
    .map(([name, value]) => `${names[name as keyof typeof names] ?? name} ${value}`);
  return parts.length ? <p class="muted settings">{say.compare.same}: {parts.join(" · ")}</p> : null;
}
