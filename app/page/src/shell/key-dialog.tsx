// The key: given once, kept for this tab or, if wished, in this browser.
import { useState } from "preact/hooks";
import { keepsKey, key } from "../browser/settings";
import { Button } from "../controls/button";
import { Dialog } from "../controls/dialog";
import { Failure } from "../controls/notice";
import { wantsKey } from "../gateway/http";
import { words } from "../words/words";

export function KeyDialog({ onClose }: { onClose: () => void }) {
  const say = words.value.key;
  const [typed, setTyped] = useState(key.value);
  const isFit = /^[\x21-\x7e]*$/.test(typed.trim());
  const save = (event: Event) => {
    event.preventDefault();
    if (!isFit) return;
    wantsKey.value = false;
    key.value = typed.trim();
    onClose();
  };
  return (
    <Dialog title={say.title} onClose={onClose}>
      <form class="stack" onSubmit={save}>
        <p>{wantsKey.value && key.value ? say.refused : say.text}</p>
        <label>
          <span>{say.label}</span>
          <input type="password" autocomplete="off" spellcheck={false} value={typed} autofocus onInput={(event) => setTyped(event.currentTarget.value)} />
        </label>
        {!isFit && <Failure>{say.unfit}</Failure>}
        <label class="check">
          <input type="checkbox" checked={keepsKey.value} onChange={(event) => { keepsKey.value = event.currentTarget.checked; }} />
          <span>{say.keep}</span>
        </label>
        <div class="row end">
          {key.value && <Button label={say.forget} kind="quiet" onClick={() => { key.value = ""; setTyped(""); }} />}
          <Button label={say.save} kind="primary" type="submit" disabled={!isFit} />
        </div>
      </form>
    </Dialog>
  );
}
