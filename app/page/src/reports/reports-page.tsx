// Reports: the runs of `modelport compare`, and one of them opened.
import { useEffect, useState } from "preact/hooks";
import { address, route } from "../browser/route";
import { Empty, Failure, Loading } from "../controls/notice";
import { type Run, runs } from "../gateway/reports";
import { Refusal } from "../gateway/http";
import { failureText } from "../words/failures";
import { number, when, words } from "../words/words";
import { ReportView } from "./report-view";

export function ReportsPage() {
  const { id } = route.value;
  return (
    <div class="scroll">
      <div class="column wide-column">{id ? <ReportView key={id} id={id} /> : <RunList />}</div>
    </div>
  );
}

function RunList() {
  const say = words.value.reports;
  const [all, setAll] = useState<Run[] | null>(null);
  const [failure, setFailure] = useState("");
  useEffect(() => {
    runs().then(setAll, (error) => setFailure(error instanceof Refusal ? failureText(error) : String(error)));
  }, []);
  return (
    <>
      <header class="page-head"><h1>{words.value.places.reports}</h1><p class="muted">{say.text}</p></header>
      {failure && <Failure>{failure}</Failure>}
      {!all && !failure && <Loading label={words.value.loading} />}
      {all?.length === 0 && (
        <Empty icon="reports" title={say.none}><p>{say.noneText}</p><pre class="command" tabindex={0}>modelport compare base tuned --questions questions.jsonl</pre></Empty>
      )}
      <ul class="runs">
        {all?.map((each) => (
          <li key={each.id} class="card">
            <h2 dir="auto">{each.has_report ? <a href={address("reports", each.id)}>{each.models.join(" · ")}</a> : each.models.join(" · ")}</h2>
            <p class="muted">
              {[when(each.created * 1000), say.questions(number(each.questions)), say.state[each.state as keyof typeof say.state] ?? each.state, each.pair].filter(Boolean).join(" · ")}
            </p>
          </li>
        ))}
      </ul>
    </>
  );
}
