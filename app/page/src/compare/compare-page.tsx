// Compare: one question to two or three models, side by side.
import { effect, signal } from "@preact/signals";
import { useState } from "preact/hooks";
import { go, route } from "../browser/route";
import { compared, hasParameters, parameters, requestFields } from "../browser/settings";
import { Button } from "../controls/button";
import { Composer } from "../controls/composer";
import { HistoryList } from "../controls/history-list";
import { ModelSelect } from "../controls/model-select";
import { Empty } from "../controls/notice";
import { ParametersPanel } from "../controls/parameters";
import { can, chatModels, models } from "../gateway/models";
import { words } from "../words/words";
import { Comparison, comparisons, LETTERS } from "./comparison";
import { exportComparisons } from "./export";
import { Result } from "./result";
import { TallyDialog } from "./tally-dialog";

const open = signal<Comparison | null>(null);
/** Those whose answers are coming: whoever leaves one finds it going on. */
const running = new Map<string, Comparison>();
const draft = signal("");
const draftImages = signal<string[]>([]);

effect(() => {
  const { place, id } = route.value;
  if (place !== "compare" || id === (open.peek()?.id ?? "")) return;
  const kept = comparisons.items.value.find((each) => each.id === id);
  if (running.has(id)) open.value = running.get(id)!;
  else if (kept) open.value = Comparison.kept(kept);
  else if (!id) open.value = null;
});

// A first visit begins with an adapter and what it was tuned from, else with the first two models.
effect(() => {
  const all = chatModels.value;
  const names = compared.peek().names;
  if (all.length < 2 || names.some(Boolean)) return;
  const tuned = all.find((each) => each.parent && all.some((other) => other.id === each.parent));
  compared.value = { ...compared.peek(), names: tuned ? [tuned.parent!, tuned.id] : [all[0]!.id, all[1]!.id] };
});

export function ComparePage() {
  const say = words.value.compare;
  const [showsParameters, setShowsParameters] = useState(false);
  const [showsHistory, setShowsHistory] = useState(false);
  const [showsTally, setShowsTally] = useState(false);
  const comparison = open.value;
  const { names, blind } = compared.value;
  const chosen = names.map((name) => models.value?.find((each) => each.id === name));
  const isWrong = "wrong" in requestFields(parameters.value);
  const start = () => { go("compare"); open.value = null; };
  const send = () => {
    const [text, images] = [draft.value.trim(), draftImages.value];
    draft.value = "";
    draftImages.value = [];
    const begun = new Comparison(text, images, [...names], blind);
    open.value = begun;
    go("compare", begun.id, true);
    running.set(begun.id, begun);
    void begun.run(false).then(() => running.delete(begun.id));
  };
  return (
    <div class="with-side">
      <HistoryList
        title={say.history}
        place="compare"
        shelf={comparisons}
        current={comparison?.id ?? ""}
        isOpen={showsHistory}
        onClose={() => setShowsHistory(false)}
        newLabel={say.new}
        onNew={start}
        onExport={() => exportComparisons(comparisons.items.value)}
      />
      <section class="talk wide-talk" aria-label={words.value.places.compare}>
        <div class="toolbar">
          <Button icon="list" label={say.history} iconOnly kind="quiet" expanded={showsHistory} onClick={() => setShowsHistory(!showsHistory)} />
          <Choice />
          <label class="check">
            <input type="checkbox" checked={blind} onChange={(event) => { compared.value = { names, blind: event.currentTarget.checked }; }} />
            <span>{say.blind}</span>
          </label>
          <Button
            icon="sliders"
            label={words.value.parameters.title}
            kind={hasParameters.value || isWrong ? "plain" : "quiet"}
            expanded={showsParameters}
            onClick={() => setShowsParameters(!showsParameters)}
          />
          <Button icon="reports" label={say.tally} kind="quiet" onClick={() => setShowsTally(true)} />
          <Button icon="add" label={say.new} iconOnly kind="quiet" onClick={start} />
        </div>
        {showsParameters && <ParametersPanel defaults={{ temperature: "0", top_p: "1", max_tokens: "1024", seed: say.anySeed }} />}
        <div class="scroll" tabindex={-1}>
          <div class="column wide-column">
            {comparison
              ? <Result key={comparison.id} comparison={comparison} />
              : <Empty icon="compare" title={say.emptyTitle}><p>{say.emptyText}</p></Empty>}
          </div>
        </div>
        <Composer
          text={draft}
          images={draftImages}
          hindrance={hindrance(names, isWrong)}
          placeholder={say.placeholder}
          sendLabel={say.send}
          takesPictures={chosen.every((each) => each !== undefined && can(each, "vision") === true)}
          isBusy={comparison?.isBusy.value ?? false}
          onSend={send}
          onStop={() => comparison?.stop()}
        />
      </section>
      {showsTally && <TallyDialog onClose={() => setShowsTally(false)} />}
    </div>
  );
}

/** Two models, or three. */
function Choice() {
  const say = words.value.compare;
  const { names } = compared.value;
  const set = (next: string[]) => { compared.value = { ...compared.value, names: next }; };
  return (
    <div class="choice">
      {names.map((name, at) => (
        <ModelSelect
          key={at}
          label={say.model(LETTERS[at]!)}
          value={name}
          onChange={(chosen) => set(names.map((each, other) => (other === at ? chosen : each)))}
        />
      ))}
      {names.length < 3
        ? <Button icon="add" label={say.third} iconOnly kind="quiet" onClick={() => set([...names, ""])} />
        : <Button icon="close" label={say.noThird} iconOnly kind="quiet" onClick={() => set(names.slice(0, 2))} />}
    </div>
  );
}

function hindrance(names: string[], isWrong: boolean): string {
  const say = words.value.compare;
  if (isWrong) return words.value.chat.wrongParameters;
  if (models.value !== null && chatModels.value.length < 2) return say.tooFew;
  if (names.some((each) => !each)) return say.choose;
  if (new Set(names).size < names.length) return say.twice;
  return "";
}
