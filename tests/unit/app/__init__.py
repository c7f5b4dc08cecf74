"""What supervisor and relays share: errors, keys, the log, routing."""
