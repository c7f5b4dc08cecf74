// One report: what came out first, then how sure it is, then the texts.
import { useEffect, useState } from "preact/hooks";
import { address } from "../browser/route";
import { download } from "../browser/files";
import { language } from "../browser/settings";
import { Button } from "../controls/button";
import { Failure, Loading } from "../controls/notice";
import { type Report, report, reportHtml } from "../gateway/reports";
import { Refusal } from "../gateway/http";
import { failureText } from "../words/failures";
import { number, when, words } from "../words/words";
import { Changes } from "./changes";
import { ContrastTable, shown as figure } from "./contrast-table";

export function ReportView({ id }: { id: string }) {
  const say = words.value.reports;
  const [shown, setShown] = useState<Report | null>(null);
  const [failure, setFailure] = useState("");
  const fail = (error: unknown) => setFailure(error instanceof Refusal ? failureText(error) : String(error));
  useEffect(() => {
    report(id).then(setShown, fail);
  }, [id]);
  const save = () => {
    reportHtml(id).then((text) => download(`${id}.html`, text, "text/html"), fail);
  };
  return (
    <>
      <p><a href={address("reports")}>{say.back}</a></p>
      {failure && <Failure>{failure}</Failure>}
      {!shown && !failure && <Loading label={words.value.loading} />}
      {shown && <Opened report={shown} onSave={save} />}
    </>
  );
}

function Opened({ report: { run, findings, questions, headline, measures }, onSave }: { report: Report; onSave: () => void }) {
  const say = words.value.reports;
  const primary = measures.find((each) => each.name === findings.primary);
  return (
    <>
      <header class="page-head report-head">
        <h1 dir="auto">{run.models.map((each) => each.name).join(" · ")}</h1>
        <p class="muted" dir="auto">{[when(Date.parse(run.date)), say.questions(number(run.questions)), run.questions_file, run.pair].filter(Boolean).join(" · ")}</p>
        <Button icon="download" label={say.save} small onClick={onSave} />
      </header>
      {!run.is_whole && <Failure>{say.notWhole}</Failure>}
      <section class="headline">{(headline[language.value] ?? headline.en ?? []).map((each) => <p key={each} dir="auto">{each}</p>)}</section>
      <section class="stack">
        <h2>{say.overall}</h2>
        <p class="muted">{say.measured}: {(language.value === "zh" && primary?.chinese) || primary?.text}</p>
        <ContrastTable contrasts={findings.overall} measures={measures} first="model" />
      </section>
      {findings.categories.length > 0 && <section class="stack"><h2>{say.categories}</h2><ContrastTable contrasts={findings.categories} measures={measures} first="category" /></section>}
      <Noise findings={findings} unit={primary?.unit} />
      {findings.secondary.length > 0 && <section class="stack"><h2>{say.secondary}</h2><p class="muted">{say.hints}</p><ContrastTable contrasts={findings.secondary} measures={measures} first="measure" /></section>}
      <Changes changes={findings.changes} questions={questions} />
      <Controls run={run} findings={findings} />
    </>
  );
}

function Noise({ findings, unit }: { findings: Report["findings"]; unit: string | undefined }) {
  const say = words.value.reports;
  const noise = findings.noise.filter((each) => each.measure === findings.primary);
  return (
    <section class="stack">
      <h2>{say.noise}</h2>
      <p class="muted">{noise.length ? say.noiseText : say.noNoise}</p>
      {noise.length > 0 && (
        <ul class="facts">
          {noise.map((each) => <li key={each.model}><b dir="auto">{each.model}</b> ± {figure(each.floor, unit)} <span class="muted">{say.noiseOf(number(each.changed), number(each.questions))}</span></li>)}
        </ul>
      )}
    </section>
  );
}

function Controls({ run, findings }: { run: Report["run"]; findings: Report["findings"] }) {
  const say = words.value.reports;
  const errors = findings.models.filter((each) => each.errors > 0);
  return (
    <section class="stack">
      <h2>{say.controlled}</h2>
      <ul class="facts">
        {run.controls.map((each) => (
          <li key={each.what}>
            <b>{each.what}</b> <span class={`tag ${each.state}`}>{say.control[each.state]}</span> <span class="muted" dir="auto">{each.how}</span>
          </li>
        ))}
        {errors.map((each) => <li key={each.model} dir="auto"><b>{say.errors}</b> {each.model}: {each.errors} / {each.asked}, {each.error_texts[0]?.[0]}</li>)}
        {run.notes.map((each) => <li key={each} dir="auto">{each}</li>)}
      </ul>
    </section>
  );
}
