// One turn of a conversation, with what can be done with it.
import { useState } from "preact/hooks";
import { copy } from "../browser/files";
import { AnswerView, FiguresLine } from "../controls/answer-view";
import { Button } from "../controls/button";
import { words } from "../words/words";
import type { Turn } from "./conversation";

interface Props {
  turn: Turn;
  isLast: boolean;
  isLastQuestion: boolean;
  isBusy: boolean;
  onAgain: () => void;
  onEdit: () => void;
}

export function TurnView({ turn, isLast, isLastQuestion, isBusy, onAgain, onEdit }: Props) {
  const say = words.value.chat;
  if (turn.role === "user") {
    return (
      <article class="turn user" aria-label={say.you}>
        <div class="bubble">
          {turn.images.map((url) => <img key={url} src={url} alt={say.yourPicture} />)}
          <p dir="auto">{turn.text}</p>
        </div>
        {isLastQuestion && !isBusy && (
          <div class="actions"><Button icon="edit" label={say.edit} iconOnly kind="quiet" small onClick={onEdit} /></div>
        )}
      </article>
    );
  }
  const { answer, model } = turn;
  return (
    <article class="turn model" aria-label={model}>
      <h3 class="by" dir="auto">{model}</h3>
      <AnswerView answer={answer} />
      {answer.isWhole.value && (
        <div class="under">
          <div class="actions">
            <CopyButton text={() => answer.text.value} />
            {isLast && !isBusy && <Button icon="again" label={say.again} iconOnly kind="quiet" small onClick={onAgain} />}
          </div>
          <FiguresLine answer={answer} />
        </div>
      )}
    </article>
  );
}

export function CopyButton({ text }: { text: () => string }) {
  const [isDone, setDone] = useState(false);
  const say = words.value.answer;
  const onClick = () => {
    void copy(text()).then((done) => {
      setDone(done);
      setTimeout(() => setDone(false), 1500);
    });
  };
  return <Button icon={isDone ? "check" : "copy"} label={isDone ? say.copied : say.copy} iconOnly kind="quiet" small onClick={onClick} />;
}
