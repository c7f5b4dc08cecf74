// All keys, those of the file among them: what each may do, and what can be done to it.
import { useEffect, useState } from "preact/hooks";
import { Button } from "../controls/button";
import { Dialog } from "../controls/dialog";
import { Empty, Failure, Loading } from "../controls/notice";
import { type GatewayKey, keys, revokeKey, rotateKey } from "../gateway/team";
import { number, when, words } from "../words/words";
import { KeyForm } from "./key-form";
import { NewSecret } from "./new-secret";
import { told } from "./told";

const GRACE_S = 86_400; // a day for everybody to take the new one

export function KeysView() {
  const say = words.value.team;
  const [all, setAll] = useState<GatewayKey[] | null>(null);
  const [failure, setFailure] = useState("");
  const [wanted, setWanted] = useState("");
  const [edited, setEdited] = useState<GatewayKey | "new" | null>(null);
  const [secret, setSecret] = useState("");
  const read = () => keys().then((now) => { setAll(now); setFailure(""); }, (error) => setFailure(told(error)));
  useEffect(() => {
    void read();
  }, []);
  const shown = (all ?? []).filter((each) => `${each.name} ${each.team ?? ""}`.toLowerCase().includes(wanted.toLowerCase()));
  const made = (fresh: string) => {
    setEdited(null);
    setSecret(fresh);
    void read();
  };
  return (
    <>
      <div class="row">
        <Button icon="add" label={say.newKey} kind="primary" onClick={() => setEdited("new")} />
        {(all?.length ?? 0) > 8 && (
          <input class="search" type="search" aria-label={say.search} placeholder={say.search} value={wanted} onInput={(event) => setWanted(event.currentTarget.value)} />
        )}
      </div>
      {failure && <Failure>{failure}</Failure>}
      {!all && !failure && <Loading label={words.value.loading} />}
      {all?.length === 0 && <Empty icon="key" title={say.noKeys}><p>{say.noKeysText}</p></Empty>}
      <ul class="cards">
        {shown.map((each) => <KeyCard key={each.id} of={each} onEdit={() => setEdited(each)} onSecret={made} onChange={() => void read()} />)}
      </ul>
      {edited && <KeyForm of={edited === "new" ? null : edited} onClose={() => setEdited(null)} onDone={made} />}
      {secret && <NewSecret secret={secret} onClose={() => setSecret("")} />}
    </>
  );
}

interface CardProps {
  of: GatewayKey;
  onEdit: () => void;
  onSecret: (secret: string) => void;
  onChange: () => void;
}

function KeyCard({ of, onEdit, onSecret, onChange }: CardProps) {
  const say = words.value.team;
  const [asks, setAsks] = useState<"revoke" | "rotate" | "">("");
  const [failure, setFailure] = useState("");
  const isActive = of.state === "good";
  const facts: [string, string][] = [];
  if (of.team) facts.push([say.team, of.team]);
  facts.push([say.models, of.models ? of.models.join(", ") : say.allModels]);
  facts.push([say.limits, limits(of) || say.noLimits]);
  if (of.expires) facts.push([say.expires, when(Date.parse(of.expires))]);
  const give = async (what: "revoke" | "rotate") => {
    try {
      if (what === "revoke") {
        await revokeKey(of.name);
        onChange();
      } else onSecret(await rotateKey(of.name, GRACE_S));
      setFailure("");
    } catch (error) {
      setFailure(told(error));
    }
    setAsks("");
  };
  return (
    <li class="card">
      <div class="card-head">
        <h2 dir="auto">{of.name}</h2>
        <span class={`state ${isActive ? "ready" : "failed"}`}>{say.states[of.state as keyof typeof say.states] ?? of.state}</span>
      </div>
      <dl class="facts">
        {facts.map(([name, value]) => <div key={name}><dt>{name}</dt><dd dir="auto">{value}</dd></div>)}
      </dl>
      <ul class="tags">
        <li class="tag">{say.roles[of.role as keyof typeof say.roles] ?? of.role}</li>
        {of.priority === "batch" && <li class="tag">{say.batch}</li>}
        {of.place !== "store" && <li class="tag">{say.ofFile}</li>}
      </ul>
      {failure && <Failure>{failure}</Failure>}
      {of.place === "store" && isActive && (
        <div class="row card-buttons">
          <Button label={say.edit} small onClick={onEdit} />
          <Button label={say.rotate} small onClick={() => setAsks("rotate")} />
          <Button label={say.revoke} kind="danger" small onClick={() => setAsks("revoke")} />
        </div>
      )}
      {asks && (
        <Dialog title={asks === "revoke" ? say.revokeSure(of.name) : say.rotateSure(of.name)} onClose={() => setAsks("")}>
          <p>{asks === "revoke" ? say.revokeText : say.rotateText}</p>
          <div class="row end">
            <Button label={asks === "revoke" ? say.revoke : say.rotate} kind={asks === "revoke" ? "danger" : "primary"} onClick={() => void give(asks)} />
          </div>
        </Dialog>
      )}
    </li>
  );
}

/** In one line, what a key may use. */
function limits(of: GatewayKey): string {
  const say = words.value.team;
  const parts = [
    of.rpm !== null && say.rpm(number(of.rpm)),
    of.tpm !== null && say.tpm(number(of.tpm)),
    of.max_parallel !== null && say.parallel(number(of.max_parallel)),
    of.budget && say.budget(
      of.budget.tokens ? `${number(of.budget.tokens)} ${words.value.models.tokens}` : number(of.budget.money ?? 0, 2),
      say.periods[of.budget.per as keyof typeof say.periods] ?? of.budget.per,
    ),
  ];
  return parts.filter(Boolean).join(" · ");
}
