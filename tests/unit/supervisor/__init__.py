"""The supervisor: engines, memory, relays, the admin routes."""
