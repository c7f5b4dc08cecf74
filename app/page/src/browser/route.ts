// Where the user is: `#/chat/ID` and so on, so that the browser's own buttons work.
import { signal } from "@preact/signals";

export const PLACES = ["chat", "compare", "reports", "models", "team"] as const;
export type Place = (typeof PLACES)[number];

export interface Route {
  place: Place;
  id: string;
}

function read(): Route {
  const [, place, ...rest] = location.hash.split("/");
  let id = rest.join("/");
  try {
    id = decodeURIComponent(id);
  } catch {
    // A stray percent sign: taken as it is.
  }
  return { place: PLACES.find((each) => each === place) ?? "chat", id };
}

export const route = signal<Route>(read());
addEventListener("hashchange", () => {
  route.value = read();
});

export function address(place: Place, id = ""): string {
  return `#/${place}${id ? `/${encodeURIComponent(id)}` : ""}`;
}

/** Go there; `replace` leaves no step back to here. */
export function go(place: Place, id = "", replace = false): void {
  if (replace) {
    history.replaceState(null, "", address(place, id));
    route.value = read();
  } else location.hash = address(place, id);
}
