// What was used, by key, model, day or team.
import { useEffect, useState } from "preact/hooks";
import { download } from "../browser/files";
import { Button } from "../controls/button";
import { Failure, Loading } from "../controls/notice";
import { usage, USAGE_BY, type UsageBy, usageCsv, type UsageRow } from "../gateway/team";
import { number, words } from "../words/words";
import { told } from "./told";

const SPANS = [1, 7, 30, 90] as const;

export function UsageView() {
  const say = words.value.team;
  const [by, setBy] = useState<UsageBy>("key");
  const [days, setDays] = useState(30);
  const [rows, setRows] = useState<UsageRow[] | null>(null);
  const [failure, setFailure] = useState("");
  useEffect(() => {
    let isOver = false;
    setRows(null);
    setFailure("");
    const read = () => usage(by, days).then((now) => {
      if (isOver) return;
      setRows(now);
      setFailure("");
    }, (error) => { if (!isOver) setFailure(told(error)); });
    void read();
    // What was just used comes a moment later.
    const timer = setInterval(() => document.visibilityState === "visible" && void read(), 5000);
    return () => {
      isOver = true;
      clearInterval(timer);
    };
  }, [by, days]);
  const save = () => {
    usageCsv(by, days).then((text) => download(`modelport-usage-by-${by}.csv`, text, "text/csv"), (error) => setFailure(told(error)));
  };
  const most = Math.max(1, ...(rows ?? []).map(total));
  return (
    <>
      <div class="row">
        <select class="choice-of" aria-label={say.usageBy} title={say.usageBy} value={by} onChange={(event) => setBy(event.currentTarget.value as UsageBy)}>
          {USAGE_BY.map((each) => <option key={each} value={each}>{say.by[each]}</option>)}
        </select>
        <select class="choice-of" aria-label={say.span} title={say.span} value={String(days)} onChange={(event) => setDays(Number(event.currentTarget.value))}>
          {SPANS.map((each) => <option key={each} value={String(each)}>{say.spans(each)}</option>)}
        </select>
        <Button icon="download" label="CSV" onClick={save} />
      </div>
      {failure && <Failure>{failure}</Failure>}
      {!rows && !failure && <Loading label={words.value.loading} />}
      {rows?.length === 0 && <p class="muted">{say.noUsage}</p>}
      {rows && rows.length > 0 && (
        <div class="wide" tabindex={0}>
          <table class="data">
            <thead>
              <tr><th>{say.by[by]}</th><th>{say.requests}</th><th>{say.failed}</th><th>{say.tokensIn}</th><th>{say.tokensCached}</th><th>{say.tokensOut}</th><th>{say.money}</th><th>{say.share}</th></tr>
            </thead>
            <tbody>{rows.map((each) => <UsageLine key={each.id ?? each.name} row={each} most={most} />)}</tbody>
          </table>
        </div>
      )}
    </>
  );
}

const total = (row: UsageRow) => row.input_tokens + row.output_tokens;

function UsageLine({ row, most }: { row: UsageRow; most: number }) {
  return (
    <tr>
      <th scope="row" dir="auto">{row.name || words.value.team.noName}</th>
      <td>{number(row.requests)}</td>
      <td>{number(row.failed)}</td>
      <td>{number(row.input_tokens)}</td>
      <td>{number(row.cached_tokens)}</td>
      <td>{number(row.output_tokens)}</td>
      <td>{number(row.money, 2)}</td>
      <td><meter min={0} max={most} value={total(row)} aria-label={number(total(row))} /></td>
    </tr>
  );
}
