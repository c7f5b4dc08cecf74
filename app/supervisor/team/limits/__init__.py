"""What this gateway may spend of clients' limits, and gives its relays to spend. `spans.py` says for how long what was
spent counts, `ledger.py` is one limit of one key as this gateway knows it, `key_account.py` all limits of one key with
what relays have of them (all three pure). `allowances.py` replies to the relays from memory, and `store_sync.py` agrees
with the other gateways by way of the store.

May import: app.ipc, app.store, app.table.
"""
