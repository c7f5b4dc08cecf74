// What is typed into the form of a key, and what it means.
import type { GatewayKey, KeyFields } from "../gateway/team";

/** As it stands in the form: texts. `expires` is a day. */
export interface Typed {
  name: string;
  team: string;
  role: string;
  models: string;
  expires: string;
  priority: string;
  rpm: string;
  tpm: string;
  max_parallel: string;
  amount: string;
  unit: string;
  per: string;
}

export function typed(of: GatewayKey | null): Typed {
  const budget = of?.budget;
  return {
    name: of?.name ?? "",
    team: of?.team ?? "",
    role: of?.role ?? "user",
    models: of?.models?.join(", ") ?? "",
    expires: of?.expires?.slice(0, 10) ?? "",
    priority: of?.priority ?? "interactive",
    rpm: text(of?.rpm),
    tpm: text(of?.tpm),
    max_parallel: text(of?.max_parallel),
    amount: text(budget?.tokens ?? budget?.money),
    unit: budget?.money ? "money" : "tokens",
    per: budget?.per ?? "month",
  };
}

const text = (value: number | null | undefined) => (value === null || value === undefined ? "" : String(value));

/** The fields of the key, or the name of the one that cannot be sent. A day means its end. Pure. */
export function fields(of: Typed): KeyFields | { wrong: keyof Typed } {
  const counts: Record<string, number | null> = {};
  for (const name of ["rpm", "tpm", "max_parallel"] as const) {
    const count = of[name].trim() ? Number(of[name]) : null;
    if (count !== null && !(Number.isInteger(count) && count > 0)) return { wrong: name };
    counts[name] = count;
  }
  const amount = of.amount.trim() ? Number(of.amount) : null;
  if (amount !== null && !(amount > 0 && (of.unit === "money" || Number.isInteger(amount)))) return { wrong: "amount" };
  if (!of.name.trim()) return { wrong: "name" };
  const models = of.models.split(",").map((each) => each.trim()).filter(Boolean);
  return {
    name: of.name.trim(),
    team: of.team.trim() || null,
    role: of.role,
    models: models.length ? models : null,
    expires: of.expires ? `${of.expires}T23:59:59Z` : null,
    priority: of.priority,
    rpm: counts.rpm ?? null,
    tpm: counts.tpm ?? null,
    max_parallel: counts.max_parallel ?? null,
    budget: amount === null ? null : { [of.unit]: amount, per: of.per },
  };
}
