// Keys, what they have used, and who did what here: for administrators.
import { address, route } from "../browser/route";
import { Empty } from "../controls/notice";
import { isAdmin } from "../gateway/models";
import { words } from "../words/words";
import { AuditView } from "./audit-view";
import { KeysView } from "./keys-view";
import { UsageView } from "./usage-view";

const VIEWS = { keys: KeysView, usage: UsageView, audit: AuditView };
const NAMES = Object.keys(VIEWS) as (keyof typeof VIEWS)[];

export function TeamPage() {
  const say = words.value.team;
  const name = NAMES.find((each) => each === route.value.id) ?? "keys";
  const View = VIEWS[name];
  return (
    <div class="scroll">
      <div class="column wide-column">
        <h1>{words.value.places.team}</h1>
        {!isAdmin.value && <Empty icon="team" title={say.forAdmins}><p>{say.forAdminsText}</p></Empty>}
        {isAdmin.value && (
          <>
            <nav class="row" aria-label={words.value.places.team}>
              {NAMES.map((each) => (
                <a key={each} class="tab" href={address("team", each)} aria-current={each === name ? "page" : undefined}>{say.views[each]}</a>
              ))}
            </nav>
            <View />
          </>
        )}
      </div>
    </div>
  );
}
