"""Clients that want an environment of their own, at the gateway (`make test-clients`)."""
