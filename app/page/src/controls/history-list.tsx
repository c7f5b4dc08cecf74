// What was kept in this browser: a list beside the page, a drawer over it on a phone.
import { useEffect, useRef } from "preact/hooks";
import { address, go, type Place, route } from "../browser/route";
import type { Shelf } from "../browser/shelf";
import { when, words } from "../words/words";
import { Button } from "./button";

interface Item {
  id: string;
  updated: number;
  title: string;
}

interface Props<T extends Item> {
  title: string;
  place: Place;
  shelf: Shelf<T>;
  current: string;
  isOpen: boolean;
  onClose: () => void;
  newLabel: string;
  onNew: () => void;
  onExport: () => void;
}

export function HistoryList<T extends Item>(props: Props<T>) {
  const { title, place, shelf, current, isOpen, onClose, newLabel, onNew, onExport } = props;
  const say = words.value.history;
  const items = shelf.items.value;
  const side = useRef<HTMLElement>(null);
  useEffect(() => {
    if (isOpen) side.current!.querySelector("button")!.focus();
  }, [isOpen]);
  const remove = (id: string) => {
    shelf.remove(id);
    if (route.value.id === id) go(place);
  };
  const clear = () => {
    if (!confirm(say.clearSure)) return;
    shelf.clear();
    onNew();
  };
  return (
    <>
      {isOpen && <div class="veil" onClick={onClose} />}
      <aside
        ref={side}
        class={isOpen ? "side open" : "side"}
        aria-label={title}
        onKeyDown={(event) => { if (event.key === "Escape") onClose(); }}
      >
        <div class="side-head">
          <Button icon="add" label={newLabel} onClick={() => { onNew(); onClose(); }} />
          <span class="only-phone"><Button icon="close" label={words.value.close} iconOnly kind="quiet" onClick={onClose} /></span>
        </div>
        <h2>{title}</h2>
        {items.length === 0 && <p class="muted">{words.value.none}</p>}
        <ul>
          {items.map((each) => (
            <li key={each.id} class={each.id === current ? "current" : undefined}>
              <a href={address(place, each.id)} aria-current={each.id === current ? "page" : undefined} onClick={onClose}>
                <span class="title" dir="auto">{each.title || say.untitled}</span>
                <time dateTime={new Date(each.updated).toISOString()}>{when(each.updated)}</time>
              </a>
              <Button icon="remove" label={say.remove(each.title)} iconOnly kind="quiet" small onClick={() => remove(each.id)} />
            </li>
          ))}
        </ul>
        {items.length > 0 && (
          <div class="row">
            <Button icon="download" label={say.export} kind="quiet" small onClick={onExport} />
            <Button icon="remove" label={say.clear} kind="quiet" small onClick={clear} />
          </div>
        )}
        <p class="muted note">{say.where}</p>
      </aside>
    </>
  );
}
