"""How one engine is run and spoken to. Knows nothing of keys, users or the web framework."""
