"""Engines, daemons and a hub on real sockets, which answer as recorded ones did and fail on demand."""
