// Who did what here, newest first.
import { useEffect, useState } from "preact/hooks";
import { Button } from "../controls/button";
import { Failure, Loading } from "../controls/notice";
import { audit, type AuditEntry } from "../gateway/team";
import { language } from "../browser/settings";
import { words } from "../words/words";
import { told } from "./told";

export function AuditView() {
  const say = words.value.team;
  const [all, setAll] = useState<AuditEntry[] | null>(null);
  const [hasMore, setHasMore] = useState(false);
  const [actor, setActor] = useState("");
  const [action, setAction] = useState("");
  const [asked, setAsked] = useState<Record<string, string>>({});
  const [failure, setFailure] = useState("");
  const read = async (shown: AuditEntry[]) => {
    try {
      const more = await audit(asked, shown.at(-1)?.id);
      setAll([...shown, ...more.data]);
      setHasMore(more.has_more);
      setFailure("");
    } catch (error) {
      setFailure(told(error));
    }
  };
  useEffect(() => {
    setAll(null);
    void read([]);
  }, [asked]);
  const look = (event: Event) => {
    event.preventDefault();
    setAsked({ actor: actor.trim(), action: action.trim() });
  };
  return (
    <>
      <form class="row" onSubmit={look}>
        <input class="search" type="search" aria-label={say.who} placeholder={say.who} value={actor} onInput={(event) => setActor(event.currentTarget.value)} />
        <input class="search" type="search" aria-label={say.what} placeholder={say.what} value={action} onInput={(event) => setAction(event.currentTarget.value)} />
        <Button label={say.look} type="submit" />
      </form>
      {failure && <Failure>{failure}</Failure>}
      {!all && !failure && <Loading label={words.value.loading} />}
      {all?.length === 0 && <p class="muted">{say.noAudit}</p>}
      {all && all.length > 0 && (
        <div class="wide" tabindex={0}>
          <table class="data">
            <thead><tr><th>{say.at}</th><th>{say.who}</th><th>{say.what}</th><th>{say.target}</th><th>{say.outcome}</th><th>{say.details}</th><th>{say.from}</th></tr></thead>
            <tbody>{all.map((each) => <AuditLine key={each.id} of={each} />)}</tbody>
          </table>
        </div>
      )}
      {hasMore && <div class="row"><Button label={say.older} onClick={() => void read(all ?? [])} /></div>}
    </>
  );
}

function AuditLine({ of }: { of: AuditEntry }) {
  const say = words.value.team;
  const isDone = of.status >= 200 && of.status < 300;
  const at = new Date(of.at * 1000).toLocaleString(language.value, { dateStyle: "short", timeStyle: "medium" });
  const details = Object.entries(of.details).map(([name, value]) => `${name}: ${typeof value === "string" ? value : JSON.stringify(value)}`);
  return (
    <tr>
      <td><time dateTime={new Date(of.at * 1000).toISOString()}>{at}</time></td>
      <th scope="row" dir="auto">{of.actor}</th>
      <td><code>{of.action}</code></td>
      <td dir="auto">{of.target}</td>
      <td class={isDone ? "" : "outcome worse"}>{isDone ? say.done : of.status ? say.refused(of.status) : say.unknown}</td>
      <td class="details" dir="auto">{details.join(", ")}</td>
      <td>{[say.vias[of.via as keyof typeof say.vias] ?? of.via, of.address, of.gateway].filter(Boolean).join(" · ")}</td>
    </tr>
  );
}
