// The models that this key may use, and what an administrator may see and do.
import { computed, signal } from "@preact/signals";
import { key } from "../browser/settings";
import { ask, askJson, Refusal } from "./http";

export interface Model {
  id: string;
  state: string;
  backend: string;
  owned_by: string;
  context_length: number | null;
  quantization: string | null;
  serving: string | null;
  capabilities: Record<string, string>;
  parity?: string;
  parent?: string;
}

/** null until the list was read once. */
export const models = signal<Model[] | null>(null);
/** Why the list could not be read; null while it can. */
export const modelsFailure = signal<Refusal | null>(null);
/** Whether the admin routes answer to this key. */
export const isAdmin = signal(false);
/** Of the backends, as an administrator sees them: why one does not serve. */
export const reasons = signal<Record<string, string>>({});
/** The names that can be asked something by chat, those that serve first. */
export const chatModels = computed(() =>
  (models.value ?? [])
    .filter((each) => can(each, "chat") !== false)
    .toSorted((a, b) => Number(serves(b)) - Number(serves(a))),
);

/** True or false where something is known of a capability, else undefined. */
export function can(model: Model, capability: string): boolean | undefined {
  const known = model.capabilities[capability];
  if (capability === "chat" && known === undefined) {
    // An engine for vectors or ranks tells what it is for, and chat is not among it.
    return model.capabilities.embedding && !model.capabilities.completion ? false : undefined;
  }
  return known === undefined ? undefined : known !== "failed";
}

export function serves(model: Model): boolean {
  return model.state === "ready" || model.state === "sleeping";
}

/** Read the list again. It never rejects. */
export async function readModels(): Promise<void> {
  try {
    const { data } = await askJson<{ data: Model[] }>("v1/models");
    models.value = data.map((each) => ({ ...each, capabilities: each.capabilities ?? {} }));
    modelsFailure.value = null;
  } catch (error) {
    if (error instanceof Refusal) modelsFailure.value = error;
  }
}

interface Health {
  backends: { name: string; state: string; reason?: string | null }[];
}

/** Ask whether this key is an administrator's, and for what only those see. It never rejects. */
export async function readAdmin(): Promise<void> {
  try {
    const { health } = await askJson<{ health: Health }>("admin/status");
    isAdmin.value = true;
    reasons.value = Object.fromEntries(health.backends.map((each) => [each.name, each.reason ?? ""]));
  } catch {
    isAdmin.value = false;
  }
}

/** Start or stop an engine. */
export async function order(backend: string, what: "start" | "stop"): Promise<void> {
  await ask(`admin/backends/${backend.split("/").map(encodeURIComponent).join("/")}/${what}`, { method: "POST" });
  await readModels();
}

/** The last lines that an engine wrote. */
export async function logTail(backend: string): Promise<string[]> {
  const path = `admin/backends/${backend.split("/").map(encodeURIComponent).join("/")}/logs?lines=200`;
  return (await askJson<{ lines: string[] }>(path)).lines;
}

/** Keep the list fresh while somebody looks: every 4 seconds, and at once when the page is looked at again. */
export function follow(): void {
  const read = () => {
    if (document.visibilityState === "visible") void readModels();
  };
  key.subscribe(() => {
    void readModels();
    void readAdmin();
  });
  setInterval(read, 4000);
  document.addEventListener("visibilitychange", read);
}
