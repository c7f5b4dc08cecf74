"""A relay: its routes, its protocol, one model request from plan to end."""
