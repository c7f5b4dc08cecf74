// What is kept in this browser and nowhere else: conversations and comparisons.
import { type Signal, signal } from "@preact/signals";

interface Kept {
  id: string;
  updated: number;
}

const NAMES = ["chats", "comparisons"] as const;
type Name = (typeof NAMES)[number];

let opened: Promise<IDBDatabase> | null = null;

function database(): Promise<IDBDatabase> {
  opened ??= new Promise((resolve, reject) => {
    const opening = indexedDB.open("modelport", 1);
    opening.onupgradeneeded = () => NAMES.forEach((name) => opening.result.createObjectStore(name, { keyPath: "id" }));
    opening.onsuccess = () => resolve(opening.result);
    opening.onerror = () => reject(opening.error);
  });
  return opened;
}

async function act<T>(name: Name, mode: IDBTransactionMode, what: (store: IDBObjectStore) => IDBRequest<T>): Promise<T> {
  const store = (await database()).transaction(name, mode).objectStore(name);
  const request = what(store);
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/** All items of one kind, the latest first. Where the browser keeps nothing, they last as long as the tab. */
export class Shelf<T extends Kept> {
  readonly items: Signal<T[]> = signal([]);

  constructor(private readonly name: Name) {
    void act<T[]>(name, "readonly", (store) => store.getAll())
      .then((all) => {
        const known = new Set(this.items.peek().map((each) => each.id));
        this.items.value = latestFirst([...this.items.peek(), ...all.filter((each) => !known.has(each.id))]);
      })
      .catch(() => undefined);
  }

  put(item: T): void {
    this.items.value = latestFirst([item, ...this.items.value.filter((each) => each.id !== item.id)]);
    void act(this.name, "readwrite", (store) => store.put(item)).catch(() => undefined);
  }

  remove(id: string): void {
    this.items.value = this.items.value.filter((each) => each.id !== id);
    void act(this.name, "readwrite", (store) => store.delete(id)).catch(() => undefined);
  }

  clear(): void {
    this.items.value = [];
    void act(this.name, "readwrite", (store) => store.clear()).catch(() => undefined);
  }
}

function latestFirst<T extends Kept>(items: T[]): T[] {
  return items.toSorted((a, b) => b.updated - a.updated);
}

/** An id that no other item has; `crypto.randomUUID` is missing where the page did not come by HTTPS. */
export function newId(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(10)), (byte) => byte.toString(36).padStart(2, "0")).join("");
}
