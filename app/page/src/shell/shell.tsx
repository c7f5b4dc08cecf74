// What is around every place of the page: the way between them, language, theme, key.
import { effect, signal } from "@preact/signals";
import { ChatPage } from "../chat/chat-page";
import { ComparePage } from "../compare/compare-page";
import { address, PLACES, type Place, route } from "../browser/route";
import { key, language, theme, type Theme } from "../browser/settings";
import { Button } from "../controls/button";
import { Icon } from "../controls/icons";
import { wantsKey } from "../gateway/http";
import { isAdmin, modelsFailure } from "../gateway/models";
import { ModelsPage } from "../models/models-page";
import { ReportsPage } from "../reports/reports-page";
import { TeamPage } from "../team/team-page";
import { failureText } from "../words/failures";
import { LANGUAGES, words } from "../words/words";
import { KeyDialog } from "./key-dialog";

const PAGES = { chat: ChatPage, compare: ComparePage, reports: ReportsPage, models: ModelsPage, team: TeamPage };
const NEXT_THEME: Record<Theme, Theme> = { auto: "light", light: "dark", dark: "auto" };
const showsKey = signal(false);

effect(() => {
  const root = document.documentElement;
  if (theme.value === "auto") root.removeAttribute("data-theme");
  else root.dataset.theme = theme.value;
});
effect(() => {
  document.title = `${words.value.places[route.value.place]} · Modelport`;
});
// Whoever comes without the key that is needed is asked for it, once.
effect(() => {
  if (wantsKey.value) showsKey.value = true;
});

export function Shell() {
  const say = words.value;
  const Page = PAGES[route.value.place];
  return (
    <>
      <a class="skip" href="#main" onClick={skip}>{say.skip}</a>
      <header class="bar">
        <a class="brand" href={address("chat")} aria-label="Modelport">
          <img src="page/icon.svg" alt="" />
          <span>Modelport</span>
        </a>
        <nav aria-label={say.navigation}>{PLACES.filter((place) => place !== "team" || isAdmin.value).map((place) => <Tab key={place} place={place} />)}</nav>
        <div class="bar-end">
          <select class="quiet" aria-label={say.language} title={say.language} value={language.value} onChange={(event) => {
            language.value = event.currentTarget.value as typeof language.value;
          }}>
            {Object.entries(LANGUAGES).map(([code, name]) => <option key={code} value={code}>{name}</option>)}
          </select>
          <Button icon="theme" label={say.theme[theme.value]} iconOnly kind="quiet" onClick={() => { theme.value = NEXT_THEME[theme.value] ?? "auto"; }} />
          <Button icon="key" label={key.value ? say.key.given : say.key.title} iconOnly kind={key.value ? "plain" : "quiet"} onClick={() => { showsKey.value = true; }} />
        </div>
      </header>
      {modelsFailure.value && route.value.place !== "models" && (
        <p class="banner" role="alert">
          <Icon name="warning" /><span>{failureText(modelsFailure.value)}</span>
          {modelsFailure.value.status === 401 && <Button label={say.key.title} small onClick={() => { showsKey.value = true; }} />}
        </p>
      )}
      <main id="main" tabindex={-1}><Page /></main>
      {showsKey.value && <KeyDialog onClose={() => { showsKey.value = false; }} />}
    </>
  );
}

function skip(event: Event): void {
  event.preventDefault(); // the hash is the page's address
  document.getElementById("main")!.focus();
}

function Tab({ place }: { place: Place }) {
  const isHere = route.value.place === place;
  return (
    <a href={address(place)} aria-current={isHere ? "page" : undefined}>
      <Icon name={place} />
      <span>{words.value.places[place]}</span>
    </a>
  );
}
