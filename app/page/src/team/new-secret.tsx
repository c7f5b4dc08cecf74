// A key that was just made: shown this once.
import { useState } from "preact/hooks";
import { copy } from "../browser/files";
import { Button } from "../controls/button";
import { Dialog } from "../controls/dialog";
import { words } from "../words/words";

export function NewSecret({ secret, onClose }: { secret: string; onClose: () => void }) {
  const say = words.value.team;
  const [isCopied, setCopied] = useState(false);
  return (
    <Dialog title={say.secret} onClose={onClose}>
      <p>{say.secretText}</p>
      <pre class="command secret" tabindex={0} dir="ltr">{secret}</pre>
      <div class="row end">
        <Button icon={isCopied ? "check" : "copy"} label={isCopied ? words.value.answer.copied : words.value.answer.copy} kind="primary" onClick={() => void copy(secret).then(setCopied)} />
      </div>
    </Dialog>
  );
}
