// Differences from the first model, each with its interval, and whether that says anything.
import { IntervalBar } from "../controls/interval-bar";
import type { Contrast, Report } from "../gateway/reports";
import { number, words } from "../words/words";

interface Props {
  contrasts: Contrast[];
  measures: Report["measures"];
  /** What the rows are told apart by. */
  first: "model" | "category" | "measure";
}

/** A value in its unit, with so many digits that it can be told from its neighbours; shares in per cent. */
export function shown(value: number | null, unit: string | undefined): string {
  if (value === null) return "–";
  return unit ? number(value, Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 3) : number(value * 100, 1);
}

export function ContrastTable({ contrasts, measures, first }: Props) {
  const say = words.value.reports;
  const manyModels = new Set(contrasts.map((each) => each.model)).size > 1;
  const reach = new Map<string, number>();
  for (const { measure, low, high, difference } of contrasts) {
    const most = Math.max(...[low, high, difference].map((each) => Math.abs(each ?? 0)));
    reach.set(measure, Math.max(reach.get(measure) ?? 0, most));
  }
  const label = (each: Contrast) => {
    const own = first === "model" ? each.model : first === "category" ? (each.category ?? say.noCategory) : each.measure;
    return manyModels && first !== "model" ? `${own} · ${each.model}` : own;
  };
  return (
    <div class="wide" tabindex={0}>
      <table class="data">
        <thead>
          <tr>
            <th>{say.firsts[first]}</th><th>{say.count}</th><th>{contrasts[0]?.against}</th><th>{manyModels ? say.firsts.model : contrasts[0]?.model}</th><th>{say.difference}</th><th>{say.winsTiesLosses}</th><th>{say.outcome}</th>
          </tr>
        </thead>
        <tbody>
          {contrasts.map((each) => {
            const unit = measures.find((measure) => measure.name === each.measure)?.unit;
            const mean = (value: number | null) => `${shown(value, unit)}${unit || value === null ? "" : " %"}`;
            const step = (value: number | null) => `${value !== null && value > 0 ? "+" : ""}${shown(value, unit)}`;
            return (
            <tr key={label(each)}>
              <th scope="row" dir="auto">{label(each)}</th>
              <td>{number(each.questions)}</td>
              <td>{mean(each.first_mean)}</td>
              <td>{mean(each.mean)}</td>
              <td>
                {each.difference === null ? "–" : (
                  <IntervalBar value={each.difference} low={each.low} high={each.high} band={each.noise_floor} reach={reach.get(each.measure)!} kind={each.outcome} text={`${step(each.difference)} [${step(each.low)}, ${step(each.high)}]`} />
                )}
              </td>
              <td>{number(each.wins)} / {number(each.ties)} / {number(each.losses)}</td>
              <td class={`outcome ${each.outcome}`}>
                {say.outcomes[each.outcome]}
                {each.outcome === "no_difference" && <small>{each.ground === "shown" ? "" : say.grounds[each.ground]}{each.detectable !== null && ` ${say.detectable(shown(each.detectable, unit))}`}</small>}
              </td>
            </tr>
            );
          })}
        </tbody>
      </table>
    </div>
  );
}
