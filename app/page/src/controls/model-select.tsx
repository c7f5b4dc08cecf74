// Choosing a model, with its state.
import { chatModels } from "../gateway/models";
import { words } from "../words/words";

interface Props {
  label: string;
  value: string;
  onChange: (name: string) => void;
  /** A model that is asked for but not listed (any more) is still shown. */
  empty?: string;
}

export function ModelSelect({ label, value, onChange, empty }: Props) {
  const all = chatModels.value;
  const state = words.value.state;
  const isListed = all.some((each) => each.id === value);
  return (
    <select aria-label={label} title={label} value={value} onChange={(event) => onChange(event.currentTarget.value)}>
      {(empty !== undefined || !value) && <option value="">{empty ?? label}</option>}
      {value && !isListed && <option value={value}>{value}</option>}
      {all.map((each) => (
        <option key={each.id} value={each.id}>
          {each.state === "ready" ? each.id : `${each.id} · ${state[each.state as keyof typeof state] ?? each.state}`}
        </option>
      ))}
    </select>
  );
}
