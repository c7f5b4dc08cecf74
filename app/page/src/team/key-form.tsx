// The form in which a key is made or changed.
import { useState } from "preact/hooks";
import { key } from "../browser/settings";
import { Button } from "../controls/button";
import { Dialog } from "../controls/dialog";
import { Failure } from "../controls/notice";
import { models } from "../gateway/models";
import { changeKey, type GatewayKey, makeKey } from "../gateway/team";
import { words } from "../words/words";
import { fields, type Typed, typed } from "./key-fields";
import { told } from "./told";

interface Props {
  of: GatewayKey | null;
  onClose: () => void;
  /** With the secret of a new key; "" where one was changed. */
  onDone: (secret: string) => void;
}

export function KeyForm({ of, onClose, onDone }: Props) {
  const say = words.value.team;
  const [now, setNow] = useState<Typed>(typed(of));
  const [failure, setFailure] = useState("");
  const [isBusy, setBusy] = useState(false);
  const sent = fields(now);
  const wrong = "wrong" in sent ? sent.wrong : "";
  const save = async (event: Event) => {
    event.preventDefault();
    if ("wrong" in sent) {
      setFailure(say.wrong(say.fields[sent.wrong]));
      return;
    }
    setBusy(true);
    try {
      // A key that ends within a day keeps its hour.
      if (of?.expires && now.expires === of.expires.slice(0, 10)) sent.expires = of.expires;
      if (of) await changeKey(of.name, sent);
      const secret = of ? "" : await makeKey(sent);
      // The first key closes the gateway, to this page, too.
      if (secret && !key.value && sent.role === "admin") key.value = secret;
      onDone(secret);
    } catch (error) {
      setFailure(told(error));
      setBusy(false);
    }
  };
  const typing = (name: keyof Typed) => ({
    value: now[name],
    autocomplete: "off",
    "aria-invalid": failure !== "" && wrong === name,
    onInput: (event: { currentTarget: HTMLInputElement }) => setNow({ ...now, [name]: event.currentTarget.value }),
  });
  const input = (name: keyof Typed) => <label><span>{say.fields[name]}</span><input dir="auto" {...typing(name)} /></label>;
  const count = (name: keyof Typed) => (
    <label><span>{say.fields[name]}</span><input inputMode="decimal" placeholder={say.noLimits} {...typing(name)} /></label>
  );
  const choice = (name: keyof Typed, options: Record<string, string>) => (
    <label>
      <span>{say.fields[name]}</span>
      <select value={now[name]} onChange={(event) => setNow({ ...now, [name]: event.currentTarget.value })}>
        {Object.entries(options).map(([value, label]) => <option key={value} value={value}>{label}</option>)}
      </select>
    </label>
  );
  return (
    <Dialog title={of ? say.editOf(of.name) : say.newKey} onClose={onClose}>
      <form class="stack" onSubmit={(event) => void save(event)}>
        <div class="fields">
          {input("name")}
          {input("team")}
          {choice("role", say.roles)}
          {choice("priority", say.priorities)}
        </div>
        <label>
          <span>{say.fields.models}</span>
          <input type="text" dir="auto" list="key-models" placeholder={say.allModels} {...typing("models")} />
        </label>
        <datalist id="key-models">{models.value?.map((each) => <option key={each.id} value={each.id} />)}</datalist>
        <div class="fields">
          {count("rpm")}
          {count("tpm")}
          {count("max_parallel")}
          <label><span>{say.fields.expires}</span><input type="date" {...typing("expires")} /></label>
        </div>
        <div class="fields">
          {count("amount")}
          {choice("unit", say.units)}
          {choice("per", say.periods)}
        </div>
        {failure && <Failure>{failure}</Failure>}
        <div class="row end"><Button label={of ? say.save : say.make} kind="primary" type="submit" disabled={isBusy} /></div>
      </form>
    </Dialog>
  );
}
