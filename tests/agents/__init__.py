"""Coding agents from their packages, on their default settings, at the gateway (`make test-agents`)."""
