"""Opening a page once more, as a person does: not within the moment in which the browser stores what was done last."""

from __future__ import annotations

from playwright.sync_api import Page

# Transactions of one store come one after the other, so a read that is answered comes after every write before it.
_STORED = """() => new Promise((resolve, reject) => {
  const opening = indexedDB.open("modelport");
  opening.onerror = () => reject(opening.error);
  opening.onsuccess = () => {
    const names = [...opening.result.objectStoreNames];
    const reading = opening.result.transaction(names);
    reading.oncomplete = () => { opening.result.close(); resolve(); };
    for (const name of names) reading.objectStore(name).count();
  };
})"""


def reload(page: Page) -> None:
    """Open the page again, with what it has kept."""
    page.evaluate(_STORED)
    page.reload()
