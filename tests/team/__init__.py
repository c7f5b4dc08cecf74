"""Several gateways as a team: one file, one store (`make test-team`; what takes minutes: `make test-team-full`)."""
