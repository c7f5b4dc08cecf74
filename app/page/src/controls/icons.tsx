// The page's icons: lines of 24 × 24, drawn for it.
const PATHS = {
  send: "M12 19V5M5.5 11.5 12 5l6.5 6.5",
  copy: "M9 9h10v11H9zM5 15V4h10",
  again: "M20 12a8 8 0 1 1-2.5-5.8M20 3v4.5h-4.5",
  edit: "M4 20h4L19 9l-4-4L4 16z",
  remove: "M4 7h16M9 7V4h6v3M6 7l1 13h10l1-13",
  add: "M12 5v14M5 12h14",
  list: "M4 6h16M4 12h16M4 18h10",
  close: "M6 6l12 12M18 6 6 18",
  key: "M8 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8M12 12h9v4M17 12v3",
  sliders: "M4 7h9M17 7h3M4 17h3M11 17h9M13 5v4h4V5zM7 15v4h4v-4z",
  picture: "M4 5h16v14H4zM4 16l5-5 4 4 3-3 4 4",
  download: "M12 4v11M7 10.5l5 5 5-5M5 20h14",
  theme: "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18M12 3v18M12 8h8M12 13h9M12 18h6",
  check: "M5 12.5l5 5L19 7",
  down: "M6 9l6 6 6-6",
  chat: "M4 5h16v11H10l-5 4v-4H4z",
  compare: "M4 5h7v14H4zM13 5h7v14h-7z",
  reports: "M5 20V10M12 20V4M19 20v-7",
  models: "M4 5h16v6H4zM4 13h16v6H4z",
  team: "M9 5a3.5 3.5 0 1 0 0 7 3.5 3.5 0 0 0 0-7M2.5 20c0-4 3-6 6.5-6s6.5 2 6.5 6M16 5.5a3.5 3.5 0 0 1 0 6.5M18 14.5c2.2.8 3.5 2.7 3.5 5.5",
  warning: "M12 4 2.5 20h19zM12 10v4.5M12 17.2h.01",
} as const;

export type IconName = keyof typeof PATHS | "stop";

export function Icon({ name }: { name: IconName }) {
  return (
    <svg class="icon" viewBox="0 0 24 24" aria-hidden="true" focusable="false">
      {name === "stop" ? <rect x="7" y="7" width="10" height="10" rx="2" class="full" /> : <path d={PATHS[name]} />}
    </svg>
  );
}
