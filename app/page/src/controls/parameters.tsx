// What is sent with every request: the system prompt and the parameters of sampling.
import { parameters, type Parameters, NO_PARAMETERS, requestFields, systemPrompt } from "../browser/settings";
import { words } from "../words/words";
import { Button } from "./button";

type Name = keyof Parameters;

interface Kind {
  name: Name;
  mode: "decimal" | "numeric";
  /** What stands in the empty field. */
  example?: string;
}

const FIELDS: readonly Kind[] = [
  { name: "temperature", mode: "decimal" },
  { name: "top_p", mode: "decimal" },
  { name: "max_tokens", mode: "numeric" },
  { name: "seed", mode: "numeric" },
];

/** `defaults` are the values that are sent where a field is empty, as words. */
export function ParametersPanel({ defaults = {} }: { defaults?: Partial<Record<Name, string>> }) {
  const say = words.value.parameters;
  const fields = requestFields(parameters.value);
  const wrong = "wrong" in fields ? (fields.wrong as Name) : null;
  const set = (name: Name, value: string) => { parameters.value = { ...parameters.value, [name]: value }; };
  const text = (name: Name) => ({
    value: parameters.value[name],
    "aria-invalid": wrong === name,
    onInput: (event: { currentTarget: HTMLInputElement | HTMLTextAreaElement }) => set(name, event.currentTarget.value),
  });
  return (
    <section class="parameters" aria-label={say.title}>
      <label class="across">
        <span>{say.system}</span>
        <textarea
          rows={2}
          dir="auto"
          value={systemPrompt.value}
          onInput={(event) => { systemPrompt.value = event.currentTarget.value; }}
        />
      </label>
      {FIELDS.map(({ name, mode }) => (
        <label key={name}>
          <span>{say.names[name]}</span>
          <input inputMode={mode} autocomplete="off" placeholder={defaults[name] ?? say.asIs} {...text(name)} />
        </label>
      ))}
      <label class="half">
        <span>{say.names.stop}</span>
        <textarea rows={2} dir="auto" {...text("stop")} />
      </label>
      <label class="half">
        <span>{say.names.more}</span>
        <textarea rows={2} dir="ltr" spellcheck={false} class="mono" placeholder={'{"repeat_penalty": 1.1}'} {...text("more")} />
      </label>
      <div class="across row">
        {wrong && <span class="wrong" role="alert">{say.wrong(say.names[wrong])}</span>}
        <Button label={say.reset} kind="quiet" small onClick={() => {
          parameters.value = NO_PARAMETERS;
          systemPrompt.value = "";
        }} />
      </div>
    </section>
  );
}
