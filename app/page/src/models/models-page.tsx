// The models: how each is, what it is made from and can do; for administrators also orders and logs.
import { useState } from "preact/hooks";
import { go } from "../browser/route";
import { chatModel } from "../browser/settings";
import { Button } from "../controls/button";
import { Empty, Failure, Loading } from "../controls/notice";
import { Refusal } from "../gateway/http";
import { can, isAdmin, type Model, models, modelsFailure, order, reasons } from "../gateway/models";
import { failureText } from "../words/failures";
import { number, words } from "../words/words";
import { LogDialog } from "./log-dialog";

export function ModelsPage() {
  const say = words.value.models;
  const all = models.value;
  return (
    <div class="scroll">
      <div class="column wide-column">
        <h1>{words.value.places.models}</h1>
        {modelsFailure.value && <Failure>{failureText(modelsFailure.value)}</Failure>}
        {all === null && !modelsFailure.value && <Loading label={words.value.loading} />}
        {all?.length === 0 && <Empty icon="models" title={say.none}><p>{say.noneText}</p></Empty>}
        <ul class="cards">{all?.map((each) => <ModelCard key={each.id} model={each} />)}</ul>
      </div>
    </div>
  );
}

function ModelCard({ model }: { model: Model }) {
  const say = words.value.models;
  const capabilities = Object.entries(model.capabilities).filter(([, known]) => known !== "failed");
  const reason = reasons.value[model.backend];
  const facts: [string, string][] = [[say.backend, `${model.backend} (${model.owned_by})`]];
  if (model.context_length) facts.push([say.context, `${number(model.context_length)} ${say.tokens}`]);
  if (model.quantization) facts.push([say.quantization, model.quantization]);
  if (model.parent) facts.push([say.parent, model.parent]);
  if (model.parity) facts.push([say.parity, model.parity]);
  if (model.serving) facts.push([say.serving, model.serving.slice(0, 19)]);
  return (
    <li class="card">
      <div class="card-head">
        <h2 dir="auto">{model.id}</h2>
        <StateTag state={model.state} />
      </div>
      <dl class="facts">
        {facts.map(([name, value]) => <div key={name}><dt>{name}</dt><dd dir="auto">{value}</dd></div>)}
      </dl>
      {capabilities.length > 0 && (
        <ul class="tags" aria-label={say.capabilities}>
          {capabilities.map(([name, known]) => (
            <li key={name} class="tag">
              {say.can[name as keyof typeof say.can] ?? name}{known === "verified" && " ✓"}
            </li>
          ))}
        </ul>
      )}
      {reason && model.state !== "ready" && <p class="muted" dir="auto">{reason}</p>}
      <CardButtons model={model} />
    </li>
  );
}

export function StateTag({ state }: { state: string }) {
  const say = words.value.state;
  return <span class={`state ${state}`}>{say[state as keyof typeof say] ?? state}</span>;
}

const CAN_START = new Set(["stopped", "failed", "sleeping"]);
const CAN_STOP = new Set(["ready", "starting", "sleeping"]);

function CardButtons({ model }: { model: Model }) {
  const say = words.value.models;
  const [isBusy, setBusy] = useState(false);
  const [failure, setFailure] = useState("");
  const [showsLog, setShowsLog] = useState(false);
  const give = async (what: "start" | "stop") => {
    setBusy(true);
    setFailure("");
    try {
      await order(model.backend, what);
    } catch (error) {
      setFailure(error instanceof Refusal ? failureText(error) : String(error));
    }
    setBusy(false);
  };
  const chat = () => {
    chatModel.value = model.id;
    go("chat");
  };
  return (
    <>
      <div class="row card-buttons">
        {can(model, "chat") !== false && <Button icon="chat" label={say.chat} small onClick={chat} />}
        {isAdmin.value && (
          <>
            {CAN_START.has(model.state) && <Button label={say.start} small disabled={isBusy} onClick={() => void give("start")} />}
            {CAN_STOP.has(model.state) && <Button label={say.stop} small disabled={isBusy} onClick={() => void give("stop")} />}
            <Button label={say.log} kind="quiet" small onClick={() => setShowsLog(true)} />
          </>
        )}
      </div>
      {failure && <Failure>{failure}</Failure>}
      {showsLog && <LogDialog backend={model.backend} onClose={() => setShowsLog(false)} />}
    </>
  );
}
