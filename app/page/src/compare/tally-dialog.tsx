// All blind votes at this gateway: how strong each model is, with how sure that is.
import { useEffect, useState } from "preact/hooks";
import { Dialog } from "../controls/dialog";
import { IntervalBar } from "../controls/interval-bar";
import { Failure, Loading } from "../controls/notice";
import { type Tally, tally } from "../gateway/compare";
import { Refusal } from "../gateway/http";
import { failureText } from "../words/failures";
import { number, words } from "../words/words";

export function TallyDialog({ onClose }: { onClose: () => void }) {
  const say = words.value.compare;
  const [told, setTold] = useState<Tally | null>(null);
  const [failure, setFailure] = useState("");
  useEffect(() => {
    tally().then(setTold, (error) => setFailure(error instanceof Refusal ? failureText(error) : String(error)));
  }, []);
  const reach = Math.max(1, ...(told?.models ?? []).flatMap((each) => [Math.abs(each.low ?? 0), Math.abs(each.high ?? 0)]));
  return (
    <Dialog title={say.tally} onClose={onClose}>
      <p class="muted">{say.tallyText}</p>
      {failure && <Failure>{failure}</Failure>}
      {!told && !failure && <Loading label={words.value.loading} />}
      {told?.votes === 0 && <p>{say.noVotes}</p>}
      {told && told.votes > 0 && (
        <div class="wide" tabindex={0}>
          <table class="data">
            <thead><tr><th>{words.value.chat.model}</th><th>{say.wins}</th><th>{say.ties}</th><th>{say.losses}</th><th>{say.strength}</th></tr></thead>
            <tbody>
              {told.models.map((each) => (
                <tr key={each.model}>
                  <th scope="row" dir="auto">{each.model}</th>
                  <td>{number(each.wins)}</td>
                  <td>{number(each.ties)}</td>
                  <td>{number(each.losses)}</td>
                  <td>{each.strength === null ? "–" : <IntervalBar value={each.strength} low={each.low} high={each.high} reach={reach} text={number(each.strength, 2)} />}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </Dialog>
  );
}
