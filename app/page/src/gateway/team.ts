// What an administrator sees and orders of keys, usage and the audit. docs/api.md has the shapes.
import { ask, askJson } from "./http";

export interface Budget {
  tokens?: number | null;
  money?: number | null;
  per: string;
}

export interface KeyFields {
  name: string;
  team: string | null;
  role: string;
  models: string[] | null;
  expires: string | null;
  priority: string;
  rpm: number | null;
  tpm: number | null;
  max_parallel: number | null;
  budget: Budget | null;
}

export interface GatewayKey extends KeyFields {
  id: string;
  /** Keys of the `file` and of the `environment` are changed there. */
  place: string;
  state: string;
}

export interface UsageRow {
  /** Of a key: a later key may have the name of one that was revoked. */
  id: string | null;
  name: string;
  requests: number;
  failed: number;
  input_tokens: number;
  output_tokens: number;
  cached_tokens: number;
  money: number;
}

export interface AuditEntry {
  id: string;
  at: number;
  actor: string;
  via: string;
  action: string;
  target: string;
  status: number;
  details: Record<string, unknown>;
  gateway: string;
  address: string;
}

export const USAGE_BY = ["key", "model", "day", "team"] as const;
export type UsageBy = (typeof USAGE_BY)[number];

export async function keys(): Promise<GatewayKey[]> {
  return (await askJson<{ data: GatewayKey[] }>("admin/keys")).data;
}

/** Make a key; the secret is told this once. */
export async function makeKey(fields: KeyFields): Promise<string> {
  return (await askJson<{ key: string }>("admin/keys", { body: fields })).key;
}

export async function changeKey(name: string, fields: Partial<KeyFields>): Promise<void> {
  await ask(`admin/keys/${encodeURIComponent(name)}/edit`, { body: fields });
}

export async function revokeKey(name: string): Promise<void> {
  await ask(`admin/keys/${encodeURIComponent(name)}/revoke`, { method: "POST" });
}

/** Another secret for the same key; the old one opens for `grace_s` seconds more. */
export async function rotateKey(name: string, grace_s: number): Promise<string> {
  return (await askJson<{ key: string }>(`admin/keys/${encodeURIComponent(name)}/rotate`, { body: { grace_s } })).key;
}

/** What was used in the last so many days. */
export async function usage(by: UsageBy, days: number): Promise<UsageRow[]> {
  return (await askJson<{ data: UsageRow[] }>(`admin/usage?${new URLSearchParams({ by, since: `${days}d` })}`)).data;
}

export async function usageCsv(by: UsageBy, days: number): Promise<string> {
  return (await ask(`admin/usage?${new URLSearchParams({ by, since: `${days}d`, format: "csv" })}`)).text();
}

/** The newest entries, or those below the entry `before`. `wanted`: further fields of the query. */
export async function audit(wanted: Record<string, string>, before = ""): Promise<{ data: AuditEntry[]; has_more: boolean }> {
  const given = Object.entries({ ...wanted, before }).filter(([, value]) => value);
  return askJson(`admin/audit?${new URLSearchParams(given)}`);
}
